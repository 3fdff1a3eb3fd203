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

/**
 * Which parameters an optimiser may treat alike: LoRA's B and the adapter of an embedding (learning rates of their own in
 * LoRA+), DoRA's magnitudes, norms and biases (often without weight decay), all else; and in each, the tensors whose
 * moments 8-bit AdamW keeps in f32: small ones and embedding tables (bitsandbytes' min_8bit_size; transformers' Trainer).
 */
export type Group = `${"matrix" | "lora_b" | "lora_embedding" | "magnitude" | "norm" | "bias"}${"" | ".f32"}`;

/** Fewest elements of a tensor whose moments 8-bit AdamW stores in 8 bits (bitsandbytes, min_8bit_size). */
export const SMALL = 4096;

/** The group of a parameter. */
export function groupOf({ name, shape }: ParamSpec): Group {
  const exact = shape.reduce((a, b) => a * b, 1) < SMALL || name.includes("embed_tokens"), suffix = exact ? ".f32" : "";
  if (name.includes(".lora_magnitude_vector")) return `magnitude${suffix}`;
  if (name.includes(".lora_embedding_")) return `lora_embedding${suffix}`;
  if (shape.length === 1) return `${name.endsWith(".bias") ? "bias" : "norm"}${suffix}`;
  return name.includes(".lora_B.") ? `lora_b${suffix}` : `matrix${suffix}`;
}

/** One group's memory: f32, `n` elements with padding. */
export interface Slab {
  readonly group: Group;
  readonly value: Tensor /* f32 [n] */;
  readonly grad: Tensor /* f32 [n] */;
  readonly params: readonly Param[];
}

/** The trained tensors of a model. */
export class Params {
  readonly #byName = new Map<string, Param>();
  readonly slabs: readonly Slab[];

  private readonly be: Backend;

  /** Allocates values and gradients, both zero. */
  constructor(be: Backend, specs: readonly ParamSpec[]) {
    this.be = be;
    const groups = new Map<Group, ParamSpec[]>();
    for (const s of specs) {
      const g = groupOf(s);
      groups.set(g, [...(groups.get(g) ?? []), s]);
    }
    this.slabs = [...groups].map(([group, list]) => this.#place(group, list));
  }

  #place(group: Group, specs: readonly ParamSpec[]): Slab {
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
