// The optimisers beside AdamW: SGD, Lion, AdamW with moments of 8 bits, Adafactor. Sums over many elements are taken in
// f64 and in a fixed order, so that they do not depend on the number of threads.
import { float, int, ptr, words } from "./job";

const CHUNK: i32 = 16384;
/** Elements of a block of 8-bit moments. */
const BLOCK: i32 = 256;
const ROWS: i32 = 8;
const COLS: i32 = 64;

/** p, m in place. Arguments: p, g, m or 0, hyper, n. */
export function sgd(u: i32, _: usize): void {
  const hyper = ptr(3), n = min(CHUNK, int(4) - u * CHUNK), at = words(u * CHUNK), hasM = ptr(2) !== 0;
  const lr = load<f32>(hyper), momentum = load<f32>(hyper, 4), wd = load<f32>(hyper, 16), clip = load<f32>(hyper, 28);
  const p = ptr(0) + at, g = ptr(1) + at, m = ptr(2) + at;
  for (let i: usize = 0; i < words(n); i += 4) {
    let d = clip * load<f32>(g + i) + wd * load<f32>(p + i);
    if (hasM) {
      d += momentum * load<f32>(m + i);
      store<f32>(m + i, d);
    }
    store<f32>(p + i, load<f32>(p + i) - lr * d);
  }
}

/** p, m in place. Arguments: p, g, m, hyper, n. */
export function lion(u: i32, _: usize): void {
  const hyper = ptr(3), n = min(CHUNK, int(4) - u * CHUNK), at = words(u * CHUNK);
  const lr = load<f32>(hyper), b1 = load<f32>(hyper, 4), b2 = load<f32>(hyper, 8), clip = load<f32>(hyper, 28);
  const keep: f32 = 1 - lr * load<f32>(hyper, 16), p = ptr(0) + at, g = ptr(1) + at, m = ptr(2) + at;
  for (let i: usize = 0; i < words(n); i += 4) {
    const d = clip * load<f32>(g + i), old = load<f32>(m + i), c = b1 * old + (1 - b1) * d;
    const step: f32 = c > 0 ? lr : c < 0 ? -lr : 0;
    store<f32>(p + i, load<f32>(p + i) * keep - step);
    store<f32>(m + i, b2 * old + (1 - b2) * d);
  }
}

/** The nearest of 256 ascending codes, the lower of two equally near. */
function nearest(codes: usize, x: f32): i32 {
  let low = 0, high = 255; // codes[low] <= x, unless x lies below all
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (load<f32>(codes + words(middle)) <= x) low = middle;
    else high = middle;
  }
  return load<f32>(codes + words(high)) - x < x - load<f32>(codes + words(low)) ? high : low;
}

/** Encodes BLOCK values against their absmax. */
function encode(x: usize, bytes: usize, absmax: usize, codes: usize): void {
  let most: f32 = 0;
  for (let i = 0; i < BLOCK; i++) most = max(most, abs(load<f32>(x + words(i))));
  store<f32>(absmax, most);
  const zero = nearest(codes, 0);
  for (let i = 0; i < BLOCK; i++) {
    store<u8>(bytes + <usize> i, <u8> (most === 0 ? zero : nearest(codes, load<f32>(x + words(i)) / most)));
  }
}

/** p, m, v, absmax in place. Arguments: p, g, m, v, absmax, codes, hyper, blocks. Unit u is one block. */
export function adamw8(u: i32, scratch: usize): void {
  const hyper = ptr(6), at = words(u * BLOCK), byte = <usize> (u * BLOCK), codesM = ptr(5), codesV = codesM + 1024;
  const lr = load<f32>(hyper), b1 = load<f32>(hyper, 4), b2 = load<f32>(hyper, 8), eps = load<f32>(hyper, 12);
  const keep: f32 = 1 - lr * load<f32>(hyper, 16), clip = load<f32>(hyper, 28);
  const step = lr / load<f32>(hyper, 20), root = Mathf.sqrt(load<f32>(hyper, 24));
  const mostM = ptr(4) + words(u), mostV = ptr(4) + words(int(7) + u), ms = scratch, vs = scratch + words(BLOCK);
  const scaleM = load<f32>(mostM), scaleV = load<f32>(mostV), p = ptr(0) + at, g = ptr(1) + at;
  for (let i = 0; i < BLOCK; i++) {
    const w = words(i), d = clip * load<f32>(g + w);
    const mm = b1 * (load<f32>(codesM + words(load<u8>(ptr(2) + byte + <usize> i))) * scaleM) + (1 - b1) * d;
    const vv = b2 * (load<f32>(codesV + words(load<u8>(ptr(3) + byte + <usize> i))) * scaleV) + (1 - b2) * (d * d);
    store<f32>(ms + w, mm);
    store<f32>(vs + w, vv);
    store<f32>(p + w, load<f32>(p + w) * keep - (step * mm) / (Mathf.sqrt(vv) / root + eps));
  }
  encode(ms, ptr(2) + byte, mostM, codesM);
  encode(vs, ptr(3) + byte, mostV, codesV);
}

