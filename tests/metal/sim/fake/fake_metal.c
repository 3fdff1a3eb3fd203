// A Metal that runs on Linux: libobjc's C functions and the Metal classes that host/metal_host.c uses, over the CPU
// kernels. Execution is as late as Metal allows (at waitUntilCompleted), new buffers hold NaN, and every rule that Metal's
// API validation checks and we know of stops the process with a message.
#define _GNU_SOURCE
#include "../shim/msl_rt.h"
#include <dlfcn.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#define EXPORT __attribute__((visibility("default")))
typedef struct obj *id;
typedef const char *SEL;            // an interned string
typedef unsigned long NSUInteger;
typedef struct { NSUInteger width, height, depth; } MTLSize;
typedef void (*IMP)(void);
struct method { const char *sel; IMP imp; };
struct cls { struct cls *isa; const char *name; const struct method *methods; void (*dealloc)(id); size_t size; };
struct obj { struct cls *isa; int rc; };

static long g_live;
static void die(const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    fputs("fake Metal: ", stderr);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
    va_end(ap);
    fflush(stderr);
    abort();
}
EXPORT long fake_metal_live_objects(void) { return g_live; }

// ---- the runtime ------------------------------------------------------------------------------------------------------
static const char *g_sels[512];
static int g_nsels;
EXPORT SEL sel_registerName(const char *n) {
    for (int i = 0; i < g_nsels; ++i) if (!strcmp(g_sels[i], n)) return g_sels[i];
    if (g_nsels == 512) die("too many selectors");
    return g_sels[g_nsels++] = strdup(n);
}
// os_unfair_lock: 0 when open. Recursion and unlocking by another thread stop the process, as on macOS.
static pthread_mutex_t g_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_t g_owner;
EXPORT void os_unfair_lock_lock(uint32_t *l) {
    if (*(volatile uint32_t *)l && pthread_equal(g_owner, pthread_self())) die("os_unfair_lock taken twice by a thread");
    pthread_mutex_lock(&g_lock);
    g_owner = pthread_self();
    *(volatile uint32_t *)l = 1;
}
EXPORT void os_unfair_lock_unlock(uint32_t *l) {
    if (!*(volatile uint32_t *)l || !pthread_equal(g_owner, pthread_self())) die("os_unfair_lock given back by a thread that does not hold it");
    *(volatile uint32_t *)l = 0;
    pthread_mutex_unlock(&g_lock);
}
static id make(struct cls *c) { id o = calloc(1, c->size); o->isa = c; o->rc = 1; ++g_live; return o; }
static struct { id *v; int n, cap; int marks[64], nmarks; } g_pool;
EXPORT void *objc_autoreleasePoolPush(void) { if (g_pool.nmarks == 64) die("autorelease pools too deep"); g_pool.marks[g_pool.nmarks++] = g_pool.n; return (void *)(intptr_t)g_pool.nmarks; }
static void drop(id o);
EXPORT void objc_autoreleasePoolPop(void *p) {
    if ((intptr_t)p != g_pool.nmarks) die("autorelease pools popped out of order");
    int to = g_pool.marks[--g_pool.nmarks];
    while (g_pool.n > to) drop(g_pool.v[--g_pool.n]);
}
static id autorelease(id o) {
    if (!g_pool.nmarks) die("%s autoreleased with no pool in place: it would leak", o->isa->name);
    if (g_pool.n == g_pool.cap) g_pool.v = realloc(g_pool.v, sizeof(id) * (g_pool.cap = g_pool.cap * 2 + 64));
    return g_pool.v[g_pool.n++] = o;
}
static void drop(id o) {
    if (o->rc <= 0) die("%s released too often", o->isa->name);
    if (--o->rc) return;
    if (o->isa->dealloc) o->isa->dealloc(o);
    --g_live;
    o->rc = -1000;   // kept, so that a later use is seen; a test process is short
}
static id keep(id o) { if (o) ++o->rc; return o; }
static id m_retain(id s, SEL c) { (void)c; return keep(s); }
static void m_release(id s, SEL c) { (void)c; drop(s); }
EXPORT IMP fake_lookup(id o, SEL s) {
    if (o->rc <= 0 && o->isa->isa) die("-[%s %s] sent to a freed object", o->isa->name, s);
    for (const struct method *m = o->isa->methods; m->sel; ++m) if (!strcmp(m->sel, s)) return m->imp;
    if (!strcmp(s, "retain")) return (IMP)m_retain;
    if (!strcmp(s, "release")) return (IMP)m_release;
    die("-[%s %s]: unrecognized selector", o->isa->name, s);
    return 0;
}
// Like Apple's: all argument registers and the stack reach the method untouched; a message to nil returns 0.
#if defined(__x86_64__)
__asm__(".text\n.globl objc_msgSend\n.type objc_msgSend,@function\nobjc_msgSend:\n"
        "test %rdi,%rdi\njz 1f\n"
        "push %rbp\nmov %rsp,%rbp\npush %rdi\npush %rsi\npush %rdx\npush %rcx\npush %r8\npush %r9\n"
        "sub $128,%rsp\nmovups %xmm0,(%rsp)\nmovups %xmm1,16(%rsp)\nmovups %xmm2,32(%rsp)\nmovups %xmm3,48(%rsp)\n"
        "movups %xmm4,64(%rsp)\nmovups %xmm5,80(%rsp)\nmovups %xmm6,96(%rsp)\nmovups %xmm7,112(%rsp)\n"
        "call fake_lookup@PLT\nmov %rax,%r11\n"
        "movups (%rsp),%xmm0\nmovups 16(%rsp),%xmm1\nmovups 32(%rsp),%xmm2\nmovups 48(%rsp),%xmm3\n"
        "movups 64(%rsp),%xmm4\nmovups 80(%rsp),%xmm5\nmovups 96(%rsp),%xmm6\nmovups 112(%rsp),%xmm7\nadd $128,%rsp\n"
        "pop %r9\npop %r8\npop %rcx\npop %rdx\npop %rsi\npop %rdi\npop %rbp\njmp *%r11\n"
        "1: xor %eax,%eax\nxor %edx,%edx\nxorps %xmm0,%xmm0\nret\n");
