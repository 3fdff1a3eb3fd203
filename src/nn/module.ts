/**
 * What every layer is: two passes side by side, parameters by name, and what one pass over one batch may use.
 * @module
 */
import type { Arena } from "../core/arena.ts";
import type { Backend, Seqs } from "../core/backend.ts";
import type { Tensor } from "../core/tensor.ts";

/** A trainable tensor: value, gradient and moments are f32. `name` is PEFT's / transformers' full name without prefix. */
export interface Param {
  readonly name: string;
  readonly value: Tensor;
  readonly grad: Tensor;
}

/** Keys and values of earlier tokens, one pair a layer, and which row of it each token belongs to. */
export interface Cache {
  readonly k: readonly Tensor[] /* [S,L,K,d] */;
  readonly v: readonly Tensor[];
  readonly seq: Tensor /* i32 [N] */;
}

/** One pass over one batch: all that modules may read or keep. */
export interface Run {
  readonly be: Backend;
  readonly arena: Arena;
  /** false: forward saves nothing (evaluation, decoding, inside a checkpointed block). */
  readonly keep: boolean;
  readonly pos: Tensor /* i32 [N] */;
  readonly seqs: Seqs;
  /** Set in prefill and decode. */
  readonly cache: Cache | null;
  /** Dropout's seed and step, i32 [2]; null outside training. */
  readonly seed: Tensor | null;
  /** false: adapters are left out, which is the frozen reference model (DPO, GRPO, before/after samples). */
  readonly adapters: boolean;
  /** Last in, first out. */
  save(owner: object, ...t: Tensor[]): void;
  /** @throws {Error} when the order does not mirror the forward */
  load(owner: object): Tensor[];
}

/** A layer. */
export interface Module {
  forward(x: Tensor, run: Run): Tensor;
  /** Consumes what forward saved; adds to parameter gradients; returns dx. */
  backward(dy: Tensor, run: Run): Tensor;
  params(): Param[];
}
