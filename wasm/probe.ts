/**
 * Whether this engine runs relaxed_madd as one fused instruction. The result differs in the last bit and the best GEMM
 * kernel differs by a quarter, so the engine is asked and not its name; no environment variable changes numerics. And which
 * of two register tiles is the faster one.
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

/** Milliseconds each kernel runs before it is timed, so that the engine has optimised it, and how often it is timed. */
const WARM_UP = 4, HEATS = 7;
/** Tiles of a heat: a fifth of a millisecond or less. */
const TILES = 200;

/** What `leanIsFaster` has found in this process: an engine reserves gigabytes of addresses for each shared memory. */
let found: boolean | null = null;

/** Whether the panels of four rows are the faster ones for this engine on this processor; a result is the same with both. */
export function leanIsFaster(module: WebAssembly.Module): boolean {
  return found ??= raced(module);
}

function raced(module: WebAssembly.Module): boolean {
  const memory = new WebAssembly.Memory({ initial: 4, maximum: 65536, shared: true });
  const { race, panelRows } = new WebAssembly.Instance(module, { env: { memory } }).exports;
  const run = race as (lean: number, tiles: number) => void, rows = panelRows as (lean: number) => number;
  const time = (lean: number): number => {
    const start = performance.now();
    run(lean, TILES);
    return (performance.now() - start) / rows(lean);
  };
  const best = [0, 1].map((lean) => {
    for (const end = performance.now() + WARM_UP; performance.now() < end;) time(lean);
    return time(lean);
  });
  for (let heat = 0; heat < HEATS; heat++) for (const lean of [0, 1]) best[lean] = Math.min(best[lean], time(lean));
  return best[1] < best[0];
}
