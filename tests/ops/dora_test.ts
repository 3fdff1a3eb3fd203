/** rowNorm: DoRA's norms of W + scale · B·A, over weights of every type. */
import { type DType, DTYPES } from "../../src/core/dtype.ts";
import { type Case, input, output, testOp } from "./harness.ts";

function rowNormCase(dtype: DType | "act", O: number, I: number, R: number): Case {
  const scale = 0.75;
  return {
    name: `${dtype} [${O},${I}] with rank ${R}`,
    tensors: {
      w: input([O, I], 1, dtype),
      a: input([R, I], 0.3, "f32"),
      b: input([O, R], 0.3, "f32"),
      out: output([O], "f32"),
    },
    run: (be, { out, w, a, b }) => be.rowNorm(out, w, a, b, scale),
    formula: ({ w, a, b }) => ({
      out: Array.from({ length: O }, (_, o) => {
        let sum = 0;
        for (let i = 0; i < I; i++) {
          let v = w[o * I + i];
          for (let r = 0; r < R; r++) v += scale * b[o * R + r] * a[r * I + i];
          sum += v * v;
        }
        return Math.sqrt(sum);
      }),
    }),
  };
}

const WEIGHTS = (Object.keys(DTYPES) as DType[]).filter((d) => d !== "i32" && d !== "u8" && d !== "fp8_128");
testOp("rowNorm", [
  rowNormCase("act", 1, 1, 1),
  rowNormCase("act", 7, 13, 3),
  rowNormCase("act", 33, 130, 8),
  ...WEIGHTS.map((d) => rowNormCase(d, 5, 512, 4)),
]);
