/**
 * Weights rounded as fp8_128: e4m3 with one scale (amax / 448) for 128 x 128 elements, DeepSeek-V3 report, section 3.3; e4m3fn
 * of the OCP 8-bit floating point specification. All arithmetic is in f32, so that the same bits come out as on a device.
 * @module
 */

/** Rows and columns that share a scale. */
export const TILE = 128;

const LARGEST = 448, SMALLEST_NORMAL = 2 ** -6;

/** Whether a matrix can be held in tiles. */
export function tiles(shape: readonly number[]): boolean {
  return shape.length === 2 && shape[0] % TILE === 0 && shape[1] % TILE === 0;
}

const float = new Float32Array(1), bits = new Uint32Array(float.buffer);

/** The e4m3 number nearest to `y`, ties to even, saturated at 448. */
function nearest(y: number): number {
  const a = Math.abs(y);
  if (a < SMALLEST_NORMAL) {
    const n = a * 512, low = Math.floor(n), rest = n - low; // subnormals are multiples of 2^-9
    const up = rest > 0.5 || (rest === 0.5 && low % 2 === 1) ? low + 1 : low;
    return Math.sign(y) * up / 512;
  }
  float[0] = a; // 3 of f32's 23 mantissa bits stay
  bits[0] = (bits[0] + 0x7ffff + ((bits[0] >>> 20) & 1)) & 0xfff00000;
  return Math.sign(y) * Math.min(float[0], LARGEST);
}

/**
 * Rounds whole tiles in place: each element becomes scale · e4m3(x · (448 / amax)).
 * @param x [rows, columns], both multiples of 128
 */
export function roundTiles(x: Float32Array, rows: number, columns: number): void {
  for (let r0 = 0; r0 < rows; r0 += TILE) {
    for (let c0 = 0; c0 < columns; c0 += TILE) roundTile(x, r0 * columns + c0, columns);
  }
}

function roundTile(x: Float32Array, at: number, stride: number): void {
  let amax = 0;
  for (let r = 0; r < TILE; r++) {
    for (let i = at + r * stride, end = i + TILE; i < end; i++) amax = Math.max(amax, Math.abs(x[i]));
  }
  if (amax === 0) return;
  const by = Math.fround(LARGEST / amax), scale = Math.fround(amax / LARGEST);
  for (let r = 0; r < TILE; r++) {
    for (let i = at + r * stride, end = i + TILE; i < end; i++) x[i] = nearest(Math.fround(x[i] * by)) * scale;
  }
}
