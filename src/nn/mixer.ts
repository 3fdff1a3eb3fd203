/**
 * What attention and feed-forward have in common: linears that share an input, and memory between the passes. A mixer first
 * places what its backward will read, then runs; so temporaries lie above it and can be given back at once.
 * @module
 */
import type { Tensor } from "../core/tensor.ts";
import type { Kept, Linear } from "./linear.ts";
import type { Run } from "./module.ts";

/**
 * How much of a block stays on the device between the passes; each level keeps what the one before keeps, and more. In the
 * order of what recomputing costs a byte saved: at 2048 tokens causal attention has 2·L FLOPs a byte and runs at half the
 * rate of a product, which has K (the model's width) a byte; a norm is one pass over memory.
 */
export const LEVEL = {
  /** The block's input. */
  input: 0,
  /** And attention's result with its lse. */
  attention: 1,
  /** And the residual stream between the halves; then the halves are recomputed apart, each in the memory of one. */
  middle: 2,
  /** And q, k, v. */
  heads: 3,
  /** And gate, up: no product is computed twice. */
  products: 4,
  /** And what a pass over memory makes again: norms' outputs, and q, k behind their norms. */
  all: 5,
} as const;

/** One of them. */
export type Level = (typeof LEVEL)[keyof typeof LEVEL];

/** What stays of a mixer whose forward is run again. */
export interface Held {
  /** Attention's result and lse. */
  readonly result: readonly Tensor[] | null;
  /** What the last linear keeps, so that the backward need not read its input for it. */
  readonly last: Kept | null;
}

/** How a mixer's memory is placed. */
export interface Placing {
  /** Leave out what a pass over memory makes again. */
  readonly lean?: boolean;
  /** Memory that was placed before, for `place` to take in. */
  readonly held?: Held | null;
  /** `held` was written in an earlier forward: do not compute it again. */
  readonly ready?: boolean;
}

/** What stands between two norms. */
export interface Mixer<P> {
  /** Whether anything of it learns. */
  readonly trained: boolean;
  /** Places what stays of it at a level under `products`. @param last whether the last linear's part may stay */
  hold(n: number, level: Level, last: boolean, run: Run): Held;
  /** Places what the backward reads. */
  place(n: number, run: Run, o: Placing): P;
  /** @param out null: only what the backward reads is made */
  forward(out: Tensor | null, x: Tensor, /*[N,D]*/ run: Run, place: P): void;
  /**
   * @param input x, called once and late; it may place memory
   * @param wanted whether dx is
   * @returns dx, in new arena memory, or null
   */
  backward(dy: Tensor, /*[N,D]*/ input: () => Tensor, run: Run, wanted: boolean): Tensor | null;
}

/** Places what linears that share x keep. */
export function reserveAll(linears: readonly Linear[], n: number, run: Run): Kept[] {
  return linears.map((l) => l.reserve(n, run));
}

/** Runs linears that share x, one after the other, over their parts of `outs`. */
export function forwardInto(
  linears: readonly Linear[],
  outs: readonly Tensor[],
  x: Tensor,
  run: Run,
  kept: readonly Kept[],
): void {
  let at = 0;
  linears.forEach((l, i) => l.forward(outs.slice(at, at += l.parts.length), x, run, kept[i]));
}

/** The last linear: forward, or without `out` no more than its backward needs. */
export function forwardLast(l: Linear, out: Tensor | null, x: Tensor, run: Run, kept: Kept, ready: boolean): void {
  if (out) l.forward([out], x, run, kept);
  else if (ready) l.restore(run, kept);
  else l.refill(x, run, kept);
}

/** The mirror of `forwardInto`: dx = the sum over all, if it is wanted, parameters' gradients added. */
export function backwardFrom(
  linears: readonly Linear[],
  dx: Tensor | null,
  dys: readonly Tensor[],
  x: Tensor,
  run: Run,
): void {
  let end = dys.length, beta: 0 | 1 = 0;
  for (const l of linears.toReversed()) {
    const mark = run.arena.mark();
    const part = dys.slice(end - l.parts.length, end);
    l.backwardParams(l.backwardInput(dx, part, run, beta), part, x, run);
    run.arena.release(mark);
    end -= l.parts.length;
    beta = 1;
  }
}