#elif defined(__aarch64__)
__asm__(".text\n.globl objc_msgSend\n.type objc_msgSend,%function\nobjc_msgSend:\n"
        "cbz x0,1f\n"
        "stp x29,x30,[sp,#-208]!\nmov x29,sp\nstp x0,x1,[sp,#16]\nstp x2,x3,[sp,#32]\nstp x4,x5,[sp,#48]\nstp x6,x7,[sp,#64]\n"
        "str x8,[sp,#80]\nstp q0,q1,[sp,#96]\nstp q2,q3,[sp,#128]\nstp q4,q5,[sp,#160]\n"
        "bl fake_lookup\nmov x16,x0\n"
        "ldp x0,x1,[sp,#16]\nldp x2,x3,[sp,#32]\nldp x4,x5,[sp,#48]\nldp x6,x7,[sp,#64]\nldr x8,[sp,#80]\n"
        "ldp q0,q1,[sp,#96]\nldp q2,q3,[sp,#128]\nldp q4,q5,[sp,#160]\nldp x29,x30,[sp],#208\nbr x16\n"
        "1: mov x0,#0\nmov x1,#0\nmovi d0,#0\nret\n");
#endif
EXPORT void objc_msgSend(void);

// ---- Foundation -------------------------------------------------------------------------------------------------------
struct str { struct obj o; char *s; };
static void str_free(id o) { free(((struct str *)o)->s); }
static const char *str_utf8(id s, SEL c) { (void)c; return ((struct str *)s)->s; }
static const struct method str_m[] = {{"UTF8String", (IMP)str_utf8}, {0}};
static struct cls NSString_ = {0, "NSString", str_m, str_free, sizeof(struct str)};
static id new_str(const char *s) { struct str *o = (void *)make(&NSString_); o->s = strdup(s); return (id)o; }
static id cls_str(id s, SEL c, const char *u) { (void)s, (void)c; return autorelease(new_str(u)); }
struct err { struct obj o; id text; };
static void err_free(id o) { drop(((struct err *)o)->text); }
static id err_desc(id s, SEL c) { (void)c; return ((struct err *)s)->text; }
static const struct method err_m[] = {{"localizedDescription", (IMP)err_desc}, {0}};
static struct cls NSError_ = {0, "NSError", err_m, err_free, sizeof(struct err)};
static id new_err(const char *s) { struct err *e = (void *)make(&NSError_); e->text = new_str(s); return autorelease((id)e); }
struct arr { struct obj o; id v[4]; NSUInteger n; };
static void arr_free(id o) { struct arr *a = (void *)o; for (NSUInteger i = 0; i < a->n; ++i) drop(a->v[i]); }
static NSUInteger arr_count(id s, SEL c) { (void)c; return ((struct arr *)s)->n; }
static id arr_at(id s, SEL c, NSUInteger i) { (void)c; return ((struct arr *)s)->v[i]; }
static const struct method arr_m[] = {{"count", (IMP)arr_count}, {"objectAtIndex:", (IMP)arr_at}, {0}};
static struct cls NSArray_ = {0, "NSArray", arr_m, arr_free, sizeof(struct arr)};

