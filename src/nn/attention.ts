/** Causal grouped-query attention with rotary positions, and q/k norms where a family has them. @module */
import type { AttnOpts } from "../core/backend.ts";
import { reshape, type Tensor } from "../core/tensor.ts";
import type { Linear } from "./linear.ts";
import { backwardFrom, forwardInto } from "./mlp.ts";
import type { Mixer } from "./block.ts";
import type { Run } from "./module.ts";
import type { Norm } from "./norm.ts";

/** A layer's inverse frequencies on the device; null: this layer does not rotate. */
export interface DeviceRope {
  readonly freqs: Tensor /* f32 [rotary/2] */;
  factor: number;
}

/** What one attention layer is made of. */
export interface AttentionParts {
  /** Index of the layer, which is its place in the cache. */
  readonly layer: number;
  /** q, k, v; or one fused linear of three parts. */
  readonly inputs: readonly Linear[];
  readonly o: Linear;
  readonly qNorm: Norm | null;
  readonly kNorm: Norm | null;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly rope: DeviceRope | null;
  readonly opts: AttnOpts;
}

/** out = o(attend(rope(norm(q)), rope(norm(k)), v)). */
export class Attention implements Mixer {
  readonly parts: AttentionParts;

  constructor(parts: AttentionParts) {
    this.parts = parts;
  }

  forward(out: Tensor, /*[N,D]*/ x: Tensor, /*[N,D]*/ run: Run): void {
    this.#run(out, x, run);
  }

  refill(x: Tensor, /*[N,D]*/ run: Run): void {
    this.#run(null, x, run);
  }

  #run(out: Tensor | null, x: Tensor, run: Run): void {
    const { arena, be } = run, { heads, kvHeads, headDim, opts, layer } = this.parts, [n] = x.shape;
    const q0 = arena.act(n, heads * headDim),
      k0 = arena.act(n, kvHeads * headDim),
      v0 = arena.act(n, kvHeads * headDim);
    forwardInto(this.parts.inputs, [q0, k0, v0], x, run);
    const q = this.#place(reshape(q0, n, heads, headDim), this.parts.qNorm, run);
    const k = this.#place(reshape(k0, n, kvHeads, headDim), this.parts.kNorm, run);
    const v = reshape(v0, n, kvHeads, headDim);
    const mixed = arena.act(n, heads, headDim);
    const lse = arena.tensor("f32", heads, n);
    if (run.cache) {
      const { k: kc, v: vc, seq } = run.cache;
      be.cacheWrite(kc[layer], vc[layer], k, v, seq, run.pos);
      be.attentionCached(mixed, q, kc[layer], vc[layer], seq, run.pos, opts);
    } else {
      be.attention(mixed, lse, q, k, v, run.seqs, opts);
    }
    const flat = reshape(mixed, n, heads * headDim);
    if (out) this.parts.o.forward([out], flat, run);
    else this.parts.o.refill(flat, run);
    run.save(this, x, q, k, v, mixed, lse);
  }

  /** Norm, then rotation in place. */
  #place(x: Tensor, /*[N,heads,d]*/ norm: Norm | null, run: Run): Tensor {
    const { rope } = this.parts;
    const y = norm ? run.arena.act(...x.shape) : x;
    norm?.forward(y, x, run);
    if (rope) run.be.rope(y, run.pos, rope.freqs, { sign: 1, factor: rope.factor });
    return y;
  }

  /** dx = . */
  backward(dx: Tensor, dy: Tensor, run: Run): void {
    const { arena, be } = run, mark = arena.mark(), { o, opts } = this.parts;
    const [x, q, k, v, mixed, lse] = run.load(this);
    const [n] = x.shape, wide = q.shape[1] * q.shape[2], narrow = k.shape[1] * k.shape[2];
    const dMixed = arena.act(...mixed.shape);
    const p = o.backwardInput(reshape(dMixed, n, wide), [dy], run, 0);
    o.backwardParams(p, [dy], reshape(mixed, n, wide), run);
    const dq = arena.act(...q.shape), dk = arena.act(...k.shape), dv = arena.act(...v.shape);
    be.attentionBwd(dq, dk, dv, dMixed, q, k, v, mixed, lse, run.seqs, opts);
    const dk0 = this.#unplace(dk, this.parts.kNorm, run), dq0 = this.#unplace(dq, this.parts.qNorm, run);
    const grads = [reshape(dq0, n, wide), reshape(dk0, n, narrow), reshape(dv, n, narrow)];
    backwardFrom(this.parts.inputs, dx, grads, x, run);
    arena.release(mark);
  }

  #unplace(dy: Tensor, norm: Norm | null, run: Run): Tensor {
    const { rope } = this.parts;
    if (rope) run.be.rope(dy, run.pos, rope.freqs, { sign: -1, factor: rope.factor });
    if (!norm) return dy;
    const dx = run.arena.act(...dy.shape);
    run.be.fill(dx, 0);
    norm.backward(dx, dy, run);
    return dx;
  }
}
