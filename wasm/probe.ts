/**
 * Whether this engine runs relaxed_madd as one fused instruction. The result differs in the last bit and the best GEMM
 * kernel differs by a quarter, so the engine is asked and not its name; no environment variable changes numerics.
 * @module
 */

/** (x, y, z) => lane 0 of relaxed_madd(splat x, splat y, splat z), written by hand from the binary format. */
// deno-fmt-ignore
const PROBE: readonly number[] = [
  0, 0x61, 0x73, 0x6d, 1, 0, 0, 0,
  1, 8, 1, 0x60, 3, 0x7d, 0x7d, 0x7d, 1, 0x7d, // type: (f32, f32, f32) -> f32
  3, 2, 1, 0, // one function of it
  7, 5, 1, 1, 0x70, 0, 0, // exported as "p"
  10, 22, 1, 20, 0, // code
  0x20, 0, 0xfd, 19, 0x20, 1, 0xfd, 19, 0x20, 2, 0xfd, 19, // local.get i, f32x4.splat
  0xfd, 0x85, 0x02, // f32x4.relaxed_madd
  0xfd, 31, 0, // f32x4.extract_lane 0
  0x0b,
];

/** True when relaxed_madd rounds once: (1 + 2^-12)² - (1 + 2^-11) is 2^-24 then, and 0 when the square is rounded first. */
export function fusesMultiplyAdd(): boolean {
  const bytes = new Uint8Array(PROBE);
  if (!WebAssembly.validate(bytes)) return false;
  const { p } = new WebAssembly.Instance(new WebAssembly.Module(bytes)).exports;
  const x = 1 + 2 ** -12;
  return (p as (x: number, y: number, z: number) => number)(x, x, -(1 + 2 ** -11)) !== 0;
}
