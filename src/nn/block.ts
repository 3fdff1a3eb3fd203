/** One decoder layer: attention and feed-forward, each between norms, added to the residual stream. @module */
import type { Tensor } from "../core/tensor.ts";
import type { Module, Run } from "./module.ts";
import type { Norm } from "./norm.ts";

/** What stands between two norms; `refill` keeps what `forward` keeps and gives no output. */
export interface Mixer extends Module {
  refill(x: Tensor, /*[N,D]*/ run: Run): void;
}

/** A mixer with its norms: x + post(mixer(pre(x))). A block is two of these. */
export class Residual {
  readonly pre: Norm;
  readonly mixer: Mixer;
  readonly post: Norm | null;

  /** @param post gemma 2 and 3; null elsewhere */
  constructor(pre: Norm, mixer: Mixer, post: Norm | null) {
    this.pre = pre;
    this.mixer = mixer;
    this.post = post;
  }

  /**
   * out = x + post(mixer(pre(x))). `out` may be `x`, and then nothing may be kept.
   */
  forward(out: Tensor, /*[N,D]*/ x: Tensor, /*[N,D]*/ run: Run): void {
    const { arena, be } = run;
    const normed = arena.act(...x.shape);
    this.pre.forward(normed, x, run);
    // Without a post-norm the mixer may write where the sum goes, unless that is x itself.
    const y = this.post || out === x ? arena.act(...x.shape) : out;
    this.mixer.forward(y, normed, run);
    if (!this.post) {
      be.add(out, y, x);
      return;
    }
    const z = out === x ? arena.act(...x.shape) : out;
    this.post.forward(z, y, run);
    be.add(out, z, x);
  }

  /** What `forward` keeps, without its output. */
  refill(x: Tensor, /*[N,D]*/ run: Run): void {
    const { arena } = run, normed = arena.act(...x.shape);
    this.pre.forward(normed, x, run);
    if (!this.post) return this.mixer.refill(normed, run);
    const y = arena.act(...x.shape); // the post-norm's backward needs it
    this.mixer.forward(y, normed, run);
    this.post.forward(arena.act(...x.shape), y, run);
  }

  /** In place: d holds the gradient of out and then of x. */
  backward(d: Tensor, /*[N,D]*/ run: Run): void {
    const { arena, be } = run, mark = arena.mark();
    let dy = d;
    if (this.post) {
      dy = arena.act(...d.shape);
      be.fill(dy, 0);
      this.post.backward(dy, d, run);
    }
    const dn = arena.act(...d.shape);
    this.mixer.backward(dn, dy, run);
    this.pre.backward(d, dn, run);
    arena.release(mark);
  }
}

/** One layer of the decoder. */
export class Block {
  readonly attention: Residual;
  readonly mlp: Residual;

  constructor(attention: Residual, mlp: Residual) {
    this.attention = attention;
    this.mlp = mlp;
  }

  /**
   * @returns the layer's output: new memory when the run keeps, else `x` itself, rewritten
   */
  forward(x: Tensor, /*[N,D]*/ run: Run): Tensor {
    const { arena } = run;
    if (run.keep) {
      const mid = arena.act(...x.shape), out = arena.act(...x.shape);
      this.attention.forward(mid, x, run);
      this.mlp.forward(out, mid, run);
      return out;
    }
    for (const half of [this.attention, this.mlp]) {
      const mark = arena.mark();
      half.forward(x, x, run);
      arena.release(mark);
    }
    return x;
  }

  /** What `forward` keeps, without its output. */
  refill(x: Tensor, /*[N,D]*/ run: Run): void {
    const mid = run.arena.act(...x.shape);
    this.attention.forward(mid, x, run);
    this.mlp.refill(mid, run);
  }

  /** In place: d holds the gradient of the output and then of the input. */
  backward(d: Tensor, /*[N,D]*/ run: Run): void {
    this.mlp.backward(d, run);
    this.attention.backward(d, run);
  }
}
