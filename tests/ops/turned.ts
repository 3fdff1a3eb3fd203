/** Attention's backward and the rotations of dk and dq behind it, issued together as a model issues them. @module */
import { type Case, input, ints, output } from "./harness.ts";

export interface TurnedShape {
  readonly N: number;
  readonly H: number;
  readonly K: number;
  readonly d: number;
  readonly cu: readonly number[];
  readonly window?: number;
  readonly softcap?: number;
  /** Pairs that turn in a head; d / 2 by default. */
  readonly half?: number;
  readonly factor?: number;
  /** What is turned, in this order; "dk", "dq" by default. */
  readonly turns?: readonly ("dq" | "dk")[];
}

/** The call on a shape, against the reference. */
export function turnedBackward(s: TurnedShape): Case {
  const { N, H, K, d, cu, window = 0, softcap = 0, half = d / 2, factor = 1, turns = ["dk", "dq"] } = s;
  return {
    name: `[${N},${H}/${K},${d}] in ${cu.length - 1}, ${turns.join(" and ")} turned by ${2 * half} features`,
    tensors: {
      ...{ q: input([N, H, d]), k: input([N, K, d]), v: input([N, K, d]), dOut: input([N, H, d]), starts: ints(...cu) },
      ...{ out: output([N, H, d]), lse: output([H, N], "f32") },
      ...{ dq: output([N, H, d]), dk: output([N, K, d]), dv: output([N, K, d]) },
      pos: ints(...Array.from({ length: N }, (_, n) => n - cu.findLast((start) => start <= n)!)),
      freqs: input([half], Array.from({ length: half }, (_, i) => 1000 ** (-i / half)), "f32"),
    },
    run: (be, t) => {
      const seqs = { cu: t.starts, maxLen: N }, o = { scale: d ** -0.5, window, softcap };
      be.attention(t.out, t.lse, t.q, t.k, t.v, seqs, o);
      be.attentionBwd(t.dq, t.dk, t.dv, t.dOut, t.q, t.k, t.v, t.out, t.lse, seqs, o);
      for (const name of turns) be.rope(t[name], t.pos, t.freqs, { sign: -1, factor });
    },
    slack: 4, // as in attention_test.ts; angles are rounded to f32, and a rotation may round once more
  };
}
