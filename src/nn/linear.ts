/**
 * A weight [O,I], perhaps a bias, perhaps an adapter; one output, or several that share the input (a fused projection,
 * whose weight holds the rows of q, k and v one after the other). The base product is never fused with the adapter's
 * here: a backend may do so below.
 * @module
 */
import type { Tensor } from "../core/tensor.ts";
import { doraForward, doraInputGrad, type DoraKept, doraParamGrads, type DoraPending, reserveDora } from "./dora.ts";
import { addAGrad, addBGrad, addInputGrad, addLowRank, dropped, eachPart, type Lora, lowRankGrad } from "./lora.ts";
import { type Run, type Slot, valueOf } from "./module.ts";

/** What a linear keeps between the passes; its input is kept by the caller, who often shares it. */
export type Kept = { readonly kind: "none" } | { readonly kind: "lora"; readonly xa: Tensor } | {
  readonly kind: "dora";
  readonly dora: DoraKept;
};

/** What the input's half of the backward hands to the parameters' half; lives in the arena until both are done. */
export type Pending =
  | { readonly kind: "none" }
  | { readonly kind: "lora"; readonly dyb: Tensor }
  | { readonly kind: "dora"; readonly dora: DoraPending };

/** y_i = x·W_iᵀ + b_i (+ adapter), for each part i of the rows. */
export class Linear {
  readonly name: string;
  readonly weight: Slot /*[O,I]*/;
  readonly bias: Slot /*[O]*/ | null;
  readonly parts: readonly number[];
  readonly lora: Lora | null;

  /**
   * @param name transformers' module name, e.g. `model.layers.0.self_attn.q_proj`
   * @param parts widths of the outputs; they sum to O
   */
  constructor(name: string, weight: Slot, bias: Slot /*[O]*/ | null, parts: readonly number[], lora: Lora | null) {
    this.name = name;
    this.weight = weight;
    this.bias = bias;
    this.parts = parts;
    this.lora = lora;
  }

  /** Places what `forward` keeps, so that the caller can put temporaries above it. `n` rows. */
  reserve(n: number, run: Run): Kept {
    if (!this.lora || !run.adapters) return { kind: "none" };
    if (this.lora.magnitude) return { kind: "dora", dora: reserveDora(this.lora, n, this.parts, run) };
    return { kind: "lora", xa: run.arena.act(n, this.lora.a.value.shape[0]) };
  }

  get trained(): boolean {
    return !!this.weight.param || !!this.bias?.param || !!this.lora;
  }

  /** Whether what it keeps is only as wide as the rank: DoRA keeps its outputs too. */
  get keepsLittle(): boolean {
    return !this.lora?.magnitude;
  }

  /** Hands on what an earlier forward kept. */
  restore(run: Run, kept: Kept): void {
    if (kept.kind === "lora") run.save(this, kept.xa);
  }

  /** Writes each of `outs` [N,O_i]. */
  forward(outs: readonly Tensor[], x: Tensor, /*[N,I]*/ run: Run, kept: Kept = this.reserve(x.shape[0], run)): void {
    if (kept.kind === "dora") {
      doraForward(this, this.lora!, outs, x, kept.dora, run);
      const { xa, norm, c, z } = kept.dora;
      run.save(this, xa, norm, c, ...z);
      return;
    }
    this.applyWeight(outs, x, run, { bias: true });
    if (kept.kind === "lora") {
      const mark = run.arena.mark();
      addLowRank(this.lora!, outs, dropped(this.lora!, x, run), kept.xa, run);
      run.arena.release(mark);
      run.save(this, kept.xa);
    }
  }

  /** What `forward` keeps, without its outputs: the same numbers from the same calls. */
  refill(x: Tensor, /*[N,I]*/ run: Run, kept: Kept = this.reserve(x.shape[0], run)): void {
    const { arena } = run, mark = arena.mark();
    if (kept.kind === "dora") this.forward(this.parts.map((p) => arena.act(x.shape[0], p)), x, run, kept);
    if (kept.kind === "lora") {
      run.be.matmul(kept.xa, dropped(this.lora!, x, run), this.lora!.a.value, null, { transB: true });
      run.save(this, kept.xa);
    }
    arena.release(mark);
  }

  /** dx = (beta 0) or += (beta 1), null: not wanted; dB too. `backwardParams` must follow before the arena is released. */
  backwardInput(dx: Tensor | null, /*[N,I]*/ dys: readonly Tensor[], run: Run, beta: 0 | 1): Pending {
    const { lora } = this;
    if (!lora || !run.adapters) {
      if (dx) this.applyTranspose(dx, dys, run, beta);
      return { kind: "none" };
    }
    if (lora.magnitude) {
      const [xa, norm, c, ...z] = run.load(this);
      return { kind: "dora", dora: doraInputGrad(this, lora, dx, dys, { xa, norm, c, z }, run, beta) };
    }
    const [xa] = run.load(this);
    const dyb = lowRankGrad(lora, dys, run);
    addBGrad(lora, dys, xa, run); // beside the product that reads dys too: a backend may read them once
    if (dx) this.applyTranspose(dx, dys, run, beta), addInputGrad(lora, dx, dyb, run);
    return { kind: "lora", dyb };
  }

  /** Adds to the gradients of adapter, weight and bias, as far as they are trained. */
  backwardParams(p: Pending, dys: readonly Tensor[], x: Tensor, /*[N,I]*/ run: Run): void {
    if (p.kind === "dora") doraParamGrads(this.lora!, p.dora, dys, x, run);
    if (p.kind === "lora") {
      const mark = run.arena.mark();
      addAGrad(this.lora!, p.dyb, dropped(this.lora!, x, run), run);
      run.arena.release(mark);
    }
    if (this.weight.param) {
      eachPart(this.weight.param.grad, dys, (dw, dy) => {
        run.be.matmul(dw, dy, x, null, { transA: true, beta: 1 });
      });
    }
    if (this.bias?.param) eachPart(this.bias.param.grad, dys, (db, dy) => run.be.colSum(db, dy));
  }

  /** outs[i] = x·W_iᵀ (+ b_i). */
  applyWeight(outs: readonly Tensor[], x: Tensor, run: Run, o: { bias: boolean }): void {
    const biases = this.bias && o.bias ? valueOf(this.bias, run) : null;
    const rows: (Tensor | null)[] = outs.map(() => null);
    if (biases) eachPart(biases, outs, (b, _, i) => rows[i] = b);
    eachPart(valueOf(this.weight, run), outs, (w, out, i) => {
      run.be.matmul(out, x, w, rows[i], { transB: true });
    });
  }

  /** dx = or += Σ dys[i]·W_i. */
  applyTranspose(dx: Tensor, dys: readonly Tensor[], run: Run, beta: 0 | 1): void {
    let b = beta;
    eachPart(valueOf(this.weight, run), dys, (w, dy) => {
      run.be.matmul(dx, dy, w, null, { beta: b });
      b = 1;
    });
  }
}