// ---- Metal ------------------------------------------------------------------------------------------------------------
struct opts { struct obj o; NSUInteger lang; bool fast; };
static void opts_lang(id s, SEL c, NSUInteger v) { (void)c; ((struct opts *)s)->lang = v; }
static void opts_fast(id s, SEL c, bool v) { (void)c; ((struct opts *)s)->fast = v; }
static const struct method opts_m[] = {{"setLanguageVersion:", (IMP)opts_lang}, {"setFastMathEnabled:", (IMP)opts_fast}, {0}};
static struct cls Opts_ = {0, "MTLCompileOptions", opts_m, 0, sizeof(struct opts)};
struct fcv { struct obj o; struct { bool set; unsigned size; unsigned char v[16]; } c[64]; };
static void fcv_set(id s, SEL c, const void *v, NSUInteger type, NSUInteger i) {
    (void)c;
    unsigned size = type == 53 ? 1 : type == 29 || type == 33 || type == 3 ? 4 : 0;   // bool, int, uint, float
    if (!size) die("setConstantValue: MTLDataType %lu is not known here", type);
    if (i >= 64) die("function constant index %lu", i);
    struct fcv *f = (void *)s;
    f->c[i].set = true, f->c[i].size = size, memcpy(f->c[i].v, v, size);
}
static const struct method fcv_m[] = {{"setConstantValue:type:atIndex:", (IMP)fcv_set}, {0}};
static struct cls Fcv_ = {0, "MTLFunctionConstantValues", fcv_m, 0, sizeof(struct fcv)};
static id cls_new_opts(id s, SEL c) { (void)s, (void)c; return make(&Opts_); }
static id cls_new_fcv(id s, SEL c) { (void)s, (void)c; return make(&Fcv_); }

struct lib { struct obj o; const MslModule *mod; };
struct fn { struct obj o; id lib; const MslKernel *k; struct fcv consts; };
struct pso { struct obj o; id fn; };
static void fn_free(id o) { drop(((struct fn *)o)->lib); }
static const struct method none_m[] = {{0}};
static struct cls Fn_ = {0, "MTLFunction", none_m, fn_free, sizeof(struct fn)};
static void pso_free(id o) { drop(((struct pso *)o)->fn); }
static NSUInteger pso_max(id s, SEL c) { (void)c; return ((struct fn *)((struct pso *)s)->fn)->k->max_threads; }
static NSUInteger pso_width(id s, SEL c) { (void)s, (void)c; return MSL_SIMD; }
static const struct method pso_m[] = {{"maxTotalThreadsPerThreadgroup", (IMP)pso_max}, {"threadExecutionWidth", (IMP)pso_width}, {0}};
static struct cls Pso_ = {0, "MTLComputePipelineState", pso_m, pso_free, sizeof(struct pso)};
static id lib_fn(id s, SEL c, id name, id consts, id *err) {
    (void)c;
    const MslModule *m = ((struct lib *)s)->mod;
    const char *n = ((struct str *)name)->s;
    for (unsigned i = 0; i < m->nkernels; ++i)
        if (!strcmp(m->kernels[i].name, n)) {
            struct fn *f = (void *)make(&Fn_);
            f->lib = keep(s), f->k = &m->kernels[i];
            if (consts) memcpy(f->consts.c, ((struct fcv *)consts)->c, sizeof f->consts.c);
            return (id)f;
        }
    char b[200];
    snprintf(b, sizeof b, "function %s was not found in the library", n);
    if (err) *err = new_err(b);
    return 0;
}
static const struct method lib_m[] = {{"newFunctionWithName:constantValues:error:", (IMP)lib_fn}, {0}};
static struct cls Lib_ = {0, "MTLLibrary", lib_m, 0, sizeof(struct lib)};

