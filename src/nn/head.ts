/**
 * The head: logits and loss by chunks of rows, so that the whole N×V never exists; the gradient of the hidden states is
 * made in the same sweep (the idea of Liger's fused linear cross-entropy, Hsu et al. 2024). Only rows that are trained are
 * looked at: of an instruction's prompt no logit is ever computed.
 * @module
 */
import type { LossOpts } from "../core/backend.ts";
import { bytesOf, type Dense } from "../core/dtype.ts";
import { slice, type Tensor } from "../core/tensor.ts";
import type { Linear } from "./linear.ts";
import type { Run } from "./module.ts";
import { withKeep } from "./run.ts";

/** What the loss needs besides the hidden states: M of their N rows, each at most once with a weight other than 0. */
export interface LossInput {
  /** Which rows. */
  readonly rows: Tensor /* i32 [M] */;
  readonly targets: Tensor /* i32 [M] */;
  /** 0: not trained (padding). The gradient is that of Σ weight·loss. */
  readonly weights: Tensor /* f32 [M] */;
  /** Written: unweighted loss of each row, 0 where the weight is 0. */
  readonly loss: Tensor /* f32 [M] */;
  /** Most rows whose logits exist at once. */
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

  /**
   * Loss of each row. With `grad`, adds the head's own gradients and returns that of Σ weight·loss in the hidden states
   * (their own memory where activations are not f32).
   */
  loss(hidden: Tensor, /*[N,D]*/ l: LossInput, run: Run, grad: boolean): Tensor | null {
    const { arena, be } = run, [m] = l.rows.shape, start = arena.mark();
    const dHidden = grad ? arena.tensor("f32", ...hidden.shape) : null;
    if (dHidden) be.fill(dHidden, 0);
    const size = evenly(m, Math.ceil(m / l.chunk)); // a short last chunk would read all of the table for a few rows
    for (let from = 0; from < m; from += size) {
      const mark = arena.mark();
      this.#chunk(hidden, dHidden, cut(l, from, Math.min(m, from + size)), run);
      arena.release(mark);
    }
    if (!dHidden || be.actDtype === "f32") return dHidden;
    be.copy(hidden, dHidden);
    arena.release(start);
    return hidden;
  }

  #chunk(hidden: Tensor, dHidden: Tensor | null, l: LossInput, run: Run): void {
    const { arena, be } = run, [m] = l.rows.shape, d = hidden.shape[1], pass = withKeep(run, dHidden !== null);
    const x = arena.act(m, d), logits = arena.act(m, this.vocab);
    be.embed(x, hidden, l.rows, 1); // a table's rows by number
    this.linear.forward([logits], x, pass);
    const o: LossOpts = { softcap: this.softcap, smoothing: l.smoothing ?? 0, zLoss: l.zLoss ?? 0 };
    be.crossEntropy(l.loss, logits, l.targets, l.weights, o);
    if (!dHidden) return;
    const dx = arena.act(m, d);
    this.linear.backwardParams(this.linear.backwardInput(dx, [logits], pass, 0), [logits], x, pass);
    be.embedBwd(dHidden, dx, l.rows, 1);
  }
}

/** Rows [from, to) of it. */
function cut(l: LossInput, from: number, to: number): LossInput {
  const part = (t: Tensor) => slice(t, from, to);
  return { ...l, rows: part(l.rows), targets: part(l.targets), weights: part(l.weights), loss: part(l.loss) };
}

/** t·tanh(z/t) in place on the host (gemma 2's final soft cap); nothing when t is 0. */
export function softcapLogits(logits: Float32Array, t: number): void {
  if (t === 0) return;
  for (let i = 0; i < logits.length; i++) logits[i] = t * Math.tanh(logits[i] / t);
}

/** Rows a chunk when `m` of them are cut into `chunks` of nearly one size. */
const evenly = (m: number, chunks: number): number => Math.ceil(m / Math.max(1, chunks));

/**
 * Rows a chunk, for passes of up to `tokens`. On a CPU its f32 logits stay near 64 MiB: small beside the model, and large enough for
 * the GEMM (decoding a table of 128,256 rows is a tenth of the work when 65 rows meet it). A GPU, whose activations are narrower,
 * needs some hundred rows to be busy while such a table goes by: 256 MiB.
 */
export function defaultChunk(vocab: number, act: Dense, tokens: number): number {
  const bytes = act === "f32" ? 2 ** 26 : 2 ** 28;
  return Math.max(16, evenly(tokens, Math.round(tokens * bytesOf(act, vocab) / bytes)));
}
