/**
 * Makes the `Run` of one pass, and the two runs a checkpointed block needs: one that keeps nothing, one that keeps all.
 * @module
 */
import type { Arena } from "../core/arena.ts";
import type { Backend } from "../core/backend.ts";
import type { Tensor } from "../core/tensor.ts";
import type { Cache, Run } from "./module.ts";

/** What a pass is given. Defaults: keep false, no cache, no seed, no noise, adapters on. */
export interface RunInit {
  be: Backend;
  arena: Arena;
  pos: Tensor /* i32 [N] */;
  /** i32 [S+1]; with a cache it is not read, and may be a tensor of any content. */
  cu: Tensor;
  /** Bound on the length of a sequence, in tokens. */
  maxLen: number;
  keep?: boolean;
  cache?: Cache | null;
  seed?: Tensor | null;
  noise?: Tensor | null;
  adapters?: boolean;
}

class PassRun implements Run {
  readonly be: Backend;
  readonly arena: Arena;
  readonly pos: Tensor;
  readonly seqs: { cu: Tensor; maxLen: number };
  readonly cache: Cache | null;
  readonly seed: Tensor | null;
  readonly noise: Tensor | null;
  readonly adapters: boolean;
  #stack: { owner: object; kept: unknown[] }[] = [];

  readonly keep: boolean;

  constructor(init: RunInit, keep: boolean) {
    this.keep = keep;
    this.be = init.be;
    this.arena = init.arena;
    this.pos = init.pos;
    this.seqs = { cu: init.cu, maxLen: init.maxLen };
    this.cache = init.cache ?? null;
    this.seed = init.seed ?? null;
    this.noise = init.noise ?? null;
    this.adapters = init.adapters ?? true;
  }

  save(owner: object, ...kept: unknown[]): void {
    if (this.keep) this.#stack.push({ owner, kept });
  }

  load<T extends unknown[] = Tensor[]>(owner: object): T {
    const top = this.#stack.pop();
    if (top?.owner !== owner) throw new Error("Cannot load saved tensors: backward order does not mirror forward");
    return top.kept as T;
  }
}

/** A run over one batch. */
export function createRun(init: RunInit): Run {
  return new PassRun(init, init.keep ?? false);
}

/** The same pass with an empty stack of its own, keeping or not. */
export function withKeep(run: Run, keep: boolean): Run {
  const { be, arena, pos, seqs, cache, seed, noise, adapters } = run;
  return new PassRun({ be, arena, pos, cu: seqs.cu, maxLen: seqs.maxLen, cache, seed, noise, adapters }, keep);
}
