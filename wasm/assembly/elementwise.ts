// Operations element by element, bound by memory: unit u is CHUNK elements. Each reads and writes every element once.
import { bytesOf, decode } from "./decode";
import { float, int, ptr, words } from "./job";

/** Elements of one unit; a multiple of every block. ../ops_elementwise.ts has the same number. */
const CHUNK: i32 = 16384;

/** out = a + b. Arguments: out, a, b, n. */
export function add(u: i32, _: usize): void {
  const at = words(u * CHUNK), n = min(CHUNK, int(3) - u * CHUNK);
  let o = ptr(0) + at, a = ptr(1) + at, b = ptr(2) + at;
  let i = 0;
  for (; i + 4 <= n; i += 4, o += 16, a += 16, b += 16) v128.store(o, f32x4.add(v128.load(a), v128.load(b)));
  for (; i < n; i++, o += 4, a += 4, b += 4) store<f32>(o, load<f32>(a) + load<f32>(b));
}

/** out = a / b. Arguments: out, a, b, n. */
export function divide(u: i32, _: usize): void {
  const at = words(u * CHUNK), n = min(CHUNK, int(3) - u * CHUNK);
  let o = ptr(0) + at, a = ptr(1) + at, b = ptr(2) + at;
  let i = 0;
  for (; i + 4 <= n; i += 4, o += 16, a += 16, b += 16) v128.store(o, f32x4.div(v128.load(a), v128.load(b)));
  for (; i < n; i++, o += 4, a += 4, b += 4) store<f32>(o, load<f32>(a) / load<f32>(b));
}

/** out = factor · x. Arguments: out, x, n; factor. */
export function scale(u: i32, _: usize): void {
  const at = words(u * CHUNK), n = min(CHUNK, int(2) - u * CHUNK);
  scaleRow(ptr(0) + at, ptr(1) + at, n, float(0));
}

/** out = factor · x over n elements. */
export function scaleRow(out: usize, x: usize, n: i32, factor: f32): void {
  const f = f32x4.splat(factor);
  let i = 0;
  for (; i + 4 <= n; i += 4, out += 16, x += 16) v128.store(out, f32x4.mul(v128.load(x), f));
  for (; i < n; i++, out += 4, x += 4) store<f32>(out, load<f32>(x) * factor);
}

/** Elements of 1, 2 or 4 bytes = value. Arguments: out, n, bytes an element, the value's bits. */
export function fill(u: i32, _: usize): void {
  const size = int(2), bits = int(3), n = min(CHUNK, int(1) - u * CHUNK);
  let o = ptr(0) + <usize>(u * CHUNK) * size;
  if (size === 1) memory.fill(o, <u8>bits, n);
  else if (size === 2) { for (let i = 0; i < n; i++, o += 2) store<u16>(o, <u16>bits); }
  else {
    const v = i32x4.splat(bits);
    let i = 0;
    for (; i + 4 <= n; i += 4, o += 16) v128.store(o, v);
    for (; i < n; i++, o += 4) store<i32>(o, bits);
  }
}

/** Bytes as they are. Arguments: out, x, bytes; a unit is 4 · CHUNK bytes. */
export function copyBytes(u: i32, _: usize): void {
  const at = <usize>u * (CHUNK * 4);
  memory.copy(ptr(0) + at, ptr(1) + at, min<usize>(CHUNK * 4, ptr(2) - at));
}

/** Any float or block type to f32, bf16 or f16. Arguments: out, out's type, x, x's type, n, bytes of CHUNK elements of x. */
export function convert(u: i32, scratch: usize): void {
  const to = int(1), n = min(CHUNK, int(4) - u * CHUNK);
  const x = ptr(2) + <usize>u * int(5);
  if (to === 0) return decode(int(3), x, ptr(0) + words(u * CHUNK), n);
  let o = ptr(0) + (<usize>(u * CHUNK) << 1);
  for (let i = 0; i < n; i += 1024) {
    const part = min(1024, n - i);
    decode(int(3), x + bytesOf(int(3), i), scratch, part); // 1024 is a multiple of every block
    for (let j = 0; j < part; j++, o += 2) {
      const bits = load<u32>(scratch + words(j));
      store<u16>(o, to === 1 ? toBf16(bits) : toHalf(bits));
    }
  }
}

/** i32 to f32. Arguments: out, x, n. */
export function fromInts(u: i32, _: usize): void {
  const at = words(u * CHUNK), n = min(CHUNK, int(2) - u * CHUNK);
  for (let i = 0; i < n; i++) store<f32>(ptr(0) + at + words(i), <f32>load<i32>(ptr(1) + at + words(i)));
}

/** f32 bits to bf16 bits, to nearest even; NaN stays NaN. */
// @ts-ignore: decorator
@inline
function toBf16(u: u32): u16 {
  if ((u & 0x7fffffff) > 0x7f800000) return <u16>((u >> 16) | 64);
  return <u16>((u + 0x7fff + ((u >> 16) & 1)) >> 16);
}

/** f32 bits to binary16 bits, to nearest even. */
function toHalf(u: u32): u16 {
  const sign = (u >> 16) & 0x8000, a = u & 0x7fffffff;
  if (a > 0x7f800000) return <u16>(sign | 0x7e00);
  if (a >= 0x477ff000) return <u16>(sign | 0x7c00); // 65520 and more
  if (a < 0x38800000) {
    // below 2^-14: adding ½ puts the unit of 2^-24 at the end of the mantissa and rounds there
    const shifted = reinterpret<u32>(reinterpret<f32>(a) + <f32>0.5);
    return <u16>(sign | (shifted - 0x3f000000));
  }
  const odd = (a >> 13) & 1;
  return <u16>(sign | ((a - 0x38000000 + 0xfff + odd) >> 13));
}
