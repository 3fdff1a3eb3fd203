/** Causal grouped-query attention with rotary positions, and q/k norms where a family has them. @module */
import type { AttnOpts } from "../core/backend.ts";
import { reshape, type Tensor } from "../core/tensor.ts";
import type { Kept, Linear } from "./linear.ts";
import {
  backwardFrom,
  forwardInto,
  forwardLast,
  type Held,
  LEVEL,
  type Level,
  type Mixer,
  type Placing,
  reserveAll,
} from "./mixer.ts";
import type { Run } from "./module.ts";
import type { Norm } from "./norm.ts";
import { withKeep } from "./run.ts";

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

/** q or k: as its linear gives it, and as attention sees it, normed and rotated. */
interface Side {
  /** [N,heads,d]; without a norm it is rotated in place. */
  readonly raw: Tensor;
  readonly norm: Norm | null;
  readonly stat: Tensor | null;
  /** Where the normed one stays; null without a norm, or where it is made again in the backward. */
  readonly normed: Tensor | null;
}

/** Memory between the passes. */
export interface AttentionPlace {
  readonly q: Side;
  readonly k: Side;
  readonly v: Tensor /* [N,K,d] */;
  readonly mixed: Tensor /* [N,H,d] */;
  readonly lse: Tensor /* f32 [H,N] */;
  readonly inputs: readonly Kept[];
  readonly o: Kept;
  /** `mixed` and `lse` are there already. */
  readonly mixedReady: boolean;
  /** What o keeps is there already. */
  readonly oReady: boolean;
}

/** out = o(attend(rope(norm(q)), rope(norm(k)), v)). */
export class Attention implements Mixer<AttentionPlace> {
  readonly parts: AttentionParts;

  constructor(parts: AttentionParts) {
    this.parts = parts;
  }

  get trained(): boolean {
    const { inputs, o, qNorm, kNorm } = this.parts;
    return [...inputs, o, qNorm, kNorm].some((m) => m?.trained);
  }

  hold(n: number, level: Level, last: boolean, run: Run): Held {
    const { o } = this.parts;
    return {
      result: level >= LEVEL.attention ? this.#result(n, run) : null,
      last: last && level >= LEVEL.middle && o.keepsLittle ? o.reserve(n, run) : null,
    };
  }

  place(n: number, run: Run, o: Placing = {}): AttentionPlace {
    const { heads, kvHeads, headDim, inputs, qNorm, kNorm } = this.parts, { held } = o, ready = o.ready ?? false;
    const q = this.#side(n, heads, qNorm, run, o), k = this.#side(n, kvHeads, kNorm, run, o);
    const [mixed, lse] = held?.result ?? this.#result(n, run);
    return {
      ...{ q, k, v: run.arena.act(n, kvHeads, headDim), mixed, lse },
      ...{ inputs: reserveAll(inputs, n, run), o: held?.last ?? this.parts.o.reserve(n, run) },
      ...{ mixedReady: ready && !!held?.result, oReady: ready && !!held?.last },
    };
  }

  #result(n: number, run: Run): [Tensor, Tensor] {
    const { heads, headDim } = this.parts;
    return [run.arena.act(n, heads, headDim), run.arena.tensor("f32", heads, n)];
  }

  #side(n: number, heads: number, norm: Norm | null, run: Run, o: Placing): Side {
    const { arena } = run, raw = arena.act(n, heads, this.parts.headDim);
    if (!norm) return { raw, norm, stat: null, normed: null };
    return { raw, norm, stat: norm.reserve(raw, run), normed: o.lean ? null : arena.act(...raw.shape) };
  }

  forward(
    out: Tensor | null,
    x: Tensor, /*[N,D]*/
    run: Run,
    place: AttentionPlace = this.place(x.shape[0], run),
  ): void {
    const { arena, be } = run, { opts, layer } = this.parts, { v, mixed, lse } = place;
    forwardInto(this.parts.inputs, [place.q.raw, place.k.raw, v].map(flat), x, run, place.inputs);
    const mark = arena.mark(), q = this.#turned(place.q, run), k = this.#turned(place.k, run);
    if (run.cache) {
      const { k: kc, v: vc, seq } = run.cache;
      be.cacheWrite(kc[layer], vc[layer], k, v, seq, run.pos);
      be.attentionCached(mixed, q, kc[layer], vc[layer], seq, run.pos, opts);
    } else if (!place.mixedReady) {
      be.attention(mixed, lse, q, k, v, run.seqs, opts);
    }
    arena.release(mark);
    forwardLast(this.parts.o, out, flat(mixed), run, place.o, place.oReady);
    run.save(this, place);
  }

  /** Norm, then rotation in place. */
  #turned({ raw, norm, stat, normed }: Side, run: Run): Tensor {
    const { rope } = this.parts, y = norm ? normed ?? run.arena.act(...raw.shape) : raw;
    norm?.forward(y, raw, run, stat!);
    if (rope) run.be.rope(y, run.pos, rope.freqs, { sign: 1, factor: rope.factor });
    return y;
  }

  backward(dy: Tensor, /*[N,D]*/ input: () => Tensor, run: Run, wanted: boolean): Tensor | null {
    const { arena, be } = run, { o, opts, inputs } = this.parts;
    const [place] = run.load<[AttentionPlace]>(this), { v, mixed, lse } = place, once = withKeep(run, false);
    const [q, k] = [place.q, place.k].map((s) => s.norm ? s.normed ?? this.#turned(s, once) : s.raw);
    const dq = arena.act(...q.shape), dk = arena.act(...k.shape), dv = arena.act(...v.shape), mark = arena.mark();
    const dMixed = arena.act(...mixed.shape);
    const p = o.backwardInput(flat(dMixed), [dy], run, 0);
    o.backwardParams(p, [dy], flat(mixed), run);
    be.attentionBwd(dq, dk, dv, dMixed, q, k, v, mixed, lse, run.seqs, opts);
    arena.release(mark);
    const dk0 = this.#unturned(dk, place.k, run), dq0 = this.#unturned(dq, place.q, run);
    const dx = wanted ? arena.act(...dy.shape) : null;
    const x = input();
    backwardFrom(inputs, dx, [dq0, dk0, dv].map(flat), x, run);
    be.forget?.(x);
    return dx;
  }

  #unturned(dy: Tensor, { norm }: Side, run: Run): Tensor {
    const { rope } = this.parts;
    if (rope) run.be.rope(dy, run.pos, rope.freqs, { sign: -1, factor: rope.factor });
    if (!norm) return dy;
    const dx = run.arena.act(...dy.shape);
    run.be.fill(dx, 0);
    norm.backward(dx, dy, run);
    return dx;
  }
}

/** [N,heads,d] as [N,heads·d]. */
function flat(t: Tensor): Tensor {
  const [n, heads, d] = t.shape;
  return reshape(t, n, heads * d);
}
