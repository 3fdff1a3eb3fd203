/**
 * What every layer is: two passes side by side, and what one pass over one batch may use. A layer writes into memory its
 * caller chose (`out`, `dx`), because in a bump arena the order of allocation decides what can be given back early.
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
  /** Dropout's and noise's seed and step, i32 [2]; null outside training. */
  readonly seed: Tensor | null;
  /** How much uniform noise each row of the embedding gets (NEFTune); null: none. */
  readonly noise: Tensor /* f32 [N] */ | null;
  /** false: adapters are left out, which is the frozen reference model (DPO, GRPO, before/after samples). */
  readonly adapters: boolean;
  /** Last in, first out. */
  save(owner: object, ...kept: unknown[]): void;
  /** @throws {Error} when the order does not mirror the forward */
  load<T extends unknown[] = Tensor[]>(owner: object): T;
}

/** A layer of one input and one output. */
export interface Module {
  /** Writes `out`; with `run.keep` also saves what `backward` needs. */
  forward(out: Tensor, x: Tensor, run: Run): void;
  /** Consumes what forward saved; adds to parameter gradients; writes (=) or adds to (+=) dx as the layer says. */
  backward(dx: Tensor, dy: Tensor, run: Run): void;
}

/** A weight that is frozen, trained, or (modules_to_save) both: then the frozen one serves runs without adapters. */
export interface Slot {
  readonly frozen: Tensor | null;
  readonly param: Param | null;
}

/** The tensor this run reads. */
export function valueOf(s: Slot, run: Run): Tensor {
  if (s.param && (run.adapters || !s.frozen)) return s.param.value;
  return s.frozen!;
}
