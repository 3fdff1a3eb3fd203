// The Metal classes that do not run anything: device, options, library, function, pipeline, buffer. New buffers hold NaN.
// A library
// is what build.sh compiled for the CPU, and its text must be that one's.
#include "fake.h"

#include <dlfcn.h>
#include <unistd.h>

static void opts_lang(id s, SEL c, NSUInteger v) { (void)c; ((struct opts *)s)->lang = v; }
static void opts_fast(id s, SEL c, bool v) { (void)c; ((struct opts *)s)->fast = v; }
static const struct method opts_m[] = {{"setLanguageVersion:", (IMP)opts_lang}, {"setFastMathEnabled:", (IMP)opts_fast}, {0}};
struct cls Opts_ = {0, "MTLCompileOptions", opts_m, 0, sizeof(struct opts)};
static void fcv_set(id s, SEL c, const void *v, NSUInteger type, NSUInteger i) {
    (void)c;
    unsigned size = type == 53 ? 1 : type == 29 || type == 33 || type == 3 ? 4 : 0;   // bool, int, uint, float
    if (!size) die("setConstantValue: MTLDataType %lu is not known here", type);
    if (i >= 64) die("function constant index %lu", i);
    struct fcv *f = (void *)s;
    f->c[i].set = true, f->c[i].size = size, memcpy(f->c[i].v, v, size);
}
static const struct method fcv_m[] = {{"setConstantValue:type:atIndex:", (IMP)fcv_set}, {0}};
struct cls Fcv_ = {0, "MTLFunctionConstantValues", fcv_m, 0, sizeof(struct fcv)};

static void fn_free(id o) { drop(((struct fn *)o)->lib); }
static const struct method none_m[] = {{0}};
static struct cls Fn_ = {0, "MTLFunction", none_m, fn_free, sizeof(struct fn)};
static void pso_free(id o) { drop(((struct pso *)o)->fn); }
NSUInteger pso_max(id s, SEL c) {
    (void)c;
    struct pso *p = (struct pso *)s;
    NSUInteger own = ((struct fn *)p->fn)->k->max_threads;
    return p->most && p->most < own ? p->most : own;
}
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

// MTLComputePipelineDescriptor
static void desc_fn(id s, SEL c, id f) { (void)c; struct desc *d = (void *)s; keep(f); if (d->fn) drop(d->fn); d->fn = f; }
static void desc_most(id s, SEL c, NSUInteger n) { (void)c; if (n > 1024) die("setMaxTotalThreadsPerThreadgroup:%lu", n); ((struct desc *)s)->most = n; }
static void desc_whole(id s, SEL c, bool x) { (void)c; ((struct desc *)s)->whole = x; }
static void desc_free(id o) { if (((struct desc *)o)->fn) drop(((struct desc *)o)->fn); }
static const struct method desc_m[] = {{"setComputeFunction:", (IMP)desc_fn}, {"setMaxTotalThreadsPerThreadgroup:", (IMP)desc_most}, {"setThreadGroupSizeIsMultipleOfThreadExecutionWidth:", (IMP)desc_whole}, {0}};
struct cls Desc_ = {0, "MTLComputePipelineDescriptor", desc_m, desc_free, sizeof(struct desc)};

EXPORT void *_NSConcreteGlobalBlock[32];
static void buf_free(id o) { struct buf *b = (void *)o; if (b->unmap) b->unmap->invoke(b->unmap, b->p, b->n); else free(b->p); }
bool readable(const struct buf *b) {
    static int ends[2];
    if (!ends[0] && pipe(ends)) die("no pipe");
    char byte;
    return !b->unmap || (write(ends[1], b->p + b->n - 1, 1) == 1 && read(ends[0], &byte, 1) == 1);
}
static void *buf_contents(id s, SEL c) { (void)c; return ((struct buf *)s)->p; }
static NSUInteger buf_len(id s, SEL c) { (void)c; return ((struct buf *)s)->n; }
static const struct method buf_m[] = {{"contents", (IMP)buf_contents}, {"length", (IMP)buf_len}, {0}};
struct cls Buf_ = {0, "MTLBuffer", buf_m, buf_free, sizeof(struct buf)};

