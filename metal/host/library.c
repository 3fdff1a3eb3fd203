// The ABI's functions that are not operations: versions, devices, opening and closing, memory, and the graphs that Metal
// does not have.
#include "library.h"

static uint32_t opens;

int32_t us_lacks(const char* symbol) {
  return fail(US_UNSUPPORTED, "Cannot call %s: the Metal library does not have it", symbol);
}

int32_t enter(const struct operand* list, uint32_t count, struct ten* out) {
  lock();
  if (!opens) return fail(US_DEVICE, "Cannot call the Metal library: us_open has not been called");
  for (uint32_t i = 0; i < count; i++) {
    const int32_t status = resolve(list[i].t, list[i].optional, &out[i]);
    if (status != US_OK) return status;
    if (list[i].written && out[i].slot && out[i].slot->read_only) {
      return fail(US_INVALID, "Cannot write to handle %u: it is a file's memory, which is read only", (uint64_t)list[i].t->handle);
    }
  }
  return US_OK;
}
void leave(void) { unlock(); }

int32_t one_type(const char* op, const struct ten* const* list, uint32_t count) {
  if (!is_float(list[0]->dtype)) {
    return fail(US_UNSUPPORTED, "Cannot run %s on Metal: no kernel for element type %u", op, (uint64_t)list[0]->dtype);
  }
  for (uint32_t i = 1; i < count; i++) {
    if (list[i]->slot && list[i]->dtype != list[0]->dtype) {
      return fail(US_UNSUPPORTED, "Cannot run %s on Metal: its activations are of different types", op);
    }
  }
  return US_OK;
}

US_API uint32_t us_abi_version(void) { return US_ABI_VERSION; }
US_API uint32_t us_ops(char* out, uint32_t cap) { return put_text(US_OP_LIST US_HAS_MAP US_HAS_CACHE US_HAS_PEAK_RESET, out, cap); }
US_API uint32_t us_last_error(char* out, uint32_t cap) { return last_error(out, cap); }

US_API int32_t us_device_probe(void) {
  lock();
  void* pool = objc_autoreleasePoolPush();
  id d = find_device();
  const int32_t status = d ? US_OK : fail(US_NO_DEVICE, "Cannot use Metal: this machine has no Metal device");
  release(d);
  objc_autoreleasePoolPop(pool);
  unlock();
  return status;
}
US_API uint32_t us_device_count(void) { return us_device_probe() == US_OK ? 1 : 0; }

// "Apple M3 Max, 36 GiB": the memory is what the system lets the GPU use.
US_API uint32_t us_device_name(uint32_t index, char* out, uint32_t cap) {
  char text[160] = "";
  lock();
  void* pool = objc_autoreleasePoolPush();
  id d = index == 0 ? find_device() : 0;
  if (d) {
    char own[120];
    device_name(d, own, sizeof own);
    print(text, sizeof text, "%s, %u GiB", own, (SEND(uint64_t, d, S(workingSet)) END + (1ull << 29)) >> 30);
  }
  release(d);
  objc_autoreleasePoolPop(pool);
  unlock();
  return put_text(text, out, cap);
}

US_API int32_t us_open(uint32_t index) {
  lock();
  int32_t status = US_OK;
  if (index != 0) status = fail(US_NO_DEVICE, "Cannot open Metal device %u: there is device 0 only", (uint64_t)index);
  else if (!opens) {
    void* pool = objc_autoreleasePoolPush();
    status = open_device();
    objc_autoreleasePoolPop(pool);
  }
  if (status == US_OK) opens++;
  unlock();
  return status;
}

US_API int32_t us_close(void) {
  lock();
  int32_t status = US_OK;
  if (!opens) status = fail(US_INVALID, "Cannot close the Metal library: it is not open");
  else if (--opens == 0) {
    status = wait_all();
    close_encoder();
    give_back_all();
    drop_pipelines();
    close_device();
  }
  unlock();
  return status;
}

// f16 where bf16 arithmetic is emulated: on M1 and M2.
US_API uint32_t us_act_dtype(void) {
  lock();
  const uint32_t dtype = device.bf16 ? US_BF16 : US_F16;
  unlock();
  return dtype;
}
US_API uint32_t us_supports(uint32_t dtype, uint32_t as) {
  return is_float(dtype) || (as == US_AS_WEIGHT && (is_quant(dtype) || dtype == US_FP8_E4M3));
}

US_API int32_t us_alloc(us_alloc_args* a) {
  int32_t status = enter(0, 0, 0);
  a->handle = 0;
  if (status == US_OK) status = allocate((uint64_t)a->bytes_hi << 32 | a->bytes_lo, &a->handle);
  leave();
  return status;
}
US_API int32_t us_free(uint32_t handle) {
  int32_t status = enter(0, 0, 0);
  if (status == US_OK) status = give_back(handle);
  leave();
  return status;
}
US_API int32_t us_memory(us_memory_args* a) {
  const int32_t status = enter(0, 0, 0);
  if (status == US_OK) {
    a->active_lo = (uint32_t)active_bytes, a->active_hi = (uint32_t)(active_bytes >> 32);
    a->peak_lo = (uint32_t)peak_bytes, a->peak_hi = (uint32_t)(peak_bytes >> 32);
    a->limit_lo = (uint32_t)device.limit, a->limit_hi = (uint32_t)(device.limit >> 32);
  }
  leave();
  return status;
}

US_API int32_t us_peak_reset(void) {
  const int32_t status = enter(0, 0, 0);
  if (status == US_OK) peak_bytes = active_bytes;
  leave();
  return status;
}
US_API int32_t us_cache(us_cache_args* a) {
  const int32_t status = enter(0, 0, 0);
  if (status == US_OK) {
    trim_cache((uint64_t)a->keep_hi << 32 | a->keep_lo);
    a->cached_lo = (uint32_t)cached_bytes, a->cached_hi = (uint32_t)(cached_bytes >> 32);
  }
  leave();
  return status;
}

static int32_t no_graphs(void) { return fail(US_UNSUPPORTED, "Cannot record a graph: Metal has none; run the step again"); }
US_API int32_t us_graph_begin(void) { return no_graphs(); }
US_API int32_t us_graph_end(us_graph_end_args* a) {
  a->graph = 0;
  return no_graphs();
}
US_API int32_t us_graph_launch(uint32_t graph) {
  (void)graph;
  return no_graphs();
}
US_API int32_t us_graph_free(uint32_t graph) {
  (void)graph;
  return no_graphs();
}
