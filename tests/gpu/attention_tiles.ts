/**
 * Attention's backward over so many tiles of keys that CUDA takes its one kernel (attention_sm90_bwd_once.cu), where several
 * blocks add to a tile of dq: seconds in the reference, so only where there is a GPU. Imported by ops.ts.
 * @module
 */
import { type Case, input, ints, output, testOp } from "../ops/harness.ts";
import { turnedBackward } from "../ops/turned.ts";

const SHAPES = [
  { N: 200, H: 134, K: 67, d: 8, cu: [0, 190], window: 0, softcap: 0 },
  { N: 200, H: 67, K: 67, d: 72, cu: [0, 30, 200], window: 0, softcap: 0 },
  { N: 150, H: 67, K: 67, d: 72, cu: [0, 150], window: 60, softcap: 5 },
];

testOp(
  "attentionBwd",
  SHAPES.map(({ N, H, K, d, cu, window, softcap }): Case => ({
    name: `[${N},${H}/${K},${d}] in ${cu.length - 1}, many tiles`,
    tensors: {
      ...{ q: input([N, H, d]), k: input([N, K, d]), v: input([N, K, d]), dOut: input([N, H, d]), cu: ints(...cu) },
      ...{ out: output([N, H, d]), lse: output([H, N], "f32") },
      ...{ dq: output([N, H, d]), dk: output([N, K, d]), dv: output([N, K, d]) },
    },
    run: (be, { q, k, v, dOut, cu: starts, out, lse, dq, dk, dv }) => {
      const seqs = { cu: starts, maxLen: N }, o = { scale: d ** -0.5, window, softcap };
      be.attention(out, lse, q, k, v, seqs, o);
      be.attentionBwd(dq, dk, dv, dOut, q, k, v, out, lse, seqs, o);
    },
    slack: 3, // as in tests/ops/attention_test.ts
  })),
);

// Where that kernel turns dk and dq itself, and where it leaves them to a pass of their own.
testOp("attentionBwd", [
  turnedBackward({ N: 200, H: 67, K: 67, d: 128, cu: [0, 130, 190] }),
  turnedBackward({ N: 150, H: 134, K: 67, d: 128, cu: [0, 150], window: 60, softcap: 5, factor: 1.19 }),
  turnedBackward({ N: 200, H: 134, K: 67, d: 64, cu: [0, 30, 200] }),
  turnedBackward({ N: 150, H: 67, K: 67, d: 64, cu: [0, 150], turns: ["dq"] }),
  turnedBackward({ N: 150, H: 67, K: 67, d: 64, cu: [0, 150], turns: ["dk", "dk", "dq"] }),
  turnedBackward({ N: 150, H: 67, K: 67, d: 128, cu: [0, 150], half: 32 }),
  turnedBackward({ N: 150, H: 67, K: 67, d: 72, cu: [0, 150] }),
]);
