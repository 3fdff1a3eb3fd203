/** An update rule over parameter slabs, and the optimiser that drives one. @module */
import type { Backend } from "../core/backend.ts";
import { bytesOf, type DType } from "../core/dtype.ts";
import type { Tensor } from "../core/tensor.ts";
import type { Param } from "../nn/module.ts";
import type { Group, Params, Slab } from "../nn/params.ts";
import type { Optimizer, OptimOptions } from "./types.ts";

/** Tensors a rule keeps for one slab, by name. */
export type SlabState = Readonly<Record<string, Tensor>>;

/** What changes from step to step: learning rate and weight decay of the group, number of the step (1-based). */
export interface At {
  readonly lr: number;
  readonly decay: number;
  readonly t: number;
  readonly o: OptimOptions;
}

/** One optimiser's arithmetic. */
export interface Rule {
  /** Allocates what is kept; zero unless the rule says otherwise. */
  place(be: Backend, slab: Slab): SlabState;
  update(be: Backend, slab: Slab, state: SlabState, hyper: Tensor): void;
  /** The eight words of `hyper`; the last is the clip factor's. Default: adamw's. */
  hyper?(at: At): readonly number[];
}

/** A zero tensor with memory of its own. */
export function place(be: Backend, dtype: DType, ...shape: number[]): Tensor {
  const n = shape.reduce((a, b) => a * b, 1);
  const t: Tensor = { handle: be.alloc(bytesOf(dtype, n)), byteOffset: 0, dtype, shape };
  be.fill(t, 0);
  return t;
}

/** adamw's words. The corrections are of the betas as the device has them: 1 - f32(0.999) is 1.3e-5 off 0.001. */
function adamHyper({ lr, decay, t, o }: At): readonly number[] {
  const [b1, b2] = o.betas.map(Math.fround);
  return [lr, b1, b2, o.eps, decay, 1 - b1 ** t, 1 - b2 ** t, 1];
}

/** Runs a rule over all slabs: one update a group, with the numbers that change in a device tensor. */
export class SlabOptimizer implements Optimizer {
  readonly params: readonly Param[];
  readonly #be: Backend;
  readonly #o: OptimOptions;
  readonly #rule: Rule;
  readonly #groups: { slab: Slab; state: SlabState; hyper: Tensor }[];

  constructor(be: Backend, params: Params, o: OptimOptions, rule: Rule) {
    this.#be = be;
    this.#o = o;
    this.#rule = rule;
    this.params = params.list;
    this.#groups = params.slabs.map((slab) => ({ slab, state: rule.place(be, slab), hyper: place(be, "f32", 8) }));
  }

  begin(lr: number, t: number): void {
    for (const { slab: { group }, hyper } of this.#groups) {
      const at = { lr: lr * this.#rateOf(group), decay: this.#decayOf(group), t, o: this.#o };
      this.#be.upload(hyper, Float32Array.from((this.#rule.hyper ?? adamHyper)(at)));
    }
  }

  /** What LoRA+ multiplies the learning rate of a group by (peft's create_loraplus_optimizer). */
  #rateOf(group: Group): number {
    const { loraPlusRatio = 1, loraPlusEmbeddingRate = 1e-6, lr } = this.#o;
    if (loraPlusRatio === 1 || group.startsWith("matrix")) return 1;
    if (!group.startsWith("lora_embedding")) return loraPlusRatio;
    return lr > 0 ? loraPlusEmbeddingRate / lr : 0;
  }

  #decayOf(group: Group): number {
    const { weightDecay, decayVectors = true, loraPlusRatio = 1 } = this.#o, bias = group.startsWith("bias");
    const spared = decayVectors ? bias && loraPlusRatio !== 1 : bias || group.startsWith("norm");
    return spared ? 0 : weightDecay;
  }

  step(sumSq: Tensor): void {
    for (const { slab, state, hyper } of this.#groups) {
      this.#be.clipFactor(hyper, sumSq, this.#o.maxGradNorm);
      this.#rule.update(this.#be, slab, state, hyper);
    }
  }

  state(): Map<string, Tensor> {
    const all = this.#groups.flatMap(({ slab, state }) =>
      Object.entries(state).map(([key, t]): [string, Tensor] => [`${slab.group}.${key}`, t])
    );
    return new Map(all);
  }

  close(): void {
    for (const { state, hyper } of this.#groups) {
      for (const t of [...Object.values(state), hyper]) this.#be.free(t.handle);
    }
  }
}
