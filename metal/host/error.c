// The sentence of each thread's last failed call, and the library's lock.
#include "library.h"

enum { ROOM = 1024 };
static uint32_t the_lock;
static unsigned long key;
static bool has_key;

void lock(void) { os_unfair_lock_lock(&the_lock); }
void unlock(void) { os_unfair_lock_unlock(&the_lock); }

// This thread's room, made at its first error and freed when it ends; null when there is no memory even for that.
static char* room(bool make) {
  if (!has_key) {
    if (!make || pthread_key_create(&key, free) != 0) return 0;
    has_key = true;
  }
  char* p = pthread_getspecific(key);
  if (!p && make && (p = calloc(1, ROOM))) pthread_setspecific(key, p);
  return p;
}

static uint32_t put(char* to, uint32_t cap, uint32_t n, const char* text) {
  while (*text && n < cap - 1) to[n++] = *text++;
  to[n] = 0;
  return n;
}

static uint32_t put_number(char* to, uint32_t cap, uint32_t n, uint64_t value) {
  char digits[21];
  uint32_t i = sizeof digits - 1;
  digits[i] = 0;
  do digits[--i] = (char)('0' + value % 10), value /= 10;
  while (value);
  return put(to, cap, n, digits + i);
}

static void print_list(char* to, uint32_t cap, const char* format, __builtin_va_list args) {
  uint32_t n = 0;
  for (const char* p = format; *p && n < cap - 1; p++) {
    if (p[0] == '%' && p[1] == 's') n = put(to, cap, n, __builtin_va_arg(args, const char*)), p++;
    else if (p[0] == '%' && p[1] == 'u') n = put_number(to, cap, n, __builtin_va_arg(args, uint64_t)), p++;
    else to[n++] = *p;
  }
  to[n] = 0;
}

void print(char* to, uint32_t cap, const char* format, ...) {
  __builtin_va_list args;
  __builtin_va_start(args, format);
  print_list(to, cap, format, args);
  __builtin_va_end(args);
}

int32_t fail(int32_t status, const char* format, ...) {
  char* to = room(true);
  if (!to) return status;
  __builtin_va_list args;
  __builtin_va_start(args, format);
  print_list(to, ROOM, format, args);
  __builtin_va_end(args);
  return status;
}

int32_t fail_with(int32_t status, const char* what, id error) {
  const char* why = "Metal gives no reason";
  if (error) {
    id text = SEND(id, error, S(localizedDescription)) END;
    if (text) why = SEND(const char*, text, S(UTF8String)) END;
  }
  return fail(status, "%s: %s", what, why);
}

uint32_t put_text(const char* text, char* out, uint32_t cap) {
  const size_t whole = strlen(text);
  if (cap) {
    const size_t n = whole < cap - 1 ? whole : cap - 1;
    memcpy(out, text, n);
    out[n] = 0;
  }
  return (uint32_t)whole;
}

uint32_t last_error(char* out, uint32_t cap) {
  const char* text = room(false);
  return put_text(text ? text : "", out, cap);
}
