// The Metal device: finding it, its queue, and the kernels, compiled from the embedded source when it is opened.
#include "library.h"

// kernels/*.metal in one text (metal/build.sh)
static const char source[] = {
#embed "unsloth.metal"
    , 0};

SEL selectors[SELECTOR_COUNT];
struct device device;

void release(id object) {
  if (object) SEND(void, object, S(release)) END;
}
id string(const char* text) {
  return SEND(id, objc_getClass("NSString"), S(stringWithUTF8String), const char*), text END;
}

id find_device(void) {
#define X(n, s) selectors[S_##n] = sel_registerName(s);
  if (!selectors[0]) { SELECTORS(X) }
#undef X
  id d = MTLCreateSystemDefaultDevice();
  if (d) return d;
  id all = MTLCopyAllDevices();
  if (all && SEND(NSUInteger, all, S(count)) END > 0) {
    d = SEND(id, all, S(objectAtIndex), NSUInteger), 0UL END;
    SEND(id, d, S(retain)) END;
  }
  release(all);
  return d;
}

void device_name(id d, char* out, uint32_t cap) {
  id text = SEND(id, d, S(name)) END;
  put_text(text ? SEND(const char*, text, S(UTF8String)) END : "a device without a name", out, cap);
}

static id compile(id d) {
  id options = SEND(id, objc_getClass("MTLCompileOptions"), S(make)) END, error = 0;
  SEND(void, options, S(setLanguageVersion), NSUInteger), 3UL << 16 | 1UL END;  // MTLLanguageVersion3_1, macOS 14
  // The kernels use infinities, and losses are compared with the CPU's.
  SEND(void, options, S(setFastMathEnabled), bool), false END;
  id library = SEND(id, d, S(newLibrary), id, id, id*), string(source), options, &error END;
  release(options);
  if (!library) fail_with(US_DEVICE, "Cannot compile the Metal kernels", error);
  return library;
}

int32_t open_device(void) {
  enum { APPLE7 = 1007, APPLE9 = 1009 };  // MTLGPUFamily: M1, M3
  id d = find_device();
  if (!d) return fail(US_NO_DEVICE, "Cannot use Metal: this machine has no Metal device");
  if (!SEND(bool, d, S(supportsFamily), long), (long)APPLE7 END) {
    release(d);
    return fail(US_NO_DEVICE, "Cannot use Metal: the GPU is older than Apple's M1, which the kernels need");
  }
  id library = compile(d);
  if (!library) {
    release(d);
    return US_DEVICE;
  }
  device.device = d, device.library = library;
  device.queue = SEND(id, d, S(newCommandQueue)) END;
  device.bf16 = SEND(bool, d, S(supportsFamily), long), (long)APPLE9 END;
  // The rest is for the system and for the other half of this process.
  device.limit = SEND(uint64_t, d, S(workingSet)) END / 10 * 9;
  device.largest = SEND(NSUInteger, d, S(maxBuffer)) END;
  if (device.queue) return US_OK;
  close_device();
  return fail(US_DEVICE, "Cannot use Metal: the device gives no command queue");
}

void close_device(void) {
  release(device.queue);
  release(device.library);
  release(device.device);
  device = (struct device){0};
}
