// Queue, command buffer, encoder. Work runs as late as Metal allows: at waitUntilCompleted, in order. The rules that Metal's
// API validation checks and that we know of stop the process with a message.
#include "fake.h"

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
        for (int j = 0; j < MSL_MAX_BUFS && c->state != 5; ++j)
            if (l->held[j] && !readable((struct buf *)l->held[j])) snprintf(c->err, sizeof c->err, "Caused GPU Address Fault Error"), c->state = 5;
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
static void record(struct enc *e, MTLSize g, MTLSize t, bool exact) {
    struct cmd *b = e->cmd;
    if (e->ended) die("dispatch after endEncoding");
    if (b->n > 1000) die("more than a thousand launches in a command buffer: the watchdog may stop it");
    if (!e->cur.pso) die("dispatch with no pipeline state set");
    if (((struct pso *)e->cur.pso)->whole && t.width * t.height * t.depth % MSL_SIMD) die("%lu threads in a threadgroup of a pipeline for whole simdgroups", t.width * t.height * t.depth);
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
static const struct method enc_m[] = {{"setComputePipelineState:", (IMP)enc_pso}, {"setBuffer:offset:atIndex:", (IMP)enc_buf}, {"setBytes:length:atIndex:", (IMP)enc_bytes}, {"dispatchThreadgroups:threadsPerThreadgroup:", (IMP)enc_dispatch}, {"dispatchThreads:threadsPerThreadgroup:", (IMP)enc_dispatch_threads}, {"endEncoding", (IMP)enc_end}, {0}};
static struct cls Enc_ = {0, "MTLComputeCommandEncoder", enc_m, enc_free, sizeof(struct enc)};
static id q_cmd(id s, SEL c) { (void)c; struct cmd *b = (void *)make(&Cmd_); b->queue = keep(s); return autorelease((id)b); }
static void q_free(id o) { drop(((struct queue *)o)->dev); }
static const struct method q_m[] = {{"commandBuffer", (IMP)q_cmd}, {0}};
static struct cls Queue_ = {0, "MTLCommandQueue", q_m, q_free, sizeof(struct queue)};
id new_queue(id device) {
    struct queue *q = (void *)make(&Queue_);
    q->dev = keep(device), q->tail = &q->head;
    return (id)q;
}