// Adafactor. Arguments of every kernel: p, g, row or 0, col, hyper, O, I, sums. sums holds f64: the mean of row, then
// the factor of the update, then Σ u² of each unit of ROWS rows. Without row O is 1 and I the number of elements.

// @ts-ignore: decorator
@inline
function square(g: usize, clip: f32, eps: f32): f64 {
  const d = <f64> (clip * load<f32>(g));
  return d * d + <f64> eps;
}

/** row = b2·row + (1-b2)·mean over I. Unit u is ROWS rows. */
export function adafactorRows(u: i32, _: usize): void {
  const hyper = ptr(4), b2 = <f64> load<f32>(hyper, 8), eps = load<f32>(hyper, 12), clip = load<f32>(hyper, 28);
  const I = int(6), end = min(int(5), (u + 1) * ROWS);
  for (let o = u * ROWS; o < end; o++) {
    let sum: f64 = 0;
    const g = ptr(1) + (<usize> o * <usize> I << 2);
    for (let i = 0; i < I; i++) sum += square(g + words(i), clip, eps);
    const row = ptr(2) + words(o);
    store<f32>(row, <f32> (b2 * <f64> load<f32>(row) + (1 - b2) * sum / <f64> I));
  }
}

/** col = b2·col + (1-b2)·mean over O. Unit u is COLS columns. */
export function adafactorCols(u: i32, scratch: usize): void {
  const hyper = ptr(4), b2 = <f64> load<f32>(hyper, 8), eps = load<f32>(hyper, 12), clip = load<f32>(hyper, 28);
  const O = int(5), I = int(6), from = u * COLS, width = min(COLS, I - from);
  memory.fill(scratch, 0, <usize> COLS << 3);
  for (let o = 0; o < O; o++) {
    const g = ptr(1) + ((<usize> o * <usize> I + <usize> from) << 2);
    for (let i = 0; i < width; i++) {
      const s = scratch + (<usize> i << 3);
      store<f64>(s, load<f64>(s) + square(g + words(i), clip, eps));
    }
  }
  for (let i = 0; i < width; i++) {
    const col = ptr(3) + words(from + i), sum = load<f64>(scratch + (<usize> i << 3));
    store<f32>(col, <f32> (b2 * <f64> load<f32>(col) + (1 - b2) * sum / <f64> O));
  }
}

/** sums[0] = mean of row. One unit. */
export function adafactorMean(_u: i32, _: usize): void {
  let sum: f64 = 0;
  for (let o = 0; o < int(5); o++) sum += <f64> load<f32>(ptr(2) + words(o));
  store<f64>(ptr(7), sum / <f64> int(5));
}

// @ts-ignore: decorator
@inline
function update(o: i32, i: i32, clip: f32): f64 {
  const r: f64 = ptr(2) === 0 ? 1 : <f64> load<f32>(ptr(2) + words(o)) / load<f64>(ptr(7));
  const g = ptr(1) + ((<usize> o * <usize> int(6) + <usize> i) << 2);
  return <f64> (clip * load<f32>(g)) / Math.sqrt(r * <f64> load<f32>(ptr(3) + words(i)));
}

/** sums[2+u] = Σ u² of ROWS rows. */
export function adafactorSum(u: i32, _: usize): void {
  const clip = load<f32>(ptr(4), 28), end = min(int(5), (u + 1) * ROWS);
  let sum: f64 = 0;
  for (let o = u * ROWS; o < end; o++) {
    for (let i = 0; i < int(6); i++) {
      const x = update(o, i, clip);
      sum += x * x;
    }
  }
  store<f64>(ptr(7) + (<usize> (2 + u) << 3), sum);
}

/** sums[1] = 1 / max(1, rms(u)/d). One unit; int(8) is the number of sums. */
export function adafactorFactor(_u: i32, _: usize): void {
  let sum: f64 = 0;
  for (let k = 0; k < int(8); k++) sum += load<f64>(ptr(7) + (<usize> (2 + k) << 3));
  const rms = Math.sqrt(sum / (<f64> int(5) * <f64> int(6)));
  store<f64>(ptr(7) + 8, 1 / Math.max(1, rms / <f64> load<f32>(ptr(4), 20)));
}

/** p = (1 - lr·wd)·p - lr·u·factor. Unit u is ROWS rows. */
export function adafactorApply(u: i32, _: usize): void {
  const hyper = ptr(4), lr = load<f32>(hyper), keep: f32 = 1 - lr * load<f32>(hyper, 16), clip = load<f32>(hyper, 28);
  const step = <f64> lr * load<f64>(ptr(7) + 8), end = min(int(5), (u + 1) * ROWS);
  for (let o = u * ROWS; o < end; o++) {
    for (let i = 0; i < int(6); i++) {
      const p = ptr(0) + ((<usize> o * <usize> int(6) + <usize> i) << 2);
      store<f32>(p, load<f32>(p) * keep - <f32> (step * update(o, i, clip)));
    }
  }
}
