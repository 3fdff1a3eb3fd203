/**
 * Causal attention by its definition, one row of scores at a time. A row reads the keys first..last of its sequence
 * and the rows of the key memory are found by `row(key)`, so packed and cached attention are one function.
 * @module
 */
import type { AttnOpts } from "../../src/core/backend.ts";

/** Sizes: H query heads, K kv heads, d head size. */
export interface Heads {
  H: number;
  K: number;
  d: number;
}

/** Keys one query sees: `count` of them; key i lies at element `start + i · K · d`. */
export interface Span {
  start: number;
  count: number;
}

/** Keys of query `i` of its sequence (0-based), whose first key lies at element `base`, under the window. */
export function span(i: number, base: number, window: number, { K, d }: Heads): Span {
  const first = window > 0 ? Math.max(0, i - window + 1) : 0;
  return { start: base + first * K * d, count: i - first + 1 };
}

/** Scores before the soft cap (raw), the probabilities, and the log-sum-exp of one query head. */
function scores(q: Float64Array, qAt: number, k: Float64Array, kAt: number, s: Span, h: Heads, o: AttnOpts) {
  const p = new Float64Array(s.count), slope = new Float64Array(s.count).fill(1);
  for (let j = 0; j < s.count; j++) {
    let dot = 0;
    for (let e = 0; e < h.d; e++) dot += q[qAt + e] * k[kAt + j * h.K * h.d + e];
    p[j] = o.scale * dot;
    if (o.softcap > 0) {
      const t = Math.tanh(p[j] / o.softcap);
      p[j] = o.softcap * t;
      slope[j] = 1 - t * t;
    }
  }
  let max = -Infinity, sum = 0;
  for (const x of p) max = Math.max(max, x);
  for (const x of p) sum += Math.exp(x - max);
  const lse = max + Math.log(sum);
  return { p: p.map((x) => Math.exp(x - lse)), slope, lse };
}

/** Writes out[n] for all heads of one query and calls `keep` with each head's log-sum-exp. */
export function attend(
  out: Float64Array, /*[N,H,d]*/
  q: Float64Array,
  k: Float64Array,
  v: Float64Array,
  n: number,
  s: Span,
  h: Heads,
  o: AttnOpts,
  keep: (head: number, lse: number) => void,
): void {
  for (let head = 0; head < h.H; head++) {
    const at = (n * h.H + head) * h.d, kv = s.start + Math.floor(head / (h.H / h.K)) * h.d;
    const { p, lse } = scores(q, at, k, kv, s, h, o);
    for (let e = 0; e < h.d; e++) {
      let sum = 0;
      for (let j = 0; j < s.count; j++) sum += p[j] * v[kv + j * h.K * h.d + e];
      out[at + e] = sum;
    }
    keep(head, lse);
  }
}

/** What the backward reads and adds to. */
export interface Grads {
  dq: Float64Array;
  dk: Float64Array;
  dv: Float64Array;
  dOut: Float64Array;
  q: Float64Array;
  k: Float64Array;
  v: Float64Array;
}

/** Adds one query's share to dq, dk, dv: dp = dOut·v, ds = p·(dp - Σ p·dp)·slope, dq += ds·k, dk += ds·q, dv += p·dOut. */
export function attendBwd(g: Grads, n: number, s: Span, h: Heads, o: AttnOpts): void {
  for (let head = 0; head < h.H; head++) {
    const at = (n * h.H + head) * h.d, kv = s.start + Math.floor(head / (h.H / h.K)) * h.d;
    const { p, slope } = scores(g.q, at, g.k, kv, s, h, o), dp = new Float64Array(s.count);
    let mean = 0;
    for (let j = 0; j < s.count; j++) {
      for (let e = 0; e < h.d; e++) dp[j] += g.dOut[at + e] * g.v[kv + j * h.K * h.d + e];
      mean += p[j] * dp[j];
    }
    for (let j = 0; j < s.count; j++) {
      const ds = p[j] * (dp[j] - mean) * slope[j] * o.scale, key = kv + j * h.K * h.d;
      for (let e = 0; e < h.d; e++) {
        g.dq[at + e] += ds * g.k[key + e];
        g.dk[key + e] += ds * g.q[at + e];
        g.dv[key + e] += p[j] * g.dOut[at + e];
      }
    }
  }
}
