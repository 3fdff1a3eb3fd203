/**
 * Logits of a loaded model for whole texts, without a cache, and its greedy answers: what two models are compared by.
 * @module
 */
import { Arena } from "../core/arena.ts";
import type { Backend } from "../core/backend.ts";
import { RecordingBackend } from "../core/recording.ts";
import { slice, type Tensor } from "../core/tensor.ts";
import { DecoderRunner } from "../infer/runner.ts";
import type { Model } from "../models/mod.ts";
import { softcapLogits } from "../nn/head.ts";
import { createRun } from "../nn/run.ts";

/** The inputs of a pass of at most `length` tokens, in one slab. */
interface Inputs {
  readonly handle: number;
  readonly ids: Tensor;
  readonly pos: Tensor;
  readonly cu: Tensor;
}

function placeInputs(be: Backend, length: number): Inputs {
  const row = Math.ceil(length / 64) * 256;
  const handle = be.alloc(2 * row + 256);
  const at = (byteOffset: number, n: number): Tensor => ({ handle, byteOffset, dtype: "i32", shape: [n] });
  return { handle, ids: at(0, length), pos: at(row, length), cu: at(2 * row, 2) };
}

/** One pass; logits f32 [N,V], or [1,V] of the last token. */
function pass(model: Model, be: Backend, arena: Arena, inputs: Inputs, n: number, all: boolean): Tensor {
  const { ids, pos, cu } = inputs;
  const run = createRun({ be, arena, pos: slice(pos, 0, n), cu, maxLen: n });
  const hidden = model.decoder.forward(slice(ids, 0, n), run);
  const logits = model.decoder.logits(all ? hidden : slice(hidden, n - 1, n), run);
  if (logits.dtype === "f32") return logits;
  const wide = arena.tensor("f32", logits.shape[0]!, model.config.vocab);
  be.copy(wide, logits);
  return wide;
}

/** Asks one model for logits; `close` gives its memory back and leaves the model alone. */
export class Prober {
  readonly length: number;
  readonly #model: Model;
  readonly #inputs: Inputs;
  readonly #arena: Arena;

  /**
   * @param length longest text in tokens
   * @throws {MemoryError} when the device has not enough memory for one pass
   */
  constructor(model: Model, length: number) {
    this.#model = model;
    this.length = length;
    const recording = new RecordingBackend({ actDtype: model.be.actDtype });
    const planned = new Arena(recording, Number.MAX_SAFE_INTEGER);
    pass(model, recording, planned, placeInputs(recording, length), length, true);
    this.#inputs = placeInputs(model.be, length);
    this.#arena = new Arena(model.be, planned.peakBytes);
    model.decoder.prepare(length);
  }

  async #run(ids: ArrayLike<number>, all: boolean): Promise<Float32Array> {
    const { be, config } = this.#model;
    const n = ids.length;
    be.upload(slice(this.#inputs.ids, 0, n), Int32Array.from(ids));
    be.upload(slice(this.#inputs.pos, 0, n), Int32Array.from({ length: n }, (_, i) => i));
    be.upload(this.#inputs.cu, Int32Array.of(0, n));
    this.#arena.release(0);
    const logits = pass(this.#model, be, this.#arena, this.#inputs, n, all);
    const out = new Float32Array((all ? n : 1) * config.vocab);
    await be.download(logits, out);
    softcapLogits(out, config.logitSoftcap);
    return out;
  }

  /** Logits after each token, f32 [N,V]. */
  logits(ids: ArrayLike<number>): Promise<Float32Array> {
    return this.#run(ids, true);
  }

  /** Logits after the last token, f32 [V]. */
  last(ids: ArrayLike<number>): Promise<Float32Array> {
    return this.#run(ids, false);
  }

  /** Continues greedily, over a cache, until one of `ends` or the length is reached. @returns the new ids, the end included */
  async continue(ids: ArrayLike<number>, ends: ReadonlySet<number>): Promise<number[]> {
    const runner = new DecoderRunner(this.#model, { slots: 1, contextLength: this.length, stepTokens: ids.length });
    const out: number[] = [];
    try {
      for (let step = Int32Array.from(ids), at = 0; ids.length + out.length < this.length;) {
        const pos = Int32Array.from(step, (_, i) => at + i);
        const rows = Int32Array.of(step.length - 1);
        const next = argmax(await runner.forward({ ids: step, pos, seq: new Int32Array(step.length), rows }));
        out.push(next);
        if (ends.has(next)) break;
        at += step.length;
        step = Int32Array.of(next);
      }
      return out;
    } finally {
      runner.close();
    }
  }

  close(): void {
    this.#arena.close();
    this.#model.be.free(this.#inputs.handle);
  }
}

/** Place of the largest value; the first of equals. */
export function argmax(x: ArrayLike<number>): number {
  let best = 0;
  for (let i = 1; i < x.length; i++) if (x[i]! > x[best]!) best = i;
  return best;
}