struct buf { struct obj o; char *p; NSUInteger n; };
static void buf_free(id o) { free(((struct buf *)o)->p); }
static void *buf_contents(id s, SEL c) { (void)c; return ((struct buf *)s)->p; }
static NSUInteger buf_len(id s, SEL c) { (void)c; return ((struct buf *)s)->n; }
static const struct method buf_m[] = {{"contents", (IMP)buf_contents}, {"length", (IMP)buf_len}, {0}};
static struct cls Buf_ = {0, "MTLBuffer", buf_m, buf_free, sizeof(struct buf)};

struct launch { id pso; MslLaunch l; id held[MSL_MAX_BUFS]; void *bytes[MSL_MAX_BUFS]; MTLSize grid, tg; bool exact; };
struct cmd { struct obj o; id queue; struct launch *v; int n, cap; int state; bool open; char err[300]; struct cmd *next; };
struct queue { struct obj o; id dev; struct cmd *head, **tail; };
struct enc { struct obj o; struct cmd *cmd; struct launch cur; bool ended; };
static void cmd_run(struct cmd *c) {
    for (int i = 0; i < c->n; ++i) {
        struct launch *l = &c->v[i];
        struct fn *f = (struct fn *)((struct pso *)l->pso)->fn;
        const MslModule *m = ((struct lib *)f->lib)->mod;
        for (unsigned j = 0; j < m->nfconsts; ++j) {
            const MslFConst *fc = &m->fconsts[j];
            *fc->defined = f->consts.c[fc->index].set;
            if (*fc->defined) memcpy(fc->value, f->consts.c[fc->index].v, fc->size);
        }
        char e[256];
        if (c->state != 5 && msl_dispatch(f->k, &l->l, (MslU3){l->grid.width, l->grid.height, l->grid.depth}, (MslU3){l->tg.width, l->tg.height, l->tg.depth}, l->exact, e, sizeof e)) {
            snprintf(c->err, sizeof c->err, "%s", e);
            c->state = 5;
        }
    }
    for (int i = 0; i < c->n; ++i) {
        for (int j = 0; j < MSL_MAX_BUFS; ++j) { if (c->v[i].held[j]) drop(c->v[i].held[j]); free(c->v[i].bytes[j]); }
        drop(c->v[i].pso);
    }
    c->n = 0;
    if (c->state != 5) c->state = 4;
}
static void cmd_wait(id s, SEL sel) {
    (void)sel;
    struct cmd *c = (void *)s;
    struct queue *q = (void *)c->queue;
    if (c->state < 2) die("waitUntilCompleted on a command buffer that was not committed");
    while (c->state == 2) {   // run the queue up to this one
        struct cmd *h = q->head;
        if (!h) die("command buffer is not in its queue");
        if (!(q->head = h->next)) q->tail = &q->head;
        cmd_run(h);
        if (h != c) drop((id)h);
    }
    if (c->next != (void *)1) { c->next = (void *)1; drop(s); }   // the queue's reference
}
static void cmd_commit(id s, SEL sel) {
    (void)sel;
    struct cmd *c = (void *)s;
    if (c->open) die("commit with an encoder still open");
    if (c->state) die("commit twice");
    struct queue *q = (void *)c->queue;
    c->state = 2, c->next = 0;
    keep(s);
    *q->tail = c;
    q->tail = &c->next;
}
static void cmd_free(id o) { struct cmd *c = (void *)o; if (c->n) die("command buffer freed before it ran"); free(c->v); drop(c->queue); }
static NSUInteger cmd_status(id s, SEL c) { (void)c; return ((struct cmd *)s)->state; }
static id cmd_error(id s, SEL c) { (void)c; struct cmd *b = (void *)s; return b->state == 5 ? new_err(b->err) : 0; }
static struct cls Enc_;
static id cmd_enc(id s, SEL c) {
    (void)c;
    struct cmd *b = (void *)s;
    if (b->open) die("two encoders open on one command buffer");
    if (b->state) die("encoder on a committed command buffer");
    b->open = true;
    struct enc *e = (void *)make(&Enc_);
    e->cmd = (struct cmd *)keep(s);
    return autorelease((id)e);
}
static const struct method cmd_m[] = {{"computeCommandEncoder", (IMP)cmd_enc}, {"commit", (IMP)cmd_commit}, {"waitUntilCompleted", (IMP)cmd_wait}, {"status", (IMP)cmd_status}, {"error", (IMP)cmd_error}, {0}};
static struct cls Cmd_ = {0, "MTLCommandBuffer", cmd_m, cmd_free, sizeof(struct cmd)};
static void enc_clear(struct enc *e, int i) {
    if (e->cur.held[i]) drop(e->cur.held[i]);
    free(e->cur.bytes[i]);
    e->cur.held[i] = 0, e->cur.bytes[i] = 0;
}
static void enc_free(id o) { struct enc *e = (void *)o; if (!e->ended) die("encoder freed before endEncoding"); drop((id)e->cmd); }
static void enc_pso(id s, SEL c, id p) { (void)c; struct enc *e = (void *)s; keep(p); if (e->cur.pso) drop(e->cur.pso); e->cur.pso = p; }
static void enc_buf(id s, SEL c, id b, NSUInteger off, NSUInteger i) {
    (void)c;
    struct enc *e = (void *)s;
    if (i >= MSL_MAX_BUFS) die("setBuffer: index %lu, the highest is 30", i);
    if (b && b->isa != &Buf_) die("setBuffer: not an MTLBuffer");
    if (b && off >= ((struct buf *)b)->n) die("setBuffer: offset %lu outside the buffer", off);
    keep(b);
    enc_clear(e, i);
    e->cur.held[i] = b;
    e->cur.l.buf[i] = b ? ((struct buf *)b)->p + off : 0;
    e->cur.l.buflen[i] = b ? ((struct buf *)b)->n - off : 0;
}
static void enc_bytes(id s, SEL c, const void *p, NSUInteger n, NSUInteger i) {
    (void)c;
    struct enc *e = (void *)s;
    if (i >= MSL_MAX_BUFS) die("setBytes: index %lu, the highest is 30", i);
    if (!n || n > 4096) die("setBytes: %lu bytes, at most 4096", n);
    enc_clear(e, i);
    e->cur.bytes[i] = aligned_alloc(16, (n + 15) & ~15ul);
    memcpy(e->cur.bytes[i], p, n);
    e->cur.l.buf[i] = e->cur.bytes[i];
    e->cur.l.buflen[i] = n;
}
static void enc_tgmem(id s, SEL c, NSUInteger n, NSUInteger i) {
    (void)c;
    if (i >= MSL_MAX_TG) die("setThreadgroupMemoryLength: index %lu", i);
    if (n % 16) die("setThreadgroupMemoryLength: %lu is not a multiple of 16", n);
    if (n > 32768) die("setThreadgroupMemoryLength: %lu, at most 32768", n);
    ((struct enc *)s)->cur.l.tglen[i] = n;
}
static void record(struct enc *e, MTLSize g, MTLSize t, bool exact) {
    struct cmd *b = e->cmd;
    if (e->ended) die("dispatch after endEncoding");
    if (!e->cur.pso) die("dispatch with no pipeline state set");
    if (!g.width || !g.height || !g.depth) die("dispatch of an empty grid");
    NSUInteger max = pso_max(e->cur.pso, 0);
    if (t.width * t.height * t.depth > max) die("%lu threads in a threadgroup, the pipeline allows %lu", t.width * t.height * t.depth, max);
    if (b->n == b->cap) b->v = realloc(b->v, sizeof *b->v * (b->cap = b->cap * 2 + 16));
    struct launch *l = &b->v[b->n++];
    *l = e->cur;
    l->grid = g, l->tg = t, l->exact = exact;
    keep(l->pso);
    const MslKernel *k = ((struct fn *)((struct pso *)l->pso)->fn)->k;
    for (unsigned i = 0; i < k->nargs; ++i)
        if (k->args[i].kind != 't' && k->args[i].align && (uintptr_t)l->l.buf[k->args[i].index] % k->args[i].align) die("%s: buffer %u (%s) is not aligned to the %u bytes of its type", k->name, k->args[i].index, k->args[i].name, k->args[i].align);
    for (int i = 0; i < MSL_MAX_BUFS; ++i) {
        keep(l->held[i]);
        if (l->bytes[i]) { l->bytes[i] = aligned_alloc(16, (l->l.buflen[i] + 15) & ~15ul); memcpy(l->bytes[i], e->cur.bytes[i], l->l.buflen[i]); l->l.buf[i] = l->bytes[i]; }
    }
}
static void enc_dispatch(id s, SEL c, MTLSize g, MTLSize t) { (void)c; record((struct enc *)s, g, t, false); }
static void enc_dispatch_threads(id s, SEL c, MTLSize g, MTLSize t) { (void)c; record((struct enc *)s, g, t, true); }
static void enc_end(id s, SEL c) {
    (void)c;
    struct enc *e = (void *)s;
    if (e->ended) die("endEncoding twice");
    for (int i = 0; i < MSL_MAX_BUFS; ++i) enc_clear(e, i);
    if (e->cur.pso) drop(e->cur.pso);
    e->ended = true, e->cmd->open = false;
}
static const struct method enc_m[] = {{"setComputePipelineState:", (IMP)enc_pso}, {"setBuffer:offset:atIndex:", (IMP)enc_buf}, {"setBytes:length:atIndex:", (IMP)enc_bytes}, {"setThreadgroupMemoryLength:atIndex:", (IMP)enc_tgmem}, {"dispatchThreadgroups:threadsPerThreadgroup:", (IMP)enc_dispatch}, {"dispatchThreads:threadsPerThreadgroup:", (IMP)enc_dispatch_threads}, {"endEncoding", (IMP)enc_end}, {0}};
static struct cls Enc_ = {0, "MTLComputeCommandEncoder", enc_m, enc_free, sizeof(struct enc)};
static id q_cmd(id s, SEL c) { (void)c; struct cmd *b = (void *)make(&Cmd_); b->queue = keep(s); return autorelease((id)b); }
static void q_free(id o) { drop(((struct queue *)o)->dev); }
static const struct method q_m[] = {{"commandBuffer", (IMP)q_cmd}, {0}};
static struct cls Queue_ = {0, "MTLCommandQueue", q_m, q_free, sizeof(struct queue)};

