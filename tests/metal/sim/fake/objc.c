// libobjc's C functions, libSystem's lock, and the Foundation classes that the host uses. A missing autorelease pool, a use
// after free, a release too many and an unknown selector stop the process; live objects are counted.
#include "fake.h"

#include <pthread.h>

static long g_live;
_Noreturn void die(const char *fmt, ...) {
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
id make(struct cls *c) { id o = calloc(1, c->size); o->isa = c; o->rc = 1; ++g_live; return o; }
static struct { id *v; int n, cap; int marks[64], nmarks; } g_pool;
EXPORT void *objc_autoreleasePoolPush(void) { if (g_pool.nmarks == 64) die("autorelease pools too deep"); g_pool.marks[g_pool.nmarks++] = g_pool.n; return (void *)(intptr_t)g_pool.nmarks; }
EXPORT void objc_autoreleasePoolPop(void *p) {
    if ((intptr_t)p != g_pool.nmarks) die("autorelease pools popped out of order");
    int to = g_pool.marks[--g_pool.nmarks];
    while (g_pool.n > to) drop(g_pool.v[--g_pool.n]);
}
id autorelease(id o) {
    if (!g_pool.nmarks) die("%s autoreleased with no pool in place: it would leak", o->isa->name);
    if (g_pool.n == g_pool.cap) g_pool.v = realloc(g_pool.v, sizeof(id) * (g_pool.cap = g_pool.cap * 2 + 64));
    return g_pool.v[g_pool.n++] = o;
}
void drop(id o) {
    if (o->rc <= 0) die("%s released too often", o->isa->name);
    if (--o->rc) return;
    if (o->isa->dealloc) o->isa->dealloc(o);
    --g_live;
    o->rc = -1000;   // kept, so that a later use is seen; a test process is short
}
id keep(id o) { if (o) ++o->rc; return o; }
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
static void str_free(id o) { free(((struct str *)o)->s); }
static const char *str_utf8(id s, SEL c) { (void)c; return ((struct str *)s)->s; }
static const struct method str_m[] = {{"UTF8String", (IMP)str_utf8}, {0}};
static struct cls NSString_ = {0, "NSString", str_m, str_free, sizeof(struct str)};
id new_str(const char *s) { struct str *o = (void *)make(&NSString_); o->s = strdup(s); return (id)o; }
static id cls_str(id s, SEL c, const char *u) { (void)s, (void)c; return autorelease(new_str(u)); }
struct err { struct obj o; id text; };
static void err_free(id o) { drop(((struct err *)o)->text); }
static id err_desc(id s, SEL c) { (void)c; return ((struct err *)s)->text; }
static const struct method err_m[] = {{"localizedDescription", (IMP)err_desc}, {0}};
static struct cls NSError_ = {0, "NSError", err_m, err_free, sizeof(struct err)};
id new_err(const char *s) { struct err *e = (void *)make(&NSError_); e->text = new_str(s); return autorelease((id)e); }
static void arr_free(id o) { struct arr *a = (void *)o; for (NSUInteger i = 0; i < a->n; ++i) drop(a->v[i]); }
static NSUInteger arr_count(id s, SEL c) { (void)c; return ((struct arr *)s)->n; }
static id arr_at(id s, SEL c, NSUInteger i) { (void)c; return ((struct arr *)s)->v[i]; }
static const struct method arr_m[] = {{"count", (IMP)arr_count}, {"objectAtIndex:", (IMP)arr_at}, {0}};
struct cls NSArray_ = {0, "NSArray", arr_m, arr_free, sizeof(struct arr)};

// Classes are objects too: their isa is a metaclass with the class methods.
static id cls_new_opts(id s, SEL c) {
    (void)s, (void)c;
    id o = make(&Opts_);
    ((struct opts *)o)->fast = true;   // Metal's default
    return o;
}
static id cls_new_fcv(id s, SEL c) { (void)s, (void)c; return make(&Fcv_); }
static id cls_new_desc(id s, SEL c) { (void)s, (void)c; return make(&Desc_); }
static const struct method str_cm[] = {{"stringWithUTF8String:", (IMP)cls_str}, {0}};
static const struct method opts_cm[] = {{"new", (IMP)cls_new_opts}, {0}};
static const struct method fcv_cm[] = {{"new", (IMP)cls_new_fcv}, {0}}, desc_cm[] = {{"new", (IMP)cls_new_desc}, {0}};
static struct cls metas[] = {{0, "NSString", str_cm, 0, 0}, {0, "MTLCompileOptions", opts_cm, 0, 0}, {0, "MTLFunctionConstantValues", fcv_cm, 0, 0}, {0, "MTLComputePipelineDescriptor", desc_cm, 0, 0}};
static struct obj classes[4] = {{&metas[0], 1}, {&metas[1], 1}, {&metas[2], 1}, {&metas[3], 1}};
EXPORT void *objc_getClass(const char *n) {
    for (int i = 0; i < 4; ++i) if (!strcmp(metas[i].name, n)) return &classes[i];
    return 0;
}
