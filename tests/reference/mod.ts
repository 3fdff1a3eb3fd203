/**
 * The reference backend: every operation by its formula, in f64, with plain loops. It is slow and clear; other backends
 * and the modules' gradients are judged by it, and it is judged by finite differences and by golden files.
 * @module
 */
import type {
  Act,
  AttnOpts,
  Backend,
  Graph,
  LossOpts,
  MatmulOpts,
  MemoryInfo,
  NormOpts,
  RopeOpts,
  Seqs,
} from "../../src/core/backend.ts";
import { check } from "../../src/core/check.ts";
import type { DType } from "../../src/core/dtype.ts";
import { ShapeError } from "../../src/core/errors.ts";
import { keeps, symmetric } from "../../src/core/philox.ts";
import { cols, type Handle, numel, rowsOf, type Tensor } from "../../src/core/tensor.ts";
import { attend, attendBwd, type Heads, span } from "./attention.ts";
import { decodes } from "./codec.ts";
import { matmul } from "./matmul.ts";
import { Memory } from "./memory.ts";
import { adafactor, adamw8, lion, sgd } from "./optimizers.ts";
import { HostSlots } from "./slots.ts";
import { activate, lossRow, normRowBwd, statistics } from "./rows.ts";

export { tensorOf, valuesOf } from "./values.ts";

/** f64 on one thread. Not fast; `new ReferenceBackend()` takes any number of bytes. */
export class ReferenceBackend implements Backend {
  readonly name = "reference";
  readonly device: string = "reference: f64, one thread";
  readonly actDtype = "f32";
  readonly #mem: Memory;
  readonly #slots = new HostSlots();

  /** @param limit bytes that may be in use at once */
  constructor(limit: number = Infinity) {
    this.#mem = new Memory(limit);
  }

  supports(d: DType): boolean {
    return decodes(d);
  }
  alloc(bytes: number): Handle {
    return this.#mem.alloc(bytes);
  }
  free(h: Handle): void {
    this.#mem.free(h);
  }
  upload(dst: Tensor, src: ArrayBufferView): void {
    this.#mem.upload(dst, src);
  }
  async download(src: Tensor, dst: ArrayBufferView): Promise<void> {
    await Promise.resolve();
    this.#mem.download(src, dst);
  }
  fill(dst: Tensor, value: number): void {
    this.#mem.edit(dst, (x) => x.fill(value));
  }
  capture(_: () => void): Graph | null {
    return null;
  }
  fence(): Promise<void> {
    return Promise.resolve();
  }
  memory(): MemoryInfo {
    const { active, peak, limit } = this.#mem;
    return { active, peak, limit: Number.isFinite(limit) ? limit : 0 };
  }
  close(): void {
    this.#mem.clear();
  }

