/**
 * The queue's runner over a decoder: one pass computes all tokens of a step, writes their keys and values into the
 * cache, and brings the logits of the wanted rows to the host. Prefill and decoding are the same pass.
 * @module
 */
import { Arena } from "../core/arena.ts";
import type { Backend } from "../core/backend.ts";
import { bytesOf, type Dense } from "../core/dtype.ts";
import { MemoryError } from "../core/errors.ts";
import { RecordingBackend } from "../core/recording.ts";
import { slice, type Tensor } from "../core/tensor.ts";
import type { Model } from "../models/mod.ts";
import { softcapLogits } from "../nn/head.ts";
import type { Cache } from "../nn/module.ts";
import { createRun } from "../nn/run.ts";
import type { Runner, Step } from "./queue.ts";

/** How much a runner computes and keeps at once, in tokens but for `slots`. */
export interface RunnerOptions {
  /** Sequences. */
  slots: number;
  /** Longest prompt with its answer. */
  contextLength: number;
  /** The most tokens of a step; at least `slots`. */
  stepTokens: number;
}

/** Bytes a runner takes beside the weights. */
export interface RunnerMemory {
  cache: number;
  step: number;
}

/** The inputs of a pass, as long as the longest. */
interface Inputs {
  handle: number;
  ids: Tensor;
  pos: Tensor;
  seq: Tensor;
  rows: Tensor;
  /** Sequence bounds, which a pass with a cache does not read. */
  cu: Tensor;
}

/** Planned from the model's shapes alone, before anything is allocated. */
export function planRunner(model: Model, o: RunnerOptions): RunnerMemory {
  const { config: c, be } = model;
  const rows = o.slots * o.contextLength;
  const cache = 2 * c.layers * bytesOf(be.actDtype as Dense, rows * c.kvHeads * c.headDim);
  const recording = new RecordingBackend({ actDtype: be.actDtype });
  const arena = new Arena(recording, Number.MAX_SAFE_INTEGER);
  const inputs = placeInputs(recording, o);
  pass(model, recording, arena, inputs, placeCache(recording, model, o), o.stepTokens, o.slots);
  return { cache, step: arena.peakBytes };
}

/** Runs a model for a queue. */
export class DecoderRunner implements Runner {
  readonly slots: number;
  readonly contextLength: number;
  readonly stepTokens: number;
  readonly ropeTurn: number;
  readonly #inputs: Inputs;
  readonly #cache: Omit<Cache, "seq">;
  readonly #arena: Arena;
  readonly #logits: Float32Array;
  readonly #model: Model;

  /**
   * Allocates cache and step memory.
   * @throws {MemoryError} when the device has not that much, with both numbers
   */
  constructor(model: Model, o: RunnerOptions) {
    this.#model = model;
    const { be, config } = model;
    this.slots = o.slots;
    this.contextLength = o.contextLength;
    this.stepTokens = Math.max(o.stepTokens, o.slots);
    const sizes = { slots: this.slots, contextLength: this.contextLength, stepTokens: this.stepTokens };
    const { cache, step } = planRunner(model, sizes);
    const { limit, active } = be.memory();
    if (limit > 0 && active + cache + step > limit) {
      throw new MemoryError(
        `Cannot serve ${o.slots} requests of ${o.contextLength} tokens: ${mib(cache)} of cache and ${
          mib(step)
        } a step are ` +
          `needed, ${mib(limit - active)} are left; lower the context length or the number of parallel requests`,
        cache + step,
        limit - active,
      );
    }
    this.#inputs = placeInputs(be, sizes);
    this.#cache = placeCache(be, model, sizes);
    this.#arena = new Arena(be, step);
    this.#logits = new Float32Array(this.slots * config.vocab);
    this.ropeTurn = Math.min(config.ropeTurn, o.contextLength);
  }

  async forward(step: Step): Promise<Float32Array> {
    const { be, config, decoder } = this.#model, N = step.ids.length, R = step.rows.length;
    const { contextLength, ropeTurn } = this, { length = contextLength } = step;
    decoder.prepare(length > ropeTurn ? contextLength : ropeTurn);
    for (const name of ["ids", "pos", "seq"] as const) be.upload(slice(this.#inputs[name], 0, N), step[name]);
    if (R > 0) be.upload(slice(this.#inputs.rows, 0, R), step.rows);
    this.#arena.release(0);
    const out = pass(this.#model, be, this.#arena, this.#inputs, this.#cache, N, R);
    const logits = this.#logits.subarray(0, R * config.vocab);
    if (out) await be.download(out, logits);
    else await be.fence();
    softcapLogits(logits, config.logitSoftcap);
    return logits;
  }

  share(from: number, to: number, tokens: number): void {
    const { be } = this.#model;
    const rows = (t: Tensor, /*[S,L,K,d]*/ slot: number): Tensor /*[tokens,K,d]*/ =>
      slice({ ...slice(t, slot, slot + 1), shape: t.shape.slice(1) }, 0, tokens);
    for (const t of [...this.#cache.k, ...this.#cache.v]) be.copy(rows(t, to), rows(t, from));
  }

  close(): void {
    const { be } = this.#model;
    this.#arena.close();
    be.free(this.#inputs.handle);
    for (const t of [...this.#cache.k, ...this.#cache.v]) be.free(t.handle);
  }
}

/** N tokens through the model; logits f32 [R,V] of the wanted rows, null when there are none. */
function pass(
  model: Model,
  be: Backend,
  arena: Arena,
  inputs: Inputs,
  cache: Omit<Cache, "seq">,
  N: number,
  R: number,
): Tensor | null {
  const pos = slice(inputs.pos, 0, N), seq = slice(inputs.seq, 0, N);
  const run = createRun({ be, arena, pos, cu: inputs.cu, maxLen: N, cache: { ...cache, seq } });
  const hidden = model.decoder.forward(slice(inputs.ids, 0, N), run);
  if (R === 0) return null;
  // Taking rows out of a table by number is what an embedding does.
  const wanted = arena.act(R, model.config.dim);
  be.embed(wanted, hidden, slice(inputs.rows, 0, R), 1);
  const logits = model.decoder.logits(wanted, run);
  if (logits.dtype === "f32") return logits;
  const wide = arena.tensor("f32", R, model.config.vocab);
  be.copy(wide, logits);
  return wide;
}

function placeInputs(be: Backend, o: RunnerOptions): Inputs {
  // Each list starts at a multiple of 256 bytes, which every device is content with.
  const row = Math.ceil(o.stepTokens / 64) * 256;
  const handle = be.alloc(5 * row);
  const at = (i: number, n: number): Tensor => ({ handle, byteOffset: i * row, dtype: "i32", shape: [n] });
  const n = o.stepTokens;
  const cu = at(4, 2);
  be.upload(cu, Int32Array.of(0, n));
  return { handle, ids: at(0, n), pos: at(1, n), seq: at(2, n), rows: at(3, n), cu };
}

function placeCache(be: Backend, { config: c }: Model, o: RunnerOptions): Omit<Cache, "seq"> {
  const shape = [o.slots, o.contextLength, c.kvHeads, c.headDim];
  const bytes = bytesOf(be.actDtype as Dense, shape.reduce((a, b) => a * b, 1));
  const layers = () =>
    Array.from({ length: c.layers }, (): Tensor => ({
      handle: be.alloc(bytes),
      byteOffset: 0,
      dtype: be.actDtype,
      shape,
    }));
  return { k: layers(), v: layers() };
}

function mib(bytes: number): string {
  return `${(bytes / 1048576).toFixed(1)} MiB`;
}
