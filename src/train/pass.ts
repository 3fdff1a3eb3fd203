/**
 * One micro-batch on the device: the input tensors whose handles never change, and the pass over them. It launches and
 * neither reads nor allocates, so a backend with graphs may record it.
 * @module
 */
import { Arena } from "../core/arena.ts";
import type { Backend } from "../core/backend.ts";
import { DataError } from "../core/errors.ts";
import { reshape, type Tensor } from "../core/tensor.ts";
import type { Batch } from "../data/types.ts";
import type { Decoder } from "../nn/decoder.ts";
import { defaultChunk } from "../nn/head.ts";
import { createRun } from "../nn/run.ts";

/** Bounds a pass is planned for, and what its loss is. */
export interface PassOptions {
  /** Most tokens of a micro-batch. */
  readonly maxTokens: number;
  /** Most tokens of a micro-batch that is trained, where evaluation has larger ones. Default: maxTokens. */
  readonly trainTokens?: number;
  /** Most sequences of a micro-batch. */
  readonly maxSequences: number;
  /** Longest sequence in tokens. */
  readonly maxLength: number;
  /** Rows whose logits exist at once; default: 64 MiB of them, on GPUs 256 MiB. */
  readonly chunk?: number;
  /** Label smoothing ε, in training. */
  readonly smoothing?: number;
  /** Weight of lse² (z-loss), in training. */
  readonly zLoss?: number;
  /** NEFTune's α: in training, uniform noise of α/√(length·D) on each sequence's embeddings. 0 or absent: off. */
  readonly neftune?: number;
}

/** The device side of a batch, cut to its size: N tokens, S sequences, M trained rows. */
export interface Inputs {
  readonly ids: Tensor /* i32 [N] */;
  readonly pos: Tensor /* i32 [N] */;
  readonly cu: Tensor /* i32 [S+1] */;
  readonly noise: Tensor /* f32 [N] */;
  /** The rows with a weight, then padding of weight 0. */
  readonly rows: Tensor /* i32 [M] */;
  readonly targets: Tensor /* i32 [M] */;
  readonly weights: Tensor /* f32 [M] */;
  readonly loss: Tensor /* f32 [M] */;
  /** `rows` on the host, without padding. */
  readonly trained: Int32Array;
}

/** Everything that decides which calls a pass makes: passes of equal shape may replay one recording. */
export function shapeOf(i: Inputs): string {
  return [i.ids, i.cu, i.rows].map((t) => t.shape[0]).join(" ");
}

/** Input tensors of fixed address, an arena, and passes over them. */
export class Pass {
  readonly arena: Arena;
  /** Σ weight·loss of the passes since it was last zeroed. */
  readonly lossSum: Tensor /* f32 [1] */;
  readonly #arenaInputs: Arena;
  readonly #full: Omit<Inputs, "trained">;
  readonly #seed: Tensor /* i32 [2] */;
  readonly #chunk: number;

  private readonly be: Backend;
  private readonly decoder: Decoder;
  private readonly o: PassOptions;

