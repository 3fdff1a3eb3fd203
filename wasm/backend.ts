/**
 * The WASM backend: each operation checks its tensors (core/check.ts), cuts its work into units, and hands addresses to a
 * kernel of assembly/. Everything has finished when a call returns, so `download` and `fence` never wait.
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
} from "../src/core/backend.ts";
import { check } from "../src/core/check.ts";
import { bytesOf, type DType, DTYPES, isQuant } from "../src/core/dtype.ts";
import { BackendError, ShapeError } from "../src/core/errors.ts";
import { byteLength, cols, type Handle, numel, rowsOf, type Tensor } from "../src/core/tensor.ts";
import { runAttention, runAttentionBwd, runAttentionCached } from "./attention.ts";
import { runMatmul } from "./matmul.ts";
import type { LinearMemory } from "./memory.ts";
import { type Pool, SCRATCH_BYTES } from "./pool.ts";

/** Elements of a unit of the kernels in assembly/elementwise.ts and adamw.ts. */
const CHUNK = 16384;
/** Elements of a unit of glu and dropout. */
const SMALL_CHUNK = 4096;
/** Rows, and columns, of a unit of the row and column kernels. */
const ROWS = 8, COLS = 64;

const ACTS: Readonly<Record<Act, number>> = { silu: 0, gelu: 1, gelu_tanh: 2 };
const units = (n: number, size: number): number => Math.ceil(n / size);

/** A Backend over linear memory and a pool of threads; made by `createWasmBackend`. */
export class WasmBackend implements Backend {
  readonly name = "wasm";
  readonly actDtype = "f32";

  private readonly mem: LinearMemory;
  private readonly pool: Pool;
  readonly device: string;

  /** @param device one line for people */
  constructor(mem: LinearMemory, pool: Pool, device: string) {
    this.mem = mem;
    this.pool = pool;
    this.device = device;
  }

