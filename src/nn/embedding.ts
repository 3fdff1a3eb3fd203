/** Token embedding: the first layer, whose table is often the head's weight too. @module */
import type { Tensor } from "../core/tensor.ts";
import { type Run, type Slot, valueOf } from "./module.ts";

/** out[n] = scale·table[ids[n]]. */
export class Embedding {
  readonly table: Slot /*[V,D]*/;
  readonly scale: number;

  constructor(table: Slot, scale: number) {
    this.table = table;
    this.scale = scale;
  }

  forward(out: Tensor, /*[N,D]*/ ids: Tensor, /*i32 [N]*/ run: Run): void {
    run.be.embed(out, valueOf(this.table, run), ids, this.scale);
    run.save(this, ids);
  }

  /** Adds to the table's gradient where it is trained. */
  backward(dy: Tensor, /*[N,D]*/ run: Run): void {
    const [ids] = run.load(this);
    if (this.table.param) run.be.embedBwd(this.table.param.grad, dy, ids, this.scale);
  }
}