  /** @param arenaBytes bytes of activations; `planArena` finds them */
  constructor(be: Backend, decoder: Decoder, o: PassOptions, arenaBytes: number) {
    this.be = be;
    this.decoder = decoder;
    this.o = o;
    const { maxTokens: n, maxSequences: s } = o;
    this.#arenaInputs = new Arena(be, inputBytes(o));
    const place = (dtype: "i32" | "f32", size: number) => this.#arenaInputs.tensor(dtype, size);
    this.#full = {
      ...{ ids: place("i32", n), pos: place("i32", n), cu: place("i32", s + 1), noise: place("f32", n) },
      ...{ rows: place("i32", n), targets: place("i32", n), weights: place("f32", n), loss: place("f32", n) },
    };
    this.#seed = place("i32", 2);
    this.lossSum = place("f32", 1);
    this.#chunk = o.chunk ?? defaultChunk(decoder.config.vocab, be.actDtype, n);
    this.arena = new Arena(be, arenaBytes);
    if (decoder.params().length) decoder.placeOffload(o.trainTokens ?? o.maxTokens);
  }

  /**
   * Uploads a micro-batch.
   * @param weights what each token's loss counts for; the batch's own where absent
   * @throws {DataError} when the batch is larger than the pass was planned for
   */
  upload(b: Batch, weights: Float32Array = b.weights, seed: readonly [number, number] = [0, 0]): Inputs {
    const n = b.ids.length,
      s = b.cu.length - 1,
      longest = longestOf(b),
      { maxTokens, maxSequences, maxLength } = this.o;
    if (n > maxTokens || s > maxSequences || longest > maxLength) {
      throw new DataError(
        `Cannot run ${n} tokens in ${s} sequences of up to ${longest}: ` +
          `${maxTokens} in ${maxSequences} of up to ${maxLength} were planned`,
      );
    }
    const trained = trainedRows(b, weights), m = paddedRows(trained.length, n, maxTokens);
    const cut = (t: Tensor, size: number): Tensor => ({ ...t, shape: [size] }), full = this.#full;
    const all: Inputs = {
      ...{ ids: cut(full.ids, n), pos: cut(full.pos, n), cu: cut(full.cu, s + 1), noise: cut(full.noise, n) },
      ...{ rows: cut(full.rows, m), targets: cut(full.targets, m), weights: cut(full.weights, m) },
      ...{ loss: cut(full.loss, m), trained },
    };
    this.decoder.prepare(longest);
    this.be.upload(all.ids, b.ids);
    this.be.upload(all.pos, b.pos);
    this.be.upload(all.cu, b.cu);
    this.be.upload(all.rows, gather(trained, m, (row) => row, Int32Array));
    this.be.upload(all.targets, gather(trained, m, (row) => b.targets[row], Int32Array));
    this.be.upload(all.weights, gather(trained, m, (row) => weights[row], Float32Array));
    this.be.upload(this.#seed, Int32Array.from(seed));
    if (this.o.neftune) this.be.upload(all.noise, noiseOf(b, this.o.neftune, this.decoder.config.dim));
    return all;
  }

  /** Forward, loss and backward: gradients += , lossSum += . */
  train(i: Inputs): void {
    const { arena, be } = this, mark = arena.mark();
    const run = createRun({
      ...{ be, arena, pos: i.pos, cu: i.cu, maxLen: this.o.maxLength, keep: true, seed: this.#seed },
      noise: this.o.neftune ? i.noise : null,
    });
    const hidden = this.decoder.forward(i.ids, run);
    this.decoder.backward(this.decoder.loss(hidden, this.#lossInput(i), run, true)!, run);
    this.#sum(i);
    arena.release(mark);
  }

  /** Forward and loss: lossSum += , `i.loss` holds each row's -log p, whatever is added to it in training. */
  evaluate(i: Inputs, adapters: boolean): void {
    const { arena, be } = this, mark = arena.mark();
    const run = createRun({ be, arena, pos: i.pos, cu: i.cu, maxLen: this.o.maxLength, adapters });
    const hidden = this.decoder.forward(i.ids, run);
    this.decoder.loss(hidden, { ...this.#lossInput(i), smoothing: 0, zLoss: 0 }, run, false);
    this.#sum(i);
    arena.release(mark);
  }

  #lossInput(i: Inputs) {
    const { smoothing, zLoss } = this.o;
    const { rows, targets, weights, loss } = i;
    return { rows, targets, weights, loss, chunk: this.#chunk, smoothing, zLoss };
  }

  /** lossSum += Σ weight·loss, as a column dot product. */
  #sum(i: Inputs): void {
    const n = i.loss.shape[0];
    this.be.colDot(this.lossSum, reshape(i.loss, n, 1), reshape(i.weights, n, 1));
  }

  close(): void {
    this.decoder.placeOffload(0);
    this.#arenaInputs.close();
    this.arena.close();
  }
}

/** Bytes of the input tensors. */
export function inputBytes(o: Pick<PassOptions, "maxTokens" | "maxSequences">): number {
  const place = (elements: number) => Math.ceil(elements * 4 / 256) * 256;
  return 7 * place(o.maxTokens) + place(o.maxSequences + 1) + 2 * place(2);
}

/** Tokens with a weight. */
function trainedRows(b: Batch, weights: Float32Array): Int32Array {
  let m = 0;
  const rows = new Int32Array(b.ids.length);
  for (let n = 0; n < rows.length; n++) if (weights[n] !== 0) rows[m++] = n;
  return rows.slice(0, m);
}

/** Steps in which the number of trained rows grows, as a share of the largest batch: few shapes, little padding. */
const STEPS = 16;

function paddedRows(m: number, n: number, maxTokens: number): number {
  const unit = Math.max(1, Math.ceil(maxTokens / STEPS));
  return Math.min(n, Math.max(1, Math.ceil(m / unit)) * unit);
}

/** `f` of each row, zero in the padding. */
function gather<T extends Int32Array | Float32Array>(
  rows: Int32Array,
  m: number,
  f: (row: number) => number,
  kind: new (n: number) => T,
): T {
  const out = new kind(m);
  rows.forEach((row, i) => out[i] = f(row));
  return out;
}

/** α/√(length·D) for each row. */
function noiseOf(b: Batch, alpha: number, dim: number): Float32Array {
  const out = new Float32Array(b.ids.length);
  for (let s = 1; s < b.cu.length; s++) {
    out.fill(alpha / Math.sqrt((b.cu[s] - b.cu[s - 1]) * dim), b.cu[s - 1], b.cu[s]);
  }
  return out;
}

/** Tokens of the longest sequence. */
export function longestOf(b: Batch): number {
  let longest = 0;
  for (let s = 1; s < b.cu.length; s++) longest = Math.max(longest, b.cu[s] - b.cu[s - 1]);
  return longest;
}
