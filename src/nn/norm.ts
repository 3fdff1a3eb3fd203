/** RMS or layer norm over the last axis. @module */
import type { NormOpts } from "../core/backend.ts";
import { reshape, rowsOf, type Tensor } from "../core/tensor.ts";
import { type Module, type Run, type Slot, valueOf } from "./module.ts";

/** out = norm(x)·w (+ b). backward adds (+=) to dx, the residual stream's gradient. */
export class Norm implements Module {
  readonly w: Slot /*[D]*/;
  readonly b: Slot | null;
  readonly opts: NormOpts;

  constructor(w: Slot, b: Slot | null, opts: NormOpts) {
    this.w = w;
    this.b = b;
    this.opts = opts;
  }

  get trained(): boolean {
    return !!this.w.param || !!this.b?.param;
  }

  /** Places the statistics of x [..,D]. */
  reserve(x: Tensor, run: Run): Tensor {
    return run.arena.tensor("f32", rowsOf(x), 2);
  }

  forward(out: Tensor, /*[..,D]*/ x: Tensor, /*[..,D]*/ run: Run, stat: Tensor = this.reserve(x, run)): void {
    run.be.norm(flat(out), stat, flat(x), valueOf(this.w, run), this.b && valueOf(this.b, run), this.opts);
    run.save(this, x, stat);
  }

  /** What `forward` gave, from its statistics where the backend can. */
  again(out: Tensor, /*[..,D]*/ x: Tensor, /*[..,D]*/ stat: Tensor, run: Run): void {
    const { be } = run, w = valueOf(this.w, run), b = this.b && valueOf(this.b, run);
    if (be.renorm) be.renorm(flat(out), flat(x), stat, w, b, this.opts);
    else be.norm(flat(out), this.reserve(x, run), flat(x), w, b, this.opts);
  }

  backward(dx: Tensor, /*+=*/ dy: Tensor, run: Run): void {
    const [x, stat] = run.load(this);
    const dw = this.w.param?.grad ?? null, db = this.b?.param?.grad ?? null;
    run.be.normBwd(flat(dx), dw, db, flat(dy), flat(x), valueOf(this.w, run), stat, this.opts);
  }
}

/** [.., D] as [rows, D]. */
function flat(t: Tensor): Tensor {
  return t.shape.length === 2 ? t : reshape(t, rowsOf(t), t.shape[t.shape.length - 1]);
}
