/**
 * The head: logits and loss by chunks of rows, so that the whole N×V never exists. The gradient of the hidden states is
 * made in the same sweep (the idea of Liger's fused linear cross-entropy, Hsu et al. 2024), over the hidden states.
 * @module
 */
import type { LossOpts } from "../core/backend.ts";
import { slice, type Tensor } from "../core/tensor.ts";
import type { Linear } from "./linear.ts";
import type { Run } from "./module.ts";
import { withKeep } from "./run.ts";

/** What the loss needs besides the hidden states. */
export interface LossInput {
  readonly targets: Tensor /* i32 [N] */;
  /** 0: not trained. The gradient is that of Σ weight·loss. */
  readonly weights: Tensor /* f32 [N] */;
  /** Written: unweighted loss of each row, 0 where the weight is 0. */
  readonly loss: Tensor /* f32 [N] */;
  /** Rows whose logits exist at once. */
  readonly chunk: number;
  readonly smoothing?: number;
  readonly zLoss?: number;
}

/** Hidden states to logits, and to loss and gradient. */
export class Head {
  readonly linear: Linear /*[V,D]*/;
  readonly vocab: number;
  readonly softcap: number;

  constructor(linear: Linear, vocab: number, softcap: number) {
    this.linear = linear;
    this.vocab = vocab;
    this.softcap = softcap;
  }

  /** Raw logits, before the soft cap (`softcapLogits`). */
  logits(out: Tensor, /*[M,V]*/ hidden: Tensor, /*[M,D]*/ run: Run): void {
    const mark = run.arena.mark();
    this.linear.forward([out], hidden, withKeep(run, false));
    run.arena.release(mark);
  }

  /** Loss of each row; with `grad`, hidden becomes the gradient of Σ weight·loss, and the head's own gradients are added. */
  loss(hidden: Tensor, /*[N,D] in, out*/ l: LossInput, run: Run, grad: boolean): void {
    const { arena, be } = run, [n] = hidden.shape;
    const o: LossOpts = { softcap: this.softcap, smoothing: l.smoothing ?? 0, zLoss: l.zLoss ?? 0 };
    for (let from = 0; from < n; from += l.chunk) {
      const mark = arena.mark(), to = Math.min(n, from + l.chunk);
      const rows = slice(hidden, from, to), pass = withKeep(run, grad);
      const logits = arena.act(to - from, this.vocab);
      this.linear.forward([logits], rows, pass);
      const part = (t: Tensor) => slice(t, from, to);
      be.crossEntropy(part(l.loss), logits, part(l.targets), part(l.weights), o);
      if (grad) this.#backward(rows, logits, pass);
      arena.release(mark);
    }
  }

  /** hidden rows become their gradient; a trained head needs them first, so they are copied then. */
  #backward(rows: Tensor, dLogits: Tensor, run: Run): void {
    const { weight, lora } = this.linear;
    let x = rows;
    if (weight.param || lora) {
      x = run.arena.act(...rows.shape);
      run.be.copy(x, rows);
    }
    this.linear.backwardParams(this.linear.backwardInput(rows, [dLogits], run, 0), [dLogits], x, run);
  }
}

/** t·tanh(z/t) in place on the host (gemma 2's final soft cap); nothing when t is 0. */
export function softcapLogits(logits: Float32Array, t: number): void {
  if (t === 0) return;
  for (let i = 0; i < logits.length; i++) logits[i] = t * Math.tanh(logits[i] / t);
}

/** Rows a chunk so that its f32 logits stay near 32 MiB: large enough for the GEMM, small beside the model. */
export function defaultChunk(vocab: number): number {
  return Math.max(16, Math.floor((32 * 1048576) / (4 * vocab)));
}
