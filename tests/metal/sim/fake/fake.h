// What the fake's files share: objects as Objective-C has them (a class first, a count of references), and the classes'
// methods as tables. A wrong call stops the process with a message.
#pragma once
#define _GNU_SOURCE
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../runtime/runtime.h"
#define EXPORT __attribute__((visibility("default")))

typedef struct obj* id;
typedef const char* SEL;  // an interned string
typedef unsigned long NSUInteger;
typedef struct { NSUInteger width, height, depth; } MTLSize;
typedef void (*IMP)(void);
struct method { const char* sel; IMP imp; };
struct cls { struct cls* isa; const char* name; const struct method* methods; void (*dealloc)(id); size_t size; };
struct obj { struct cls* isa; int rc; };

_Noreturn void die(const char* fmt, ...);
id make(struct cls* c);   // +1
id keep(id o);
void drop(id o);
id autorelease(id o);
struct str { struct obj o; char* s; };
id new_str(const char* s);  // +1
id new_err(const char* s);  // autoreleased
struct arr { struct obj o; id v[4]; NSUInteger n; };
extern struct cls NSArray_;

struct fcv { struct obj o; struct { bool set; unsigned size; unsigned char v[16]; } c[64]; };
struct opts { struct obj o; NSUInteger lang; bool fast; };
extern struct cls Opts_, Fcv_, Desc_;
struct lib { struct obj o; const MslModule* mod; };
struct fn { struct obj o; id lib; const MslKernel* k; struct fcv consts; };
struct desc { struct obj o; id fn; NSUInteger most; bool whole; };
struct pso { struct obj o; id fn; NSUInteger most; bool whole; };
// unmap: the block that Metal calls when nothing uses a buffer over the caller's memory any longer.
struct block { void* isa; int flags, reserved; void (*invoke)(struct block*, void*, NSUInteger); void* descriptor; };
struct buf { struct obj o; char* p; NSUInteger n; struct block* unmap; };
extern struct cls Buf_;
// Whether the last page of a file's memory can be read: it cannot once the file is shorter.
bool readable(const struct buf* b);
NSUInteger pso_max(id s, SEL c);
id new_queue(id device);  // +1
