/** cacheWrite and attentionCached: prefill and decode of several sequences in one call. */
import type { AttnOpts } from "../../src/core/backend.ts";
import { type Case, inout, input, ints, output, testOp, type Values } from "./harness.ts";

interface Sizes {
  S: number;
  L: number;
  H: number;
  K: number;
  d: number;
}

function cached({ L, H, K, d }: Sizes, o: AttnOpts) {
  return ({ q, kc, vc, seq, pos }: Values): Record<string, Float64Array> => {
    const out = new Float64Array(q.length);
    for (let n = 0; n < seq.length; n++) {
      for (let h = 0; h < H; h++) {
        const g = Math.floor(h * K / H), row = (l: number): number => ((seq[n] * L + l) * K + g) * d;
        const first = o.window ? Math.max(0, pos[n] - o.window + 1) : 0;
        const score = (l: number): number => {
          let s = 0;
          for (let e = 0; e < d; e++) s += q[(n * H + h) * d + e] * kc[row(l) + e];
          return Math.exp(o.softcap ? o.softcap * Math.tanh(o.scale * s / o.softcap) : o.scale * s);
        };
        let total = 0;
        for (let l = first; l <= pos[n]; l++) total += score(l);
        for (let l = first; l <= pos[n]; l++) {
          for (let e = 0; e < d; e++) out[(n * H + h) * d + e] += score(l) / total * vc[row(l) + e];
        }
      }
    }
    return { out };
  };
}

function cachedCase(name: string, s: Sizes, seq: number[], pos: number[], o: AttnOpts): Case {
  return {
    name,
    tensors: {
      q: input([seq.length, s.H, s.d]),
      kc: input([s.S, s.L, s.K, s.d]),
      vc: input([s.S, s.L, s.K, s.d]),
      seq: ints(...seq),
      pos: ints(...pos),
      out: output([seq.length, s.H, s.d]),
    },
    run: (be, { out, q, kc, vc, seq, pos }) => be.attentionCached(out, q, kc, vc, seq, pos, o),
    formula: cached(s, o),
  };
}

const PLAIN: AttnOpts = { scale: 0.35, window: 0, softcap: 0 };
testOp("attentionCached", [
  cachedCase("one token, first of its sequence", { S: 1, L: 1, H: 1, K: 1, d: 1 }, [0], [0], PLAIN),
  cachedCase("a prefill", { S: 2, L: 12, H: 4, K: 2, d: 16 }, [1, 1, 1, 1, 1], [0, 1, 2, 3, 4], PLAIN),
  cachedCase(
    "many requests, each at its own place",
    { S: 5, L: 131, H: 9, K: 3, d: 64 },
    [4, 0, 2, 3],
    [130, 0, 64, 7],
    PLAIN,
  ),
  cachedCase("a window and a soft cap", { S: 2, L: 40, H: 2, K: 1, d: 7 }, [0, 1, 1], [39, 5, 6], {
    scale: 0.5,
    window: 6,
    softcap: 3,
  }),
]);

function write(L: number, row: number) {
  return ({ kc, vc, k, v, seq, pos }: Values): Record<string, Float64Array> => {
    const out = { kc: kc.slice(), vc: vc.slice() };
    for (let n = 0; n < seq.length; n++) {
      for (let e = 0; e < row; e++) {
        out.kc[(seq[n] * L + pos[n]) * row + e] = k[n * row + e];
        out.vc[(seq[n] * L + pos[n]) * row + e] = v[n * row + e];
      }
    }
    return out;
  };
}

function writeCase(name: string, s: Sizes, seq: number[], pos: number[]): Case {
  return {
    name,
    tensors: {
      kc: inout([s.S, s.L, s.K, s.d]),
      vc: inout([s.S, s.L, s.K, s.d]),
      k: input([seq.length, s.K, s.d]),
      v: input([seq.length, s.K, s.d]),
      seq: ints(...seq),
      pos: ints(...pos),
    },
    run: (be, { kc, vc, k, v, seq, pos }) => be.cacheWrite(kc, vc, k, v, seq, pos),
    formula: write(s.L, s.K * s.d),
    slack: 0,
  };
}

testOp("cacheWrite", [
  writeCase("one value", { S: 1, L: 1, H: 1, K: 1, d: 1 }, [0], [0]),
  writeCase("rows of several sequences", { S: 3, L: 7, H: 2, K: 2, d: 5 }, [2, 0, 0, 1], [6, 0, 3, 2]),
  writeCase("the last rows", { S: 2, L: 33, H: 3, K: 3, d: 64 }, [1, 0], [32, 32]),
]);
