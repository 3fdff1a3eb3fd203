/**
 * All trained tensors of a model, laid end to end in one slab a group: zeroing the gradients, their norm and an
 * element-wise optimiser are then one call a group instead of one a tensor.
 * @module
 */
import type { Backend } from "../core/backend.ts";
import { numel, type Tensor } from "../core/tensor.ts";
import type { Param } from "./module.ts";

/**
 * Elements a tensor's place is rounded up to. 256 is the block of 8-bit AdamW (Dettmers et al. 2021), so no block
 * spans two tensors, and 1,024 bytes satisfy every device's alignment. Padding stays zero under every optimiser.
 */
export const PARAM_ALIGN = 256;

/** A tensor to be trained. */
export interface ParamSpec {
  readonly name: string;
  readonly shape: readonly number[];
}

/** One group's memory: f32, `n` elements with padding. */
export interface Slab {
  readonly group: string;
  readonly value: Tensor /* f32 [n] */;
  readonly grad: Tensor /* f32 [n] */;
  readonly params: readonly Param[];
}

/** The trained tensors of a model. */
export class Params {
  readonly #byName = new Map<string, Param>();
  readonly slabs: readonly Slab[];

  private readonly be: Backend;

  /**
   * Allocates values and gradients, both zero.
   * @param groupOf puts parameters that share a learning rate and a weight decay together; default: one group
   */
  constructor(be: Backend, specs: readonly ParamSpec[], groupOf: (name: string) => string = () => "main") {
    this.be = be;
    const groups = new Map<string, ParamSpec[]>();
    for (const s of specs) {
      const g = groupOf(s.name);
      groups.set(g, [...(groups.get(g) ?? []), s]);
    }
    this.slabs = [...groups].map(([group, list]) => this.#place(group, list));
  }

  #place(group: string, specs: readonly ParamSpec[]): Slab {
    const sizes = specs.map((s) => s.shape.reduce((a, b) => a * b, 1));
    const padded = sizes.map((n) => Math.ceil(n / PARAM_ALIGN) * PARAM_ALIGN);
    const total = padded.reduce((a, b) => a + b, 0);
    const slab = (): Tensor => {
      const t: Tensor = { handle: this.be.alloc(total * 4), byteOffset: 0, dtype: "f32", shape: [total] };
      this.be.fill(t, 0);
      return t;
    };
    const value = slab(), grad = slab();
    let at = 0;
    const params = specs.map(({ name, shape }, i) => {
      const view = { byteOffset: at * 4, dtype: "f32" as const, shape };
      at += padded[i];
      const p: Param = { name, value: { handle: value.handle, ...view }, grad: { handle: grad.handle, ...view } };
      this.#byName.set(name, p);
      return p;
    });
    return { group, value, grad, params };
  }

  /** By transformers' / PEFT's name without prefix, e.g. `model.layers.0.self_attn.q_proj.lora_A.weight`. */
  get(name: string): Param | undefined {
    return this.#byName.get(name);
  }

  /** All, in slab order. */
  get list(): readonly Param[] {
    return this.slabs.flatMap((s) => s.params);
  }

  /** Number of trained elements, without padding. */
  get count(): number {
    return this.list.reduce((n, p) => n + numel(p.value), 0);
  }

  /** Gives values and gradients back. */
  close(): void {
    for (const s of this.slabs) {
      this.be.free(s.value.handle);
      this.be.free(s.grad.handle);
    }
  }
}