  supports(d: DType): boolean {
    return d === "f32" || d === "bf16" || d === "f16" || d === "fp8_e4m3" || isQuant(d);
  }
  alloc(bytes: number): Handle {
    return this.mem.alloc(bytes);
  }
  free(h: Handle): void {
    this.mem.free(h);
  }
  upload(dst: Tensor, src: ArrayBufferView): void {
    this.#same(dst, src);
    this.mem.bytes(dst).set(new Uint8Array(src.buffer, src.byteOffset, src.byteLength));
  }
  async download(src: Tensor, dst: ArrayBufferView): Promise<void> {
    await Promise.resolve();
    this.#same(src, dst);
    new Uint8Array(dst.buffer, dst.byteOffset, dst.byteLength).set(this.mem.bytes(src));
  }
  #same(t: Tensor, array: ArrayBufferView): void {
    if (array.byteLength !== byteLength(t)) {
      throw new ShapeError(
        `Cannot transfer ${t.dtype} [${t.shape}]: the array has ${array.byteLength} bytes, the tensor ${byteLength(t)}`,
      );
    }
  }
  fill(dst: Tensor, value: number): void {
    const size = DTYPES[dst.dtype].bytes, n = numel(dst);
    this.pool.run("fill", "fill", units(n, CHUNK), [this.mem.at(dst), n, size, bitsOf(dst, value)]);
  }
  capture(_: () => void): Graph | null {
    return null;
  }
  fence(): Promise<void> {
    return Promise.resolve();
  }
  memory(): MemoryInfo {
    const { active, peak, limit, cached } = this.mem;
    return { active, peak, limit, cached };
  }
  resetPeak(): void {
    this.mem.resetPeak();
  }
  close(): void {
    this.pool.close();
    this.mem.clear();
  }

  /** Address of a tensor of activations, which are f32 here. */
  #f32(t: Tensor): number {
    if (t.dtype !== "f32") {
      throw new ShapeError(`Cannot use ${t.dtype} [${t.shape}] as an activation: the wasm backend computes in f32`);
    }
    return this.mem.at(t);
  }
  #allF32(...tensors: Tensor[]): Tensor[] {
    tensors.forEach((t) => this.#f32(t));
    return tensors;
  }
  #f32OrNone(t: Tensor | null): number {
    return t ? this.#f32(t) : 0;
  }

  embed(out: Tensor, table: Tensor, ids: Tensor, scale: number): void {
    check.embed(out, table, ids, scale);
    const N = numel(ids), D = cols(out), at = (t: Tensor): number => this.mem.at(t);
    const args = [this.#f32(out), at(table), DTYPES[table.dtype].code, at(ids), N, D, rowsOf(table)];
    this.pool.run("embed", "embed", units(N, ROWS), [...args, bytesOf(table.dtype, D)], [scale]);
  }

  embedBwd(dTable: Tensor, dOut: Tensor, ids: Tensor, scale: number): void {
    check.embedBwd(dTable, dOut, ids, scale);
    const D = cols(dOut), args = [this.#f32(dTable), this.#f32(dOut), this.mem.at(ids), numel(ids), D];
    this.pool.run("embedBwd", "embedBwd", units(D, COLS), [...args, rowsOf(dTable)], [scale]);
  }

  norm(out: Tensor, stat: Tensor, x: Tensor, w: Tensor, b: Tensor | null, o: NormOpts): void {
    check.norm(out, stat, x, w, b, o);
    this.#room("norm", 2 * cols(x));
    const N = rowsOf(x), [wAt, wType] = this.#weights(w), [bAt, bType] = b ? this.#weights(b) : [0, 0];
    const args = [this.#f32(out), this.mem.at(stat), this.#f32(x), wAt, wType, bAt, bType, N, cols(x), ...flags(o)];
    this.pool.run("norm", "norm", units(N, ROWS), args, [o.eps]);
  }

  /** @throws {ShapeError} when a kernel would need more than a thread's scratch */
  #room(op: string, floats: number): void {
    if (4 * floats <= SCRATCH_BYTES) return;
    throw new ShapeError(
      `Cannot run ${op}: it needs ${4 * floats} bytes a thread, the wasm backend has ${SCRATCH_BYTES}`,
    );
  }

  /** Address and type of a vector that may be of any float type. */
  #weights(t: Tensor): [number, number] {
    return [this.mem.at(t), DTYPES[t.dtype].code];
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
    this.#room("normBwd", cols(x));
    const N = rowsOf(x), D = cols(x), dy = this.#f32(dOut), xAt = this.#f32(x), st = this.mem.at(stat);
    const args = [this.#f32(dx), dy, xAt, ...this.#weights(w), st, N, D, ...flags(o)];
    this.pool.run("normBwd", "normBwd", units(N, ROWS), args);
    if (!dw && !db) return;
    const sums = [this.#f32OrNone(dw), this.#f32OrNone(db), dy, xAt, st, N, D];
    this.pool.run("normBwd", "normWeightsBwd", units(D, COLS), sums);
  }

  matmul(c: Tensor, a: Tensor, b: Tensor, bias: Tensor | null, o: MatmulOpts): void {
    check.matmul(c, a, b, bias, o);
    this.#f32(c), this.#f32(a), this.#f32OrNone(bias);
    runMatmul(this.pool, (t) => this.mem.at(t), c, a, b, bias, o);
  }

  rope(x: Tensor, pos: Tensor, freqs: Tensor, o: RopeOpts): void {
    check.rope(x, pos, freqs, o);
    this.#room("rope", 2 * numel(freqs));
    const [N, heads, d] = x.shape;
    const args = [this.#f32(x), this.mem.at(pos), this.mem.at(freqs), N, heads, d, numel(freqs)];
    this.pool.run("rope", "rope", units(N, ROWS), args, [o.sign, o.factor]);
  }

  attention(out: Tensor, lse: Tensor, q: Tensor, k: Tensor, v: Tensor, s: Seqs, o: AttnOpts): void {
    check.attention(out, lse, q, k, v, s, o);
    runAttention(this.pool, (t) => this.mem.at(t), this.#allF32(out, lse, q, k, v), s, o);
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
    const tensors = this.#allF32(dq, dk, dv, dOut, q, k, v, out, lse);
    runAttentionBwd(this.pool, (t) => this.mem.at(t), tensors, s, o);
  }

  cacheWrite(kc: Tensor, vc: Tensor, k: Tensor, v: Tensor, seq: Tensor, pos: Tensor): void {
    check.cacheWrite(kc, vc, k, v, seq, pos);
    const N = k.shape[0], [S, L] = kc.shape, tensors = [kc, vc, k, v].map((t) => this.#f32(t));
    const args = [...tensors, this.mem.at(seq), this.mem.at(pos), N, k.shape[1] * k.shape[2], S, L];
    this.pool.run("cacheWrite", "cacheWrite", units(N, ROWS), args);
  }

  attentionCached(out: Tensor, q: Tensor, kc: Tensor, vc: Tensor, seq: Tensor, pos: Tensor, o: AttnOpts): void {
    check.attentionCached(out, q, kc, vc, seq, pos, o);
    const tensors = [...this.#allF32(out, q, kc, vc), seq, pos];
    runAttentionCached(this.pool, (t) => this.mem.at(t), tensors, o);
  }

  glu(h: Tensor, gate: Tensor, up: Tensor | null, act: Act): void {
    check.glu(h, gate, up, act);
    const n = numel(gate), args = [this.#f32(h), this.#f32(gate), this.#f32OrNone(up), n, ACTS[act]];
    this.pool.run("glu", "glu", units(n, SMALL_CHUNK), args);
  }

  gluBwd(dGate: Tensor, dUp: Tensor | null, h: Tensor, dH: Tensor, gate: Tensor, up: Tensor | null, act: Act): void {
    check.gluBwd(dGate, dUp, h, dH, gate, up, act);
    const n = numel(gate), tensors = [dGate, dUp, h, dH, gate, up].map((t) => this.#f32OrNone(t));
    this.pool.run("gluBwd", "gluBwd", units(n, SMALL_CHUNK), [...tensors, n, ACTS[act]]);
  }

  add(out: Tensor, a: Tensor, b: Tensor): void {
    check.add(out, a, b);
    const n = numel(out), args = [this.#f32(out), this.#f32(a), this.#f32(b), n];
    this.pool.run("add", "add", units(n, CHUNK), args);
  }

  copy(out: Tensor, x: Tensor): void {
    check.copy(out, x);
    const n = numel(x), to = this.mem.at(out), from = this.mem.at(x);
    if (out.dtype === x.dtype) {
      const bytes = byteLength(x);
      return this.pool.run("copy", "copyBytes", units(bytes, 4 * CHUNK), [to, from, bytes]);
    }
    if (x.dtype === "i32" && out.dtype === "f32") {
      return this.pool.run("copy", "fromInts", units(n, CHUNK), [to, from, n]);
    }
    if (!this.supports(x.dtype) || DTYPES[out.dtype].code > DTYPES.f16.code) {
      throw new ShapeError(`Cannot copy ${x.dtype} to ${out.dtype}: the wasm backend writes f32, bf16 and f16`);
    }
    const args = [to, DTYPES[out.dtype].code, from, DTYPES[x.dtype].code, n, bytesOf(x.dtype, CHUNK)];
    this.pool.run("copy", "convert", units(n, CHUNK), args);
  }

  scale(out: Tensor, x: Tensor, factor: number): void {
    check.scale(out, x, factor);
    const n = numel(x);
    this.pool.run("scale", "scale", units(n, CHUNK), [this.#f32(out), this.#f32(x), n], [factor]);
  }

  crossEntropy(loss: Tensor, logits: Tensor, target: Tensor, weight: Tensor, o: LossOpts): void {
    check.crossEntropy(loss, logits, target, weight, o);
    const N = rowsOf(logits), at = (t: Tensor): number => this.mem.at(t);
    const args = [at(loss), this.#f32(logits), at(target), at(weight), N, cols(logits)];
    this.pool.run("crossEntropy", "crossEntropy", N, args, [o.softcap, o.smoothing, o.zLoss]);
  }

  sumSquares(out: Tensor, g: Tensor): void {
    check.sumSquares(out, g);
    const n = numel(g), count = units(n, CHUNK), partial = this.pool.scratch;
    this.pool.run("sumSquares", "sumSquares", count, [partial, this.mem.at(g), n]);
    this.pool.run("sumSquares", "sumPartials", 1, [this.mem.at(out), partial, count]);
  }

  clipFactor(hyper: Tensor, sumSq: Tensor, maxNorm: number): void {
    check.clipFactor(hyper, sumSq, maxNorm);
    this.pool.run("clipFactor", "clipFactor", 1, [this.mem.at(hyper), this.mem.at(sumSq)], [maxNorm]);
  }

  adamw(p: Tensor, g: Tensor, m: Tensor, v: Tensor, hyper: Tensor): void {
    check.adamw(p, g, m, v, hyper);
    const n = numel(p), args = [...[p, g, m, v, hyper].map((t) => this.mem.at(t)), n];
    this.pool.run("adamw", "adamw", units(n, CHUNK), args);
  }

  sgd(p: Tensor, g: Tensor, m: Tensor | null, hyper: Tensor): void {
    check.sgd(p, g, m, hyper);
    const n = numel(p), at = (t: Tensor | null): number => t ? this.mem.at(t) : 0;
    this.pool.run("sgd", "sgd", units(n, CHUNK), [at(p), at(g), at(m), at(hyper), n]);
  }

  lion(p: Tensor, g: Tensor, m: Tensor, hyper: Tensor): void {
    check.lion(p, g, m, hyper);
    const n = numel(p), args = [...[p, g, m, hyper].map((t) => this.mem.at(t)), n];
    this.pool.run("lion", "lion", units(n, CHUNK), args);
  }

  adamw8(p: Tensor, g: Tensor, m: Tensor, v: Tensor, absmax: Tensor, codes: Tensor, hyper: Tensor): void {
    check.adamw8(p, g, m, v, absmax, codes, hyper);
    const blocks = numel(p) / 256, args = [p, g, m, v, absmax, codes, hyper].map((t) => this.mem.at(t));
    this.pool.run("adamw8", "adamw8", blocks, [...args, blocks]);
  }

  adafactor(p: Tensor, g: Tensor, row: Tensor | null, col: Tensor, hyper: Tensor): void {
    check.adafactor(p, g, row, col, hyper);
    const [O, I] = row ? [rowsOf(p), cols(p)] : [1, numel(p)], sums = units(O, ROWS);
    this.#room("adafactor", 1024 + 2 * (sums + 2));
    const at = (t: Tensor | null): number => t ? this.mem.at(t) : 0;
    // The sums lie above what a kernel uses of the first thread's scratch.
    const args = [at(p), at(g), at(row), at(col), at(hyper), O, I, this.pool.scratch + 4096, sums];
    const run = (kernel: string, count: number): void => this.pool.run("adafactor", kernel, count, args);
    if (row) run("adafactorRows", sums);
    run("adafactorCols", units(I, COLS));
    if (row) run("adafactorMean", 1);
    run("adafactorSum", sums);
    run("adafactorFactor", 1);
    run("adafactorApply", sums);
  }

  noise(out: Tensor, x: Tensor, magnitude: Tensor, seed: Tensor, stream: number): void {
    check.noise(out, x, magnitude, seed, stream);
    const n = numel(x), at = (t: Tensor): number => this.mem.at(t);
    const args = [this.#f32(out), this.#f32(x), at(magnitude), at(seed), stream, n, cols(x)];
    this.pool.run("noise", "noise", units(n, SMALL_CHUNK), args);
  }

  colSum(out: Tensor, x: Tensor): void {
    check.colSum(out, x);
    const D = cols(x);
    this.pool.run("colSum", "colSum", units(D, COLS), [this.mem.at(out), this.#f32(x), rowsOf(x), D]);
  }

  colDot(out: Tensor, a: Tensor, b: Tensor): void {
    check.colDot(out, a, b);
    const D = cols(a), args = [this.mem.at(out), this.#f32(a), this.#f32(b), rowsOf(a), D];
    this.pool.run("colDot", "colDot", units(D, COLS), args);
  }

  scaleCols(out: Tensor, x: Tensor, s: Tensor): void {
    check.scaleCols(out, x, s);
    const N = rowsOf(x), args = [this.#f32(out), this.#f32(x), this.mem.at(s), N, cols(x)];
    this.pool.run("scaleCols", "scaleCols", units(N, ROWS), args);
  }

  rowNorm(out: Tensor, w: Tensor, a: Tensor, b: Tensor, scale: number): void {
    check.rowNorm(out, w, a, b, scale);
    const O = rowsOf(w), I = cols(w), [ptr, type] = this.#weights(w);
    const args = [this.mem.at(out), ptr, type, this.mem.at(a), this.mem.at(b), O, I, a.shape[0], bytesOf(w.dtype, I)];
    this.pool.run("rowNorm", "rowNorm", units(O, ROWS), args, [scale]);
  }

  divide(out: Tensor, a: Tensor, b: Tensor): void {
    check.divide(out, a, b);
    const n = numel(out), args = [...[out, a, b].map((t) => this.mem.at(t)), n];
    this.pool.run("divide", "divide", units(n, CHUNK), args);
  }

  dropout(out: Tensor, x: Tensor, seed: Tensor, stream: number, p: number): void {
    check.dropout(out, x, seed, stream, p);
    const n = numel(x), threshold = Math.ceil(p * 4294967296);
    const args = [this.#f32(out), this.#f32(x), this.mem.at(seed), stream, threshold, n];
    this.pool.run("dropout", "dropout", units(n, SMALL_CHUNK), args, [1 / (1 - p)]);
  }

  quantizeFp8(out: Tensor): void {
    throw new ShapeError(`Cannot run quantizeFp8: WASM has no 8-bit matrix units and holds no ${out.dtype}`);
  }

  offloads = (): string => "nothing to gain: host memory is device memory";
  hostSlot = refuseOffload;
  stash = refuseOffload;
  fetch = refuseOffload;
  slotWait = refuseOffload;
}

function refuseOffload(): never {
  throw new BackendError("Cannot move tensors to host memory on wasm: there, host memory is device memory", "stash", 1);
}

function flags(o: NormOpts): [number, number] {
  return [o.kind === "layer" ? 1 : 0, o.plusOne ? 1 : 0];
}

/** The bits of `value` in a dense type. */
function bitsOf(t: Tensor, value: number): number {
  switch (t.dtype) {
    case "f32":
      return new Int32Array(Float32Array.of(value).buffer)[0];
    case "bf16": {
      const u = new Uint32Array(Float32Array.of(value).buffer)[0];
      return Number.isNaN(value) ? 0x7fc0 : (u + 0x7fff + ((u >>> 16) & 1)) >>> 16;
    }
    case "i32":
    case "u8":
      return value;
    default:
      if (value === 0 && !isQuant(t.dtype)) return 0;
      throw new ShapeError(`Cannot fill ${t.dtype} [${t.shape}] with ${value}: f32, bf16, i32 and u8 can be filled`);
  }
}