static id dev_queue(id s, SEL c) { (void)c; struct queue *q = (void *)make(&Queue_); q->dev = keep(s); q->tail = &q->head; return (id)q; }
static id dev_name(id s, SEL c) { (void)s, (void)c; return autorelease(new_str("Fake Metal on CPU")); }
static id dev_buf(id s, SEL c, NSUInteger n, NSUInteger o) {
    (void)s, (void)c, (void)o;
    if (!n || n > (1ul << 36)) return 0;
    struct buf *b = (void *)make(&Buf_);
    b->p = aligned_alloc(256, (n + 255) & ~255ul), b->n = n;
    memset(b->p, 0xff, n);
    return (id)b;
}
static id dev_lib(id s, SEL c, id src, id o, id *err) {
    (void)s, (void)c;
    const char *text = ((struct str *)src)->s, *cc = getenv("FAKE_METAL_MSLC") ? getenv("FAKE_METAL_MSLC") : MSLC, *given = getenv("FAKE_METAL_CACHE");
    if (o && ((struct opts *)o)->lang < (3ul << 16 | 1)) die("language version %lx: bfloat needs 3.1", ((struct opts *)o)->lang);
    if (!o || ((struct opts *)o)->fast) die("fast math is on, and the kernels use infinities");
    char dir[500];
    Dl_info here;
    dladdr((void *)dev_lib, &here);
    snprintf(dir, sizeof dir, "%s", given ? given : here.dli_fname);
    if (!given) { char *e = strrchr(dir, '/'); snprintf(e ? e : dir, 20, "/kernels"); }
    uint64_t h = 1469598103934665603ull;
    for (const char *p = text; *p; ++p) h = (h ^ (unsigned char)*p) * 1099511628211ull;
    const char *x = getenv("MSL_TARGET");
    for (const char *p = x ? x : ""; *p; ++p) h = (h ^ (unsigned char)*p) * 1099511628211ull;
    char metal[600], so[600], cmd[4096], log[600];
    snprintf(metal, sizeof metal, "%s/%016lx.metal", dir, (unsigned long)h);
    snprintf(so, sizeof so, "%s/%016lx.so", dir, (unsigned long)h);
    snprintf(log, sizeof log, "%s/%016lx.err", dir, (unsigned long)h);
    if (access(so, R_OK)) {
        mkdir(dir, 0777);
        FILE *f = fopen(metal, "w");
        if (!f) die("cannot write %s", metal);
        fputs(text, f);
        fclose(f);
        Dl_info me;
        dladdr((void *)dev_lib, &me);   // the kernels need msl_rt, which lives in this library: the process may have loaded it locally
        snprintf(cmd, sizeof cmd, "MSL_RT_LIB=%s %s %s %s.tmp 2> %s && mv %s.tmp %s", strstr(me.dli_fname, ".so") ? me.dli_fname : "", cc, metal, so, log, so, so);
        if (system(cmd)) {
            static char msg[2000];
            f = fopen(log, "r");
            size_t n = f ? fread(msg, 1, sizeof msg - 1, f) : 0;
            msg[n] = 0;
            if (f) fclose(f);
            if (err) *err = new_err(msg);
            return 0;
        }
    }
    const char *w = getenv("FAKE_METAL_WORKERS");
    msl_set_workers(w ? atoi(w) : (int)sysconf(_SC_NPROCESSORS_ONLN));
    void *d = dlopen(so, RTLD_NOW | RTLD_LOCAL);
    if (!d) die("dlopen %s: %s", so, dlerror());
    struct lib *l = (void *)make(&Lib_);
    l->mod = dlsym(d, "msl_module");
    return (id)l;
}
static id dev_pso(id s, SEL c, id f, id *err) {
    (void)s, (void)c, (void)err;
    struct pso *p = (void *)make(&Pso_);
    p->fn = keep(f);
    return (id)p;
}
static bool dev_family(id s, SEL c, long f) { (void)s, (void)c; const char *x = getenv("FAKE_METAL_FAMILY"); return f <= (x ? atol(x) : 1009); }
static uint64_t dev_working_set(id s, SEL c) { (void)s, (void)c; const char *x = getenv("FAKE_METAL_BYTES"); return x ? strtoull(x, 0, 10) : 8ull << 30; }
static NSUInteger dev_max_buffer(id s, SEL c) { return dev_working_set(s, c) / 4 * 3; }
static const struct method dev_m[] = {{"supportsFamily:", (IMP)dev_family}, {"recommendedMaxWorkingSetSize", (IMP)dev_working_set}, {"maxBufferLength", (IMP)dev_max_buffer}, {"newCommandQueue", (IMP)dev_queue}, {"name", (IMP)dev_name}, {"newBufferWithLength:options:", (IMP)dev_buf}, {"newLibraryWithSource:options:error:", (IMP)dev_lib}, {"newComputePipelineStateWithFunction:error:", (IMP)dev_pso}, {0}};
static struct cls Device_ = {0, "MTLDevice", dev_m, 0, sizeof(struct obj)};
EXPORT id MTLCreateSystemDefaultDevice(void) { return getenv("FAKE_METAL_NO_DEVICE") ? 0 : make(&Device_); }
EXPORT id MTLCopyAllDevices(void) {
    struct arr *a = (void *)make(&NSArray_);
    if (!getenv("FAKE_METAL_NO_DEVICE")) a->v[a->n++] = make(&Device_);
    return (id)a;
}
// classes are objects too: their isa is a metaclass with the class methods
static const struct method str_cm[] = {{"stringWithUTF8String:", (IMP)cls_str}, {0}};
static const struct method opts_cm[] = {{"new", (IMP)cls_new_opts}, {0}};
static const struct method fcv_cm[] = {{"new", (IMP)cls_new_fcv}, {0}};
static struct cls metas[] = {{0, "NSString", str_cm, 0, 0}, {0, "MTLCompileOptions", opts_cm, 0, 0}, {0, "MTLFunctionConstantValues", fcv_cm, 0, 0}};
static struct obj classes[3] = {{&metas[0], 1}, {&metas[1], 1}, {&metas[2], 1}};
EXPORT void *objc_getClass(const char *n) {
    for (int i = 0; i < 3; ++i) if (!strcmp(metas[i].name, n)) return &classes[i];
    return 0;
}
