/**
 * One micro-batch on the device: the input tensors whose handles never change, and the pass over them. It launches and
 * neither reads nor allocates, so a backend with graphs may record it.
 * @module
 */
import { Arena } from "../core/arena.ts";
import type { Backend } from "../core/backend.ts";
import { DataError } from "../core/errors.ts";
import { reshape, slice, type Tensor } from "../core/tensor.ts";
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

/** The host side of a batch, as it is uploaded: N tokens, S sequences, M trained rows. */
export interface Staged extends Pick<Batch, "ids" | "pos" | "cu"> {
  /** f32 [N]; null: no noise. */
  readonly noise: Float32Array | null;
  /** Rows with a weight. */
  readonly trained: Int32Array;
  /** The same, then padding of weight 0. */
  readonly rows: Int32Array /* [M] */;
  readonly targets: Int32Array /* [M] */;
  readonly weights: Float32Array /* [M] */;
  /** Tokens of the longest sequence. */
  readonly longest: number;
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
  /** Σ weight·loss of the passes since it was last zeroed, and Σ gradient² for whoever computes it: what a step reads. */
  readonly sums: Tensor /* f32 [2] */;
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
    this.sums = place("f32", 2);
    this.#chunk = o.chunk ?? defaultChunk(decoder.config.vocab, be.actDtype, n);
    this.arena = new Arena(be, arenaBytes);
    if (decoder.params().length) decoder.placeOffload(o.trainTokens ?? o.maxTokens);
  }

  /**
   * Lays out a micro-batch; the device is not touched, and may be at work.
   * @param weights what each token's loss counts for; the batch's own where absent
   * @throws {DataError} when the batch is larger than the pass was planned for
   */
  stage(b: Batch, weights: Float32Array = b.weights): Staged {
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
    const trained = trainedRows(b, weights), m = paddedRows(trained.length, n, maxTokens), { neftune } = this.o;
    return {
      ...{ ids: b.ids, pos: b.pos, cu: b.cu, trained, longest },
      rows: gather(trained, m, (row) => row, Int32Array),
      targets: gather(trained, m, (row) => b.targets[row], Int32Array),
      weights: gather(trained, m, (row) => weights[row], Float32Array),
      noise: neftune ? noiseOf(b, neftune, this.decoder.config.dim) : null,
    };
  }

  /** Uploads a micro-batch. */
  upload(b: Staged, seed: readonly [number, number] = [0, 0]): Inputs {
    const n = b.ids.length, s = b.cu.length - 1, m = b.rows.length;
    const cut = (t: Tensor, size: number): Tensor => ({ ...t, shape: [size] }), full = this.#full;
    const all: Inputs = {
      ...{ ids: cut(full.ids, n), pos: cut(full.pos, n), cu: cut(full.cu, s + 1), noise: cut(full.noise, n) },
      ...{ rows: cut(full.rows, m), targets: cut(full.targets, m), weights: cut(full.weights, m) },
      ...{ loss: cut(full.loss, m), trained: b.trained },
    };
    this.decoder.prepare(b.longest);
    this.be.upload(all.ids, b.ids);
    this.be.upload(all.pos, b.pos);
    this.be.upload(all.cu, b.cu);
    this.be.upload(all.rows, b.rows);
    this.be.upload(all.targets, b.targets);
    this.be.upload(all.weights, b.weights);
    this.be.upload(this.#seed, Int32Array.from(seed));
    if (b.noise) this.be.upload(all.noise, b.noise);
    return all;
  }

  /** Forward, loss and backward: gradients += , sums[0] += . */
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

  /** Forward and loss: sums[0] += , `i.loss` holds each row's -log p, whatever is added to it in training. */
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

  /** sums[0] += Σ weight·loss, as a column dot product. */
  #sum(i: Inputs): void {
    const n = i.loss.shape[0];
    this.be.colDot(slice(this.sums, 0, 1), reshape(i.loss, n, 1), reshape(i.weights, n, 1));
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
