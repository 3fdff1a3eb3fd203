/** Token embedding: the first layer, whose table is often the head's weight too. @module */
import type { Tensor } from "../core/tensor.ts";
import { type Run, type Slot, valueOf } from "./module.ts";

/** The generator's stream of the noise, apart from the linears' (dropout counts them from 0). */
const NOISE_STREAM = 0x80000000;

/**
 * out[n] = scale·table[ids[n]], in training with NEFTune's uniform noise on it (Jain et al. 2023), whose gradient is that
 * of the sum: nothing to undo.
 */
export class Embedding {
  readonly table: Slot /*[V,D]*/;
  readonly scale: number;

  constructor(table: Slot, scale: number) {
    this.table = table;
    this.scale = scale;
  }

  forward(out: Tensor, /*[N,D]*/ ids: Tensor, /*i32 [N]*/ run: Run): void {
    run.be.embed(out, valueOf(this.table, run), ids, this.scale);
    if (run.noise && run.seed) run.be.noise(out, out, run.noise, run.seed, NOISE_STREAM);
    run.save(this, ids);
  }

  /** Adds to the table's gradient where it is trained. */
  backward(dy: Tensor, /*[N,D]*/ run: Run): void {
    const [ids] = run.load(this);
    if (this.table.param) run.be.embedBwd(this.table.param.grad, dy, ids, this.scale);
  }
}
