/** AdamW over parameter slabs: one update a group, with the numbers that change in a device tensor. @module */
import type { Backend } from "../core/backend.ts";
import { numel, type Tensor } from "../core/tensor.ts";
import type { Param } from "../nn/module.ts";
import type { Params, Slab } from "../nn/params.ts";
import type { Optimizer, OptimOptions } from "./types.ts";

/** What a group's learning rate and weight decay are multiplied by. */
export interface GroupFactors {
  readonly lr: number;
  readonly decay: number;
}

/** Factors of the groups that `groupFor` makes; any other name has 1 and 1. */
export type GroupTable = Readonly<Record<string, GroupFactors>>;

/** A view of each parameter's part of a slab-shaped tensor, as `{prefix}.{name}`. */
export function viewsOf(slab: Slab, whole: Tensor, prefix: string): [string, Tensor][] {
  return slab.params.map((
    p,
  ) => [`${prefix}.${p.name}`, { ...whole, byteOffset: p.value.byteOffset, shape: p.value.shape }]);
}

/** Loshchilov & Hutter 2019; adamw_torch. */
export class AdamW implements Optimizer {
  readonly params: readonly Param[];
  readonly #groups: { slab: Slab; m: Tensor; v: Tensor; hyper: Tensor }[];

  private readonly be: Backend;
  private readonly o: OptimOptions;
  private readonly factors: GroupTable;

  constructor(be: Backend, params: Params, o: OptimOptions, factors: GroupTable = {}) {
    this.be = be;
    this.o = o;
    this.factors = factors;
    this.params = params.list;
    const zeros = (n: number): Tensor => {
      const t: Tensor = { handle: be.alloc(n * 4), byteOffset: 0, dtype: "f32", shape: [n] };
      be.fill(t, 0);
      return t;
    };
    this.#groups = params.slabs.map((slab) => {
      const n = numel(slab.value);
      return { slab, m: zeros(n), v: zeros(n), hyper: zeros(8) };
    });
  }

  begin(lr: number, t: number): void {
    const { betas, eps, weightDecay } = this.o;
    // Corrections of the betas as the device has them: 1 - f32(0.999) is 1.3e-5 off 0.001, and the two cancel.
    const [b1, b2] = betas.map(Math.fround);
    for (const { slab, hyper } of this.#groups) {
      const f = this.factors[slab.group] ?? { lr: 1, decay: 1 };
      const values = [lr * f.lr, b1, b2, eps, weightDecay * f.decay, 1 - b1 ** t, 1 - b2 ** t, 1];
      this.be.upload(hyper, Float32Array.from(values));
    }
  }

  step(sumSq: Tensor): void {
    for (const { slab, m, v, hyper } of this.#groups) {
      this.be.clipFactor(hyper, sumSq, this.o.maxGradNorm);
      this.be.adamw(slab.value, slab.grad, m, v, hyper);
    }
  }

  state(): Map<string, Tensor> {
    const views = this.#groups.flatMap(({ slab, m, v }) => [...viewsOf(slab, m, "m"), ...viewsOf(slab, v, "v")]);
    return new Map(views);
  }

  close(): void {
    for (const { m, v, hyper } of this.#groups) for (const t of [m, v, hyper]) this.be.free(t.handle);
  }
}