// FAKE_METAL_FAIL names a thing that this device refuses: "library", "pipeline", "buffer".
static bool fails(const char *what) { const char *x = getenv("FAKE_METAL_FAIL"); return x && !strcmp(x, what); }
static id dev_queue(id s, SEL c) { (void)c; return new_queue(s); }
static id dev_name(id s, SEL c) { (void)s, (void)c; return autorelease(new_str("Fake Metal on CPU")); }
static id dev_buf(id s, SEL c, NSUInteger n, NSUInteger o) {
    (void)s, (void)c, (void)o;
    if (!n) die("newBufferWithLength:0");
    if (n > (1ul << 36) || fails("buffer")) return 0;
    struct buf *b = (void *)make(&Buf_);
    b->n = n;
    if (posix_memalign((void **)&b->p, 256, n)) return 0;   // not rounded up: a sanitizer sees the first byte past the end
    memset(b->p, 0xff, n);
    return (id)b;
}
static id dev_buf_over(id s, SEL c, void *p, NSUInteger n, NSUInteger o, void *unmap) {
    (void)s, (void)c, (void)o;
    const NSUInteger page = (NSUInteger)getpagesize();
    if (!n || n % page || (uintptr_t)p % page) die("newBufferWithBytesNoCopy: not whole pages");
    struct block *b = unmap;
    if (b && (b->isa != _NSConcreteGlobalBlock || !(b->flags & 1 << 28))) die("newBufferWithBytesNoCopy: the deallocator is no global block");
    if (fails("mapping")) return 0;
    struct buf *over = (void *)make(&Buf_);
    over->n = n, over->p = p, over->unmap = b;
    return (id)over;
}
// Where build.sh put the kernels: beside this library, or where FAKE_METAL_DIR says.
static const char *folder(void) {
    static char dir[500];
    Dl_info here;
    if (getenv("FAKE_METAL_DIR")) snprintf(dir, sizeof dir, "%s", getenv("FAKE_METAL_DIR"));
    else if (dladdr((void *)folder, &here)) { snprintf(dir, sizeof dir, "%s", here.dli_fname); char *e = strrchr(dir, '/'); if (e) *e = 0; }
    return dir;
}
// Whether text is what the kernels were compiled from.
static bool is_source(const char *text) {
    char path[600];
    snprintf(path, sizeof path, "%s/unsloth.metal", folder());
    FILE *f = fopen(path, "r");
    if (!f) die("cannot read %s", path);
    size_t n = strlen(text);
    char *have = malloc(n + 2);
    bool same = fread(have, 1, n + 2, f) == n && !memcmp(have, text, n);
    free(have);
    fclose(f);
    return same;
}
static id dev_lib(id s, SEL c, id src, id o, id *err) {
    (void)s, (void)c;
    if (!o || ((struct opts *)o)->lang < (3ul << 16 | 1)) die("the kernels' bfloat needs language version 3.1");
    if (((struct opts *)o)->fast) die("fast math is on, and the kernels use infinities");
    if (fails("library")) { *err = new_err("program_source:1:1: error: made up by the fake"); return 0; }
    struct lib *l = (void *)make(&Lib_);
    const char *w = getenv("FAKE_METAL_WORKERS");
    msl_set_workers(w ? atoi(w) : (int)sysconf(_SC_NPROCESSORS_ONLN));
#ifdef STATIC_KERNELS   // linked in: mutants, and builds with a sanitizer
    (void)src, (void)is_source;
    extern const MslModule msl_module;
    l->mod = &msl_module;
#else
    if (!is_source(((struct str *)src)->s)) die("newLibraryWithSource: not the text that build.sh compiled");
    char so[600];
    snprintf(so, sizeof so, "%s/kernels.so", folder());
    void *d = dlopen(so, RTLD_NOW | RTLD_LOCAL);
    if (!d) die("dlopen %s: %s", so, dlerror());
    l->mod = dlsym(d, "msl_module");
#endif
    return (id)l;
}
static id dev_pso(id s, SEL c, id descriptor, NSUInteger options, id *reflection, id *err) {
    (void)s, (void)c, (void)options, (void)reflection;
    struct desc *d = (void *)descriptor;
    if (!d->fn) die("a pipeline without a function");
    if (fails("pipeline")) { *err = new_err("made up by the fake"); return 0; }
    struct pso *p = (void *)make(&Pso_);
    p->fn = keep(d->fn), p->most = d->most, p->whole = d->whole;
    return (id)p;
}
static bool dev_family(id s, SEL c, long f) { (void)s, (void)c; const char *x = getenv("FAKE_METAL_FAMILY"); return f <= (x ? atol(x) : 1009); }
static uint64_t dev_working_set(id s, SEL c) { (void)s, (void)c; const char *x = getenv("FAKE_METAL_BYTES"); return x ? strtoull(x, 0, 10) : 8ull << 30; }
static NSUInteger dev_max_buffer(id s, SEL c) { return dev_working_set(s, c) / 4 * 3; }
static const struct method dev_m[] = {{"supportsFamily:", (IMP)dev_family}, {"recommendedMaxWorkingSetSize", (IMP)dev_working_set}, {"maxBufferLength", (IMP)dev_max_buffer}, {"newCommandQueue", (IMP)dev_queue}, {"name", (IMP)dev_name}, {"newBufferWithLength:options:", (IMP)dev_buf}, {"newLibraryWithSource:options:error:", (IMP)dev_lib}, {"newBufferWithBytesNoCopy:length:options:deallocator:", (IMP)dev_buf_over}, {"newComputePipelineStateWithDescriptor:options:reflection:error:", (IMP)dev_pso}, {0}};
static struct cls Device_ = {0, "MTLDevice", dev_m, 0, sizeof(struct obj)};
EXPORT id MTLCreateSystemDefaultDevice(void) { return getenv("FAKE_METAL_NO_DEVICE") ? 0 : make(&Device_); }
EXPORT id MTLCopyAllDevices(void) {
    struct arr *a = (void *)make(&NSArray_);
    if (!getenv("FAKE_METAL_NO_DEVICE")) a->v[a->n++] = make(&Device_);
    return (id)a;
}
// classes are objects too: their isa is a metaclass with the class methods
