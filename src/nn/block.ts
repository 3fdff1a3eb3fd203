/**
 * One decoder layer: attention and feed-forward, each between norms, added to the residual stream. How much of it stays
 * between the passes is a level (mixer.ts); the rest is computed again in the backward (Chen et al. 2016). The recomputed
 * numbers are the first ones to the bit, since the same calls see the same inputs.
 * @module
 */
import type { Tensor } from "../core/tensor.ts";
import { type Held, LEVEL, type Level, type Mixer, type Placing } from "./mixer.ts";
import type { Run } from "./module.ts";
import type { Norm } from "./norm.ts";
import { withKeep } from "./run.ts";

/** A mixer with its norms: x + post(mixer(pre(x))). A block is two of these. */
export class Residual<P = unknown> {
  readonly pre: Norm;
  readonly mixer: Mixer<P>;
  readonly post: Norm | null;

  /** @param post gemma 2 and 3; null elsewhere */
  constructor(pre: Norm, mixer: Mixer<P>, post: Norm | null) {
    this.pre = pre;
    this.mixer = mixer;
    this.post = post;
  }

  get trained(): boolean {
    return [this.pre, this.mixer, this.post].some((m) => m?.trained);
  }

  /** Places what stays at a level under `products`; a post-norm needs the last linear's output again, and so its input. */
  hold(n: number, level: Level, run: Run): Held {
    return this.mixer.hold(n, level, !this.post, run);
  }

  /**
   * out = x + post(mixer(pre(x))). `out` may be `x`, and then nothing may be kept; null: only what the backward reads is
   * made. In a run that keeps, `out` must have been placed before.
   */
  forward(out: Tensor | null, x: Tensor, /*[N,D]*/ run: Run, o: Placing = {}): void {
    const { arena, be } = run, { pre, mixer, post } = this;
    // Where the norm is made again for nothing, it never stays: so it is the same bits whatever is recomputed.
    const normed = run.keep && !o.lean && !be.renorm ? arena.act(...x.shape) : null, stat = pre.reserve(x, run);
    const place = mixer.place(x.shape[0], run, o), y = post ? arena.act(...x.shape) : null;
    const postStat = y && post!.reserve(y, run), mark = arena.mark(), input = normed ?? arena.act(...x.shape);
    pre.forward(input, x, run, stat);
    // Without a post-norm the mixer may write where the sum goes, unless that is x itself.
    const sum = out && out !== x ? out : out || post ? arena.act(...x.shape) : null;
    mixer.forward(y ?? sum, input, run, place);
    if (y) post!.forward(sum!, y, run, postStat!);
    if (out) be.add(out, sum!, x);
    arena.release(mark);
    run.save(this, x, stat, ...normed ? [normed] : []);
  }

  /** In place: d holds the gradient of out and then of x, if that is wanted. */
  backward(d: Tensor, /*[N,D]*/ run: Run, wanted = true): void {
    const { arena, be } = run, mark = arena.mark(), [x, stat, normed] = run.load(this);
    let dy = d;
    if (this.post) {
      dy = arena.act(...d.shape);
      be.fill(dy, 0);
      this.post.backward(dy, d, run);
    }
    const again = () => {
      const y = arena.act(...x.shape);
      this.pre.again(y, x, stat, run);
      return y;
    };
    const dx = this.mixer.backward(dy, () => normed ?? again(), run, wanted || this.pre.trained);
    if (dx) this.pre.backward(d, dx, run);
    else run.load(this.pre); // what is saved comes back in order
    arena.release(mark);
  }
}

/** What stays of a block under the level `products`, besides what its attention saves at `heads`. */
type BlockKept = [x: Tensor, mid: Tensor | null, attention: Held | null, mlp: Held];

/** One layer of the decoder. */
export class Block {
  readonly attention: Residual;
  readonly mlp: Residual;
  readonly level: Level;

  /** @param level what stays between the passes */
  constructor(attention: Residual, mlp: Residual, level: Level = LEVEL.products) {
    this.attention = attention;
    this.mlp = mlp;
    this.level = level;
  }

  get trained(): boolean {
    return this.attention.trained || this.mlp.trained;
  }

  /**
   * @param out where the output goes when the run keeps; default new memory
   * @returns the layer's output; `x` itself, rewritten, unless the run keeps
   */
  forward(x: Tensor, /*[N,D]*/ run: Run, out?: Tensor): Tensor {
    if (run.keep) return this.#keeping(x, out ?? run.arena.act(...x.shape), run);
    for (const half of [this.attention, this.mlp]) {
      const mark = run.arena.mark();
      half.forward(x, x, run);
      run.arena.release(mark);
    }
    return x;
  }

  #keeping(x: Tensor, out: Tensor, run: Run): Tensor {
    const { arena } = run, { level } = this, [n] = x.shape, lean = level < LEVEL.all;
    const mid = level >= LEVEL.middle ? arena.act(...x.shape) : null, once = withKeep(run, false);
    if (level >= LEVEL.products) {
      this.attention.forward(mid, x, run, { lean });
      this.mlp.forward(out, mid!, run, { lean });
      return out;
    }
    const mlp = this.mlp.hold(n, level, run);
    let attention: Held | null = null;
    if (level === LEVEL.heads) this.attention.forward(mid, x, run, { lean });
    else attention = this.attention.hold(n, level, run);
    const mark = arena.mark(), between = mid ?? arena.act(...x.shape);
    if (attention) forwardOnce(this.attention, between, x, attention);
    forwardOnce(this.mlp, out, between, mlp);
    arena.release(mark);
    run.save(this, ...[x, mid, attention, mlp] satisfies BlockKept);
    return out;

    function forwardOnce(half: Residual, out: Tensor, x: Tensor, held: Held): void {
      const mark = arena.mark();
      half.forward(out, x, once, { held });
      arena.release(mark);
    }
  }

  /** In place: d holds the gradient of the output and then of the input, if that is wanted. */
  backward(d: Tensor, /*[N,D]*/ run: Run, wanted = true): void {
    const { arena } = run, mark = arena.mark(), again = withKeep(run, true);
    const below = wanted || this.attention.trained;
    if (this.level >= LEVEL.products) {
      this.mlp.backward(d, run, below);
      if (below) this.attention.backward(d, run, wanted);
      return;
    }
    const [x, mid, attention, mlp] = run.load<BlockKept>(this), ready = true;
    const between = mid ?? arena.act(...x.shape);
    if (!mid) this.attention.forward(between, x, again, { held: attention, ready });
    const half = arena.mark();
    this.mlp.forward(null, between, again, { held: mlp, ready });
    this.mlp.backward(d, again, below);
    arena.release(half);
    if (below && mid && attention) this.attention.forward(null, x, again, { held: attention, ready });
    if (below) this.attention.backward(d, attention ? again : run, wanted);
    arena.release(mark);
  }
}
