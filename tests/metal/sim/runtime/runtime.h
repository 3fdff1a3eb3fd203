// CPU runtime under the MSL headers: runs one threadgroup at a time a worker thread, one fiber a GPU thread, so that
// barriers and simdgroup operations rendezvous as they do on the GPU.
#ifndef MSL_RUNTIME_H
#define MSL_RUNTIME_H
#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)
enum { MSL_SIMD = 32, MSL_MAX_BUFS = 31, MSL_SLOT = 64 };
typedef struct { unsigned x, y, z; } MslU3;
// What [[attributes]] of a kernel's parameters can ask for.
typedef struct {
  MslU3 tpig, tpitg, tgpig, tptg, tgpg, tpg, dtptg;
  unsigned titg, lane, sg, nsg, tpsg;
} MslIds;
typedef struct { void* buf[MSL_MAX_BUFS]; unsigned long buflen[MSL_MAX_BUFS]; } MslLaunch;
// kind 'b': a pointer, 'c': a reference, of which the shader reads `size` bytes. align is that of what it points at.
typedef struct { char kind; unsigned char index; const char* name; unsigned size, align; } MslArg;
typedef struct {
  const char* name;
  void (*entry)(const MslLaunch*, const MslIds*);
  unsigned nargs;
  const MslArg* args;
  unsigned max_threads;
} MslKernel;
typedef struct { unsigned index; const char* name; void* value; unsigned char* defined; unsigned size; } MslFConst;
typedef struct { unsigned nkernels; const MslKernel* kernels; unsigned nfconsts; const MslFConst* fconsts; } MslModule;

// Runs a launch; grid in threadgroups, or in threads when exact (dispatchThreads:). 0, or -1 with a message.
int msl_dispatch(const MslKernel* k, const MslLaunch* l, MslU3 grid, MslU3 tg, int exact, char* err, unsigned errcap);
void msl_set_schedule(int order, unsigned seed);  // 0 lanes ascending, 1 descending, 2 random at each wake-up
void msl_set_workers(int n);
void msl_set_poison(int on);  // fill threadgroup memory with NaN at the start of each threadgroup
unsigned long msl_switches(void);

// Called by the MSL headers.
void msl_barrier(void);
extern int msl_removed;  // MSL_REMOVED in the environment: the barrier that is passed over (MSL_UNLESS)
// A simdgroup operation: every live lane writes its value into its own slot (MSL_SLOT bytes) between begin and end; the
// last lane to come runs combine(slots, mask). end returns all the slots, which stay valid until the calling lane's next
// operation. op names the call for the report when the simdgroup diverges.
void* msl_simd_begin(void);
void* msl_simd_end(const char* op, void (*combine)(void* slots, unsigned mask), unsigned* mask);
unsigned msl_lane(void) __attribute__((const));  // constant within a fiber
void* msl_tg_slot(unsigned id, unsigned size);
#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
#endif
