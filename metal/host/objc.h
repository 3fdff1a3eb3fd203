// The few declarations we need from Apple's libobjc, libSystem, Metal and CoreGraphics, written by hand from the documented
// ABI: no SDK header is used. objc_msgSend has no prototype and is always cast to the exact type of the method: on arm64 a
// variadic call would pass its arguments on the stack and break.
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct objc_object* id;
typedef struct objc_class* Class;
typedef const struct objc_selector* SEL;
typedef unsigned long NSUInteger;
// Three words by value: by hidden reference on arm64, on the stack on x86-64. The compiler does both ends.
typedef struct { NSUInteger width, height, depth; } MTLSize;

extern Class objc_getClass(const char* name);
extern SEL sel_registerName(const char* name);
extern void objc_msgSend(void);
extern void* objc_autoreleasePoolPush(void);
extern void objc_autoreleasePoolPop(void* pool);
extern id MTLCreateSystemDefaultDevice(void);  // +1
extern id MTLCopyAllDevices(void);             // +1, NSArray; works where the default device would need CoreGraphics

// libSystem
extern void *malloc(size_t), *calloc(size_t, size_t), *realloc(void*, size_t);
extern void free(void*);
extern void *memcpy(void*, const void*, size_t), *memset(void*, int, size_t);
extern int memcmp(const void*, const void*, size_t);
extern size_t strlen(const char*);
extern int strcmp(const char*, const char*);
extern void os_unfair_lock_lock(uint32_t*), os_unfair_lock_unlock(uint32_t*);
// The key is an unsigned long on macOS and an unsigned int on Linux: 0 in the upper half serves both.
extern int pthread_key_create(unsigned long* key, void (*destroy)(void*));
extern void* pthread_getspecific(unsigned long key);
extern int pthread_setspecific(unsigned long key, const void* value);

// SEND(result type, object, selector, argument types), arguments END
#define SEND(R, o, s, ...) (((R(*)(id, SEL __VA_OPT__(, ) __VA_ARGS__))objc_msgSend)((id)(o), (s)
#define END ))

#define SELECTORS(X)                                                                                                  \
  X(release, "release") X(retain, "retain") X(UTF8String, "UTF8String") X(name, "name") X(count, "count")             \
  X(objectAtIndex, "objectAtIndex:") X(stringWithUTF8String, "stringWithUTF8String:")                                 \
  X(localizedDescription, "localizedDescription") X(newCommandQueue, "newCommandQueue") X(make, "new")                \
  X(newLibrary, "newLibraryWithSource:options:error:") X(setLanguageVersion, "setLanguageVersion:")                   \
  X(setFastMathEnabled, "setFastMathEnabled:") X(newFunction, "newFunctionWithName:constantValues:error:")            \
  X(setConstant, "setConstantValue:type:atIndex:") X(setFunction, "setComputeFunction:")                              \
  X(setMost, "setMaxTotalThreadsPerThreadgroup:") X(setWhole, "setThreadGroupSizeIsMultipleOfThreadExecutionWidth:")  \
  X(newPipeline, "newComputePipelineStateWithDescriptor:options:reflection:error:")                                   \
  X(maxThreads, "maxTotalThreadsPerThreadgroup") X(simdWidth, "threadExecutionWidth")                                 \
  X(newBuffer, "newBufferWithLength:options:")                                                                        \
  X(newBufferOver, "newBufferWithBytesNoCopy:length:options:deallocator:") X(contents, "contents") X(supportsFamily, "supportsFamily:")           \
  X(workingSet, "recommendedMaxWorkingSetSize") X(maxBuffer, "maxBufferLength") X(commandBuffer, "commandBuffer")     \
  X(computeEncoder, "computeCommandEncoder") X(setPipeline, "setComputePipelineState:")                               \
  X(setBuffer, "setBuffer:offset:atIndex:") X(setBytes, "setBytes:length:atIndex:")                                   \
  X(dispatch, "dispatchThreadgroups:threadsPerThreadgroup:") X(endEncoding, "endEncoding") X(commit, "commit")        \
  X(wait, "waitUntilCompleted") X(status, "status") X(error, "error")
#define X(n, s) S_##n,
enum { SELECTORS(X) SELECTOR_COUNT };
#undef X
extern SEL selectors[SELECTOR_COUNT];
#define S(n) selectors[S_##n]
