/**
 * The low-rank update of LoRA (Hu et al. 2021): y += s·(x·Aᵀ)·Bᵀ, always through the R-wide middle, and its backward.
 * Several outputs may share A, each taking its rows of B: that is LoRA on a fused projection (phi3's qkv_proj).
 * @module
 */
import { slice, type Tensor } from "../core/tensor.ts";
import type { Param, Run } from "./module.ts";

/** One linear's adapter. */
export interface Lora {
  readonly a: Param /* [R,I] */;
  readonly b: Param /* [O,R] */;
  /** DoRA's m (Liu et al. 2024); null: plain LoRA. */
  readonly magnitude: Param /* [O] */ | null;
  /** alpha/R, or alpha/√R (rsLoRA, Kalajdzievski 2023). */
  readonly scale: number;
  /** Probability with which an element of x is dropped on the way to A; 0 = off. */
  readonly dropout: number;
  /** The counter-based generator's stream: one a linear. */
  readonly stream: number;
}

/** True when this run drops elements on the way to A. */
export function drops(lora: Lora, run: Run): boolean {
  return lora.dropout > 0 && run.seed !== null;
}

/** x with dropped elements, in new arena memory, or x itself when nothing is dropped. */
export function dropped(lora: Lora, x: Tensor, /*[N,I]*/ run: Run): Tensor {
  if (!drops(lora, run)) return x;
  const out = run.arena.act(...x.shape);
  run.be.dropout(out, x, run.seed!, lora.stream, lora.dropout);
  return out;
}

/** xa = x·Aᵀ; outs[i] += s·xa·B[i]ᵀ. x is already dropped. */
export function addLowRank(lora: Lora, outs: readonly Tensor[], x: Tensor, xa: Tensor, /*[N,R]*/ run: Run): void {
  run.be.matmul(xa, x, lora.a.value, null, { transB: true });
  eachPart(lora.b.value, outs, (b, out) => {
    run.be.matmul(out, xa, b, null, { transB: true, alpha: lora.scale, beta: 1 });
  });
}

/** dyb = s·Σ dys[i]·B[i] [N,R], which both halves of the backward use. */
export function lowRankGrad(lora: Lora, dys: readonly Tensor[], run: Run): Tensor {
  const dyb = run.arena.act(dys[0].shape[0], lora.a.value.shape[0]);
  let beta: 0 | 1 = 0;
  eachPart(lora.b.value, dys, (b, dy) => {
    run.be.matmul(dyb, dy, b, null, { alpha: lora.scale, beta });
    beta = 1;
  });
  return dyb;
}

/** dx += dyb·A, through the dropout's mask when there is one. */
export function addInputGrad(lora: Lora, dx: Tensor, /*+= [N,I]*/ dyb: Tensor, run: Run): void {
  if (!drops(lora, run)) {
    run.be.matmul(dx, dyb, lora.a.value, null, { beta: 1 });
    return;
  }
  const mark = run.arena.mark();
  const full = run.arena.act(...dx.shape), masked = run.arena.act(...dx.shape);
  run.be.matmul(full, dyb, lora.a.value, null, {});
  run.be.dropout(masked, full, run.seed!, lora.stream, lora.dropout);
  run.be.add(dx, dx, masked);
  run.arena.release(mark);
}

/** dA += dybᵀ·x. x is already dropped. */
export function addAGrad(lora: Lora, dyb: Tensor, x: Tensor, run: Run): void {
  run.be.matmul(lora.a.grad, dyb, x, null, { transA: true, beta: 1 });
}

/** dB[i] += s·dys[i]ᵀ·xa. */
export function addBGrad(lora: Lora, dys: readonly Tensor[], xa: Tensor, run: Run): void {
  eachPart(lora.b.grad, dys, (db, dy) => {
    run.be.matmul(db, dy, xa, null, { transA: true, alpha: lora.scale, beta: 1 });
  });
}

/** Calls `f` with the rows of `t` that belong to each part; a part's number of rows is the width of its tensor. */
export function eachPart(
  t: Tensor,
  parts: readonly Tensor[],
  f: (rows: Tensor, part: Tensor, i: number) => void,
): void {
  let from = 0;
  parts.forEach((part, i) => {
    const width = part.shape[part.shape.length - 1];
    f(parts.length === 1 ? t : slice(t, from, from + width), part, i);
    from += width;
  });
}
