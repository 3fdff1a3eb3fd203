/**
 * Gradient checkpointing (Chen et al. 2016): of a block only the input is kept, and the backward runs the block's forward
 * again, without the last product where its result is not needed. The recomputed numbers are the first ones to the bit,
 * since the same calls see the same inputs.
 * @module
 */
import type { Tensor } from "../core/tensor.ts";
import type { Block } from "./block.ts";
import type { Run } from "./module.ts";
import { withKeep } from "./run.ts";

/** A block that keeps only its input. */
export class Checkpointed {
  readonly block: Block;

  constructor(block: Block) {
    this.block = block;
  }

  forward(x: Tensor, /*[N,D]*/ run: Run): Tensor {
    if (!run.keep) return this.block.forward(x, run);
    const out = run.arena.act(...x.shape);
    run.be.copy(out, x);
    this.block.forward(out, withKeep(run, false));
    run.save(this, x);
    return out;
  }

  backward(d: Tensor, /*[N,D]*/ run: Run): void {
    const mark = run.arena.mark();
    const [x] = run.load(this);
    const again = withKeep(run, true);
    this.block.refill(x, again);
    this.block.backward(d, again);
    run.arena.release(mark);
  }
}