  embed(out: Tensor, table: Tensor, ids: Tensor, scale: number): void {
    check.embed(out, table, ids, scale);
    const D = cols(out), id = this.#mem.ints(ids), rows = this.#mem.read(table);
    this.#mem.edit(out, (y) => {
      for (let i = 0; i < y.length; i++) y[i] = scale * rows[id[Math.floor(i / D)] * D + i % D];
    });
  }

  embedBwd(dTable: Tensor, dOut: Tensor, ids: Tensor, scale: number): void {
    check.embedBwd(dTable, dOut, ids, scale);
    const D = cols(dOut), id = this.#mem.ints(ids), dy = this.#mem.read(dOut);
    this.#mem.edit(dTable, (dt) => {
      for (let i = 0; i < dy.length; i++) dt[id[Math.floor(i / D)] * D + i % D] += scale * dy[i];
    });
  }

  norm(out: Tensor, stat: Tensor, x: Tensor, w: Tensor, b: Tensor | null, o: NormOpts): void {
    check.norm(out, stat, x, w, b, o);
    const D = cols(x), xs = this.#mem.read(x), ws = this.#mem.read(w), bs = b && this.#mem.read(b);
    const st = this.#mem.read(stat), one = o.plusOne ? 1 : 0;
    this.#mem.edit(out, (y) => {
      for (let n = 0; n * D < xs.length; n++) {
        const { mean, rstd } = statistics(xs.subarray(n * D, (n + 1) * D), o);
        for (let j = 0; j < D; j++) y[n * D + j] = (xs[n * D + j] - mean) * rstd * (one + ws[j]) + (bs ? bs[j] : 0);
        st[2 * n] = mean;
        st[2 * n + 1] = rstd;
      }
    });
  }

  normBwd(
    dx: Tensor,
    dw: Tensor | null,
    db: Tensor | null,
    dOut: Tensor,
    x: Tensor,
    w: Tensor,
    stat: Tensor,
    o: NormOpts,
  ): void {
    check.normBwd(dx, dw, db, dOut, x, w, stat, o);
    const D = cols(x), xs = this.#mem.read(x), dy = this.#mem.read(dOut), st = this.#mem.read(stat);
    const ws = this.#mem.read(w), one = o.plusOne ? 1 : 0;
    const gw = dw && this.#mem.read(dw), gb = db && this.#mem.read(db);
    this.#mem.edit(dx, (g) => {
      for (let n = 0; n * D < xs.length; n++) {
        const row = xs.subarray(n * D, (n + 1) * D), d = dy.subarray(n * D, (n + 1) * D);
        const s = { mean: st[2 * n], rstd: st[2 * n + 1] };
        normRowBwd(d, row, (j) => one + ws[j], s, o.kind).forEach((v, j) => g[n * D + j] += v);
        for (let j = 0; j < D; j++) {
          if (gw) gw[j] += d[j] * (row[j] - s.mean) * s.rstd;
          if (gb) gb[j] += d[j];
        }
      }
    });
  }

  matmul(c: Tensor, a: Tensor, b: Tensor, bias: Tensor | null, o: MatmulOpts): void {
    check.matmul(c, a, b, bias, o);
    const sizes = { M: rowsOf(c), N: cols(c), K: o.transA ? rowsOf(a) : cols(a) };
    const left = this.#mem.read(a), right = this.#mem.read(b), add = bias && this.#mem.read(bias);
    this.#mem.edit(c, (out) => matmul(out, left, right, add, sizes, o));
  }

  rope(x: Tensor, pos: Tensor, freqs: Tensor, o: RopeOpts): void {
    check.rope(x, pos, freqs, o);
    const [N, H, d] = x.shape, half = numel(freqs), p = this.#mem.ints(pos), f = this.#mem.read(freqs);
    this.#mem.edit(x, (v) => {
      for (let n = 0; n < N; n++) {
        for (let i = 0; i < half; i++) {
          const cos = Math.cos(p[n] * f[i]) * o.factor, sin = o.sign * Math.sin(p[n] * f[i]) * o.factor;
          for (let h = 0; h < H; h++) {
            const at = (n * H + h) * d + i, a = v[at], b = v[at + half];
            v[at] = a * cos - b * sin;
            v[at + half] = b * cos + a * sin;
          }
        }
      }
    });
  }

  attention(out: Tensor, lse: Tensor, q: Tensor, k: Tensor, v: Tensor, s: Seqs, o: AttnOpts): void {
    check.attention(out, lse, q, k, v, s, o);
    const h = headsOf(q, k), N = q.shape[0], ls = this.#mem.read(lse);
    const [qs, ks, vs] = [q, k, v].map((t) => this.#mem.read(t));
    ls.fill(0);
    this.#mem.edit(out, (y) => {
      y.fill(0);
      this.#eachQuery(s, N, (n, i, first) => {
        const seen = span(i, first * h.K * h.d, o.window, h);
        attend(y, qs, ks, vs, n, seen, h, o, (head, l) => ls[head * N + n] = l);
      });
    });
  }

  attentionBwd(
    dq: Tensor,
    dk: Tensor,
    dv: Tensor,
    dOut: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    s: Seqs,
    o: AttnOpts,
  ): void {
    check.attentionBwd(dq, dk, dv, dOut, q, k, v, out, lse, s, o);
    const h = headsOf(q, k), read = (t: Tensor): Float64Array => this.#mem.read(t);
    const zeros = (t: Tensor): Float64Array => new Float64Array(numel(t));
    const g = { dq: zeros(q), dk: zeros(k), dv: zeros(v), dOut: read(dOut), q: read(q), k: read(k), v: read(v) };
    this.#eachQuery(s, q.shape[0], (n, i, first) => attendBwd(g, n, span(i, first * h.K * h.d, o.window, h), h, o));
    this.#mem.store(dq, g.dq);
    this.#mem.store(dk, g.dk);
    this.#mem.store(dv, g.dv);
  }

  /** Row n, its place i in its sequence, the sequence's first row. */
  #eachQuery(s: Seqs, N: number, work: (n: number, i: number, first: number) => void): void {
    const cu = this.#mem.ints(s.cu);
    for (let j = 0; j + 1 < cu.length; j++) {
      if (cu[j + 1] < cu[j] || cu[j + 1] > N || cu[j + 1] - cu[j] > s.maxLen) {
        throw new RangeError(`Cannot attend over rows ${cu[j]} to ${cu[j + 1]}: N is ${N}, maxLen ${s.maxLen}`);
      }
      for (let n = cu[j]; n < cu[j + 1]; n++) work(n, n - cu[j], cu[j]);
    }
  }

  cacheWrite(kc: Tensor, vc: Tensor, k: Tensor, v: Tensor, seq: Tensor, pos: Tensor): void {
    check.cacheWrite(kc, vc, k, v, seq, pos);
    const L = kc.shape[1], row = k.shape[1] * k.shape[2], sq = this.#mem.ints(seq), p = this.#mem.ints(pos);
    for (const [cache, x] of [[kc, k], [vc, v]]) {
      const xs = this.#mem.read(x);
      this.#mem.edit(cache, (c) => {
        for (let n = 0; n < sq.length; n++) c.set(xs.subarray(n * row, (n + 1) * row), (sq[n] * L + p[n]) * row);
      });
    }
  }

  attentionCached(out: Tensor, q: Tensor, kc: Tensor, vc: Tensor, seq: Tensor, pos: Tensor, o: AttnOpts): void {
    check.attentionCached(out, q, kc, vc, seq, pos, o);
    const h = headsOf(q, kc), L = kc.shape[1], sq = this.#mem.ints(seq), p = this.#mem.ints(pos);
    const [qs, ks, vs] = [q, kc, vc].map((t) => this.#mem.read(t));
    this.#mem.edit(out, (y) => {
      for (let n = 0; n < sq.length; n++) {
        attend(y, qs, ks, vs, n, span(p[n], sq[n] * L * h.K * h.d, o.window, h), h, o, () => {});
      }
    });
  }

  glu(h: Tensor, gate: Tensor, up: Tensor | null, act: Act): void {
    check.glu(h, gate, up, act);
    const g = this.#mem.read(gate), u = up && this.#mem.read(up);
    this.#mem.store(h, g.map((x, i) => activate(x, act).y * (u ? u[i] : 1)));
  }

  gluBwd(dGate: Tensor, dUp: Tensor | null, h: Tensor, dH: Tensor, gate: Tensor, up: Tensor | null, act: Act): void {
    check.gluBwd(dGate, dUp, h, dH, gate, up, act);
    const g = this.#mem.read(gate),
      u = up && this.#mem.read(up),
      d = this.#mem.read(dH),
      a = g.map((x) => activate(x, act).y);
    const dg = g.map((x, i) => d[i] * (u ? u[i] : 1) * activate(x, act).dy), du = a.map((y, i) => d[i] * y);
    this.#mem.store(h, a.map((y, i) => y * (u ? u[i] : 1)));
    this.#mem.store(dGate, dg);
    if (dUp) this.#mem.store(dUp, du);
  }

  add(out: Tensor, a: Tensor, b: Tensor): void {
    check.add(out, a, b);
    const y = this.#mem.read(b);
    this.#mem.store(out, this.#mem.read(a).map((x, i) => x + y[i]));
  }
  copy(out: Tensor, x: Tensor): void {
    check.copy(out, x);
    this.#mem.store(out, this.#mem.read(x));
  }
  scale(out: Tensor, x: Tensor, factor: number): void {
    check.scale(out, x, factor);
    this.#mem.store(out, this.#mem.read(x).map((v) => factor * v));
  }

  crossEntropy(loss: Tensor, logits: Tensor, target: Tensor, weight: Tensor, o: LossOpts): void {
    check.crossEntropy(loss, logits, target, weight, o);
    const V = cols(logits), l = this.#mem.read(loss), t = this.#mem.ints(target), w = this.#mem.read(weight);
    this.#mem.edit(logits, (z) => {
      for (let n = 0; n < t.length; n++) l[n] = lossRow(z.subarray(n * V, (n + 1) * V), t[n], w[n], o);
    });
  }

  sumSquares(out: Tensor, g: Tensor): void {
    check.sumSquares(out, g);
    this.#mem.edit(out, (s) => this.#mem.read(g).forEach((x) => s[0] += x * x));
  }
  clipFactor(hyper: Tensor, sumSq: Tensor, maxNorm: number): void {
    check.clipFactor(hyper, sumSq, maxNorm);
    const norm = Math.sqrt(this.#mem.read(sumSq)[0]);
    this.#mem.edit(hyper, (h) => h[7] = maxNorm === 0 ? 1 : Math.min(1, maxNorm / (norm + 1e-6)));
  }
  adamw(p: Tensor, g: Tensor, m: Tensor, v: Tensor, hyper: Tensor): void {
    check.adamw(p, g, m, v, hyper);
    const [lr, b1, b2, eps, wd, c1, c2, clip] = this.#mem.read(hyper);
    const [ps, gs, ms, vs] = [p, g, m, v].map((t) => this.#mem.read(t));
    for (let i = 0; i < ps.length; i++) {
      const d = gs[i] * clip;
      ms[i] = b1 * ms[i] + (1 - b1) * d;
      vs[i] = b2 * vs[i] + (1 - b2) * d * d;
      ps[i] -= lr * (wd * ps[i] + (ms[i] / c1) / (Math.sqrt(vs[i] / c2) + eps));
    }
  }
  sgd(p: Tensor, g: Tensor, m: Tensor | null, hyper: Tensor): void {
    check.sgd(p, g, m, hyper);
    sgd(this.#mem.read(p), this.#mem.read(g), m && this.#mem.read(m), this.#mem.read(hyper));
  }
  lion(p: Tensor, g: Tensor, m: Tensor, hyper: Tensor): void {
    check.lion(p, g, m, hyper);
    lion(this.#mem.read(p), this.#mem.read(g), this.#mem.read(m), this.#mem.read(hyper));
  }
  adamw8(p: Tensor, g: Tensor, m: Tensor, v: Tensor, absmax: Tensor, codes: Tensor, hyper: Tensor): void {
    check.adamw8(p, g, m, v, absmax, codes, hyper);
    const most = this.#mem.read(absmax), table = this.#mem.read(codes), n = most.length / 2;
    const [first, second] = [m, v].map((t, i) => ({
      bytes: this.#mem.bytes(t),
      absmax: most.subarray(i * n, (i + 1) * n),
      codes: table.subarray(i * 256, (i + 1) * 256),
    }));
    adamw8(this.#mem.read(p), this.#mem.read(g), first, second, this.#mem.read(hyper));
  }
  adafactor(p: Tensor, g: Tensor, row: Tensor | null, col: Tensor, hyper: Tensor): void {
    check.adafactor(p, g, row, col, hyper);
    const read = (t: Tensor) => this.#mem.read(t);
    adafactor(read(p), read(g), row && read(row), read(col), read(hyper));
  }
  noise(out: Tensor, x: Tensor, magnitude: Tensor, seed: Tensor, stream: number): void {
    check.noise(out, x, magnitude, seed, stream);
    const [s0, s1] = this.#mem.ints(seed), D = cols(x), size = this.#mem.read(magnitude);
    const add = (v: number, i: number) => v + size[Math.floor(i / D)] * symmetric([s0, s1], stream, i);
    this.#mem.store(out, this.#mem.read(x).map(add));
  }

  colSum(out: Tensor, x: Tensor): void {
    check.colSum(out, x);
    const D = cols(x);
    this.#mem.edit(out, (s) => this.#mem.read(x).forEach((v, i) => s[i % D] += v));
  }
  colDot(out: Tensor, a: Tensor, b: Tensor): void {
    check.colDot(out, a, b);
    const D = cols(a), y = this.#mem.read(b);
    this.#mem.edit(out, (s) => this.#mem.read(a).forEach((v, i) => s[i % D] += v * y[i]));
  }
  scaleCols(out: Tensor, x: Tensor, s: Tensor): void {
    check.scaleCols(out, x, s);
    const D = cols(x), f = this.#mem.read(s);
    this.#mem.store(out, this.#mem.read(x).map((v, i) => v * f[i % D]));
  }
  rowNorm(out: Tensor, w: Tensor, a: Tensor, b: Tensor, scale: number): void {
    check.rowNorm(out, w, a, b, scale);
    const [R, I] = a.shape, O = rowsOf(w), sum = this.#mem.read(w).slice();
    matmul(sum, this.#mem.read(b), this.#mem.read(a), null, { M: O, N: I, K: R }, { alpha: scale, beta: 1 });
    this.#mem.edit(out, (y) => {
      for (let o = 0; o < O; o++) y[o] = Math.sqrt(sum.subarray(o * I, (o + 1) * I).reduce((s, v) => s + v * v, 0));
    });
  }
  divide(out: Tensor, a: Tensor, b: Tensor): void {
    check.divide(out, a, b);
    const y = this.#mem.read(b);
    this.#mem.store(out, this.#mem.read(a).map((x, i) => x / y[i]));
  }
  dropout(out: Tensor, x: Tensor, seed: Tensor, stream: number, p: number): void {
    check.dropout(out, x, seed, stream, p);
    const [s0, s1] = this.#mem.ints(seed);
    this.#mem.store(out, this.#mem.read(x).map((v, i) => keeps([s0, s1], stream, i, p) ? v / (1 - p) : 0));
  }
  quantizeFp8(out: Tensor): void {
    throw new ShapeError(`Cannot run quantizeFp8: the reference holds no ${out.dtype}`);
  }

  offloads(): string | null {
    return null;
  }
  hostSlot(slot: number, bytes: number): void {
    check.hostSlot(slot, bytes);
    this.#slots.place(slot, bytes);
  }
  stash(slot: number, x: Tensor): void {
    check.stash(slot, x);
    this.#slots.put(slot, this.#mem.read(x));
  }
  fetch(out: Tensor, slot: number): void {
    check.fetch(out, slot);
    this.#mem.store(out, this.#slots.get(slot, numel(out)));
  }
  slotWait(slot: number): void {
    check.slotWait(slot);
    this.#slots.find(slot);
  }
}

function headsOf(q: Tensor, k: Tensor): Heads {
  return { H: q.shape[1], K: k.shape[k.shape.length - 2], d: q.shape[2] };
}
