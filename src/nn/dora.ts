/**
 * DoRA (Liu et al. 2024): y = c∘(W·x + s·B·A·x) + bias with c = m / ‖W + s·B·A‖ by row of the weight. As in peft and in
 * the paper's §4.3 the norm counts as a constant in the backward. With dropout the adapter and its share of W see the
 * dropped input x', and the rest of W the whole: y = c∘(W + s·B·A)·x' + W·(x - x') + bias, which is peft's form.
 * @module
 */
import type { Tensor } from "../core/tensor.ts";
import type { Linear } from "./linear.ts";
import {
  addAGrad,
  addBGrad,
  addInputGrad,
  addLowRank,
  dropped,
  drops,
  eachPart,
  type Lora,
  lowRankGrad,
} from "./lora.ts";
import { type Run, valueOf } from "./module.ts";

/** What DoRA keeps between the passes. */
export interface DoraKept {
  readonly xa: Tensor /* [N,R] */;
  readonly norm: Tensor /* f32 [O] */;
  readonly c: Tensor /* f32 [O] */;
  /** (W + s·B·A)·x', before the column scale; the outputs themselves when nothing is kept. */
  readonly z: readonly Tensor[] /* [N,O_i] */;
}

/** Places it. */
export function reserveDora(lora: Lora, n: number, parts: readonly number[], run: Run): DoraKept {
  const { arena } = run, [r] = lora.a.value.shape, [o] = lora.b.value.shape;
  return {
    xa: arena.act(n, r),
    norm: arena.tensor("f32", o),
    c: arena.tensor("f32", o),
    z: run.keep ? parts.map((p) => arena.act(n, p)) : [],
  };
}

/** Writes outs. */
export function doraForward(
  lin: Linear,
  lora: Lora,
  outs: readonly Tensor[],
  x: Tensor,
  kept: DoraKept,
  run: Run,
): void {
  const { be, arena } = run, mark = arena.mark();
  be.rowNorm(kept.norm, valueOf(lin.weight, run), lora.a.value, lora.b.value, lora.scale);
  be.divide(kept.c, lora.magnitude!.value, kept.norm);
  const mask = drops(lora, run);
  const z = run.keep ? kept.z : mask ? outs.map((o) => arena.act(...o.shape)) : outs;
  const xd = dropped(lora, x, run);
  lin.applyWeight(z, xd, run, { bias: false });
  addLowRank(lora, z, xd, kept.xa, run);
  if (mask) {
    const rest = arena.act(...x.shape);
    be.scale(rest, xd, -1);
    be.add(rest, rest, x);
    lin.applyWeight(outs, rest, run, { bias: true });
    eachPart(kept.c, outs, (c, out, i) => {
      const t = run.keep ? arena.act(...out.shape) : z[i];
      be.scaleCols(t, z[i], c);
      be.add(out, out, t);
    });
  } else {
    eachPart(kept.c, outs, (c, out, i) => be.scaleCols(out, z[i], c));
    addBias(lin, outs, run);
  }
  arena.release(mark);
}

/** Between the two halves of the backward. */
export interface DoraPending {
  readonly kept: DoraKept;
  readonly dyb: Tensor /* [N,R] */;
  /** c∘dy. */
  readonly dz: readonly Tensor[];
}

/** dx = (beta 0) or += (beta 1), null: not wanted; leaves what the parameters' half needs in the arena. */
export function doraInputGrad(
  lin: Linear,
  lora: Lora,
  dx: Tensor | null,
  dys: readonly Tensor[],
  kept: DoraKept,
  run: Run,
  beta: 0 | 1,
): DoraPending {
  const { be, arena } = run;
  const dz = dys.map((dy) => arena.act(...dy.shape));
  eachPart(kept.c, dys, (c, dy, i) => be.scaleCols(dz[i], dy, c));
  const dyb = lowRankGrad(lora, dz, run);
  if (!dx) return { kept, dyb, dz };
  if (!drops(lora, run)) {
    lin.applyTranspose(dx, dz, run, beta);
    addInputGrad(lora, dx, dyb, run);
    return { kept, dyb, dz };
  }
  // x' = drop(x) feeds c∘(W + sBA); x - x' feeds W: dx = W'dy + drop(W'dz + A'dyb - W'dy).
  const mark = arena.mark();
  const rest = arena.act(...dx.shape), inner = arena.act(...dx.shape), masked = arena.act(...dx.shape);
  lin.applyTranspose(rest, dys, run, 0);
  be.scale(inner, rest, -1);
  lin.applyTranspose(inner, dz, run, 1);
  be.matmul(inner, dyb, lora.a.value, null, { beta: 1 });
  be.dropout(masked, inner, run.seed!, lora.stream, lora.dropout);
  be.add(rest, rest, masked);
  if (beta) be.add(dx, dx, rest);
  else be.copy(dx, rest);
  arena.release(mark);
  return { kept, dyb, dz };
}

/** dA, dB, dm, each +=. */
export function doraParamGrads(lora: Lora, p: DoraPending, dys: readonly Tensor[], x: Tensor, run: Run): void {
  const { be, arena } = run, mark = arena.mark();
  addAGrad(lora, p.dyb, dropped(lora, x, run), run);
  addBGrad(lora, p.dz, p.kept.xa, run);
  const [o] = p.kept.c.shape;
  const dc = arena.tensor("f32", o), dm = arena.tensor("f32", o);
  be.fill(dc, 0);
  eachPart(dc, dys, (part, dy, i) => be.colDot(part, dy, p.kept.z[i]));
  be.divide(dm, dc, p.kept.norm);
  be.add(lora.magnitude!.grad, lora.magnitude!.grad, dm);
  arena.release(mark);
}

/** outs += bias, as the outer product of a column of ones with the bias: rare, so no op of its own. */
function addBias(lin: Linear, outs: readonly Tensor[], run: Run): void {
  if (!lin.bias) return;
  const { be, arena } = run, mark = arena.mark();
  const ones = arena.act(outs[0].shape[0], 1);
  be.fill(ones, 1);
  eachPart(valueOf(lin.bias, run), outs, (b, out) => {
    be.matmul(out, ones, { ...b, shape: [1, b.shape[0]] }, null, { beta: 1 });
  });
  arena.release(mark);
}
