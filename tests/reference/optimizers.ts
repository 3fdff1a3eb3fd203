/** The optimisers beside AdamW by their papers' formulas, in f64. Each works in place on whole arrays. */

/** torch.optim.SGD; m is null without momentum. */
export function sgd(p: Float64Array, g: Float64Array, m: Float64Array | null, hyper: Float64Array): void {
  const [lr, momentum, , , wd, , , clip] = hyper;
  for (let i = 0; i < p.length; i++) {
    let d = clip * g[i] + wd * p[i];
    if (m) d = m[i] = momentum * m[i] + d;
    p[i] -= lr * d;
  }
}

/** Chen et al. 2023, algorithm 2. */
export function lion(p: Float64Array, g: Float64Array, m: Float64Array, hyper: Float64Array): void {
  const [lr, b1, b2, , wd, , , clip] = hyper;
  for (let i = 0; i < p.length; i++) {
    const d = clip * g[i];
    p[i] = p[i] * (1 - lr * wd) - lr * Math.sign(b1 * m[i] + (1 - b1) * d);
    m[i] = b2 * m[i] + (1 - b2) * d;
  }
}

/** Index of the code nearest to x; the lower of two equally near. */
export function nearest(codes: Float64Array, x: number): number {
  let best = 0;
  for (let c = 1; c < codes.length; c++) if (Math.abs(codes[c] - x) < Math.abs(codes[best] - x)) best = c;
  return best;
}

/** One moment: bytes, their blocks' absmax, the code. */
interface Coded {
  readonly bytes: Uint8Array;
  readonly absmax: Float64Array;
  readonly codes: Float64Array;
}

const BLOCK = 256;

function encode(x: Float64Array, into: Coded, block: number): void {
  const most = x.reduce((a, b) => Math.max(a, Math.abs(b)), 0);
  into.absmax[block] = most;
  x.forEach((v, i) => into.bytes[block * BLOCK + i] = nearest(into.codes, most === 0 ? 0 : v / most));
}

/** Dettmers et al. 2022, block by block. */
export function adamw8(p: Float64Array, g: Float64Array, m: Coded, v: Coded, hyper: Float64Array): void {
  const [lr, b1, b2, eps, wd, c1, c2, clip] = hyper;
  for (let block = 0; block < p.length / BLOCK; block++) {
    const at = (c: Coded, i: number) => c.codes[c.bytes[i]] * c.absmax[block];
    const ms = new Float64Array(BLOCK), vs = new Float64Array(BLOCK);
    for (let j = 0; j < BLOCK; j++) {
      const i = block * BLOCK + j, d = clip * g[i];
      ms[j] = b1 * at(m, i) + (1 - b1) * d;
      vs[j] = b2 * at(v, i) + (1 - b2) * d * d;
      p[i] -= lr * (wd * p[i] + (ms[j] / c1) / (Math.sqrt(vs[j] / c2) + eps));
    }
    encode(ms, m, block);
    encode(vs, v, block);
  }
}

/** Shazeer & Stern 2018, algorithms 4 and 5, without a first moment and with a given learning rate. */
export function adafactor(
  p: Float64Array,
  g: Float64Array,
  row: Float64Array | null,
  col: Float64Array,
  hyper: Float64Array,
): void {
  const [lr, , b2, eps, wd, most, , clip] = hyper, I = row ? col.length : p.length, O = p.length / I;
  const squares = g.map((x) => (clip * x) ** 2 + eps);
  const rowMean = (o: number) => squares.subarray(o * I, (o + 1) * I).reduce((a, b) => a + b, 0) / I;
  if (row) {
    for (let o = 0; o < O; o++) row[o] = b2 * row[o] + (1 - b2) * rowMean(o);
    for (let i = 0; i < I; i++) {
      let sum = 0;
      for (let o = 0; o < O; o++) sum += squares[o * I + i];
      col[i] = b2 * col[i] + (1 - b2) * sum / O;
    }
  } else squares.forEach((x, i) => col[i] = b2 * col[i] + (1 - b2) * x);
  const mean = row ? row.reduce((a, b) => a + b, 0) / O : 1;
  const u = g.map((x, n) => clip * x / Math.sqrt((row ? row[Math.floor(n / I)] / mean : 1) * col[n % I]));
  const rms = Math.sqrt(u.reduce((a, b) => a + b * b, 0) / u.length), factor = Math.max(1, rms / most);
  for (let i = 0; i < p.length; i++) p[i] = p[i] * (1 - lr * wd) - lr * u[i] / factor;
}
