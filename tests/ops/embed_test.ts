/** embed from tables of every type, and embedBwd with repeated ids. */
import { type DType, DTYPES } from "../../src/core/dtype.ts";
import { type Case, inout, input, ints, output, testOp } from "./harness.ts";

function embedCase(dtype: DType | "act", V: number, D: number, ids: number[], scale: number): Case {
  return {
    name: `${ids.length} rows of a ${dtype} table [${V},${D}] times ${scale}`,
    tensors: { table: input([V, D], 1, dtype), ids: ints(...ids), out: output([ids.length, D]) },
    run: (be, { out, table, ids }) => be.embed(out, table, ids, scale),
    formula: ({ table }) => ({
      out: ids.flatMap((id) => Array.from(table.slice(id * D, id * D + D), (x) => x * scale)),
    }),
  };
}

const TABLES = (Object.keys(DTYPES) as DType[]).filter((d) => d !== "i32" && d !== "u8" && d !== "fp8_128");
testOp("embed", [
  embedCase("act", 1, 1, [0], 1),
  embedCase("act", 11, 7, [10, 0, 3, 3], 1),
  embedCase("act", 130, 64, [129, 64, 0], 8),
  ...TABLES.map((d) => embedCase(d, 9, 512, [8, 0, 4, 8, 1], 0.5)),
]);

function embedBwdCase(V: number, D: number, ids: number[], scale: number): Case {
  return {
    name: `${ids.length} rows into [${V},${D}] times ${scale}`,
    tensors: { dTable: inout([V, D], 1, "f32"), dOut: input([ids.length, D]), ids: ints(...ids) },
    run: (be, { dTable, dOut, ids }) => be.embedBwd(dTable, dOut, ids, scale),
    formula: ({ dTable, dOut }) => {
      const out = dTable.slice();
      ids.forEach((id, n) => {
        for (let j = 0; j < D; j++) out[id * D + j] += scale * dOut[n * D + j];
      });
      return { dTable: out };
    },
  };
}

testOp("embedBwd", [
  embedBwdCase(1, 1, [0], 1),
  embedBwdCase(5, 7, [4, 0, 4, 4, 2], 1),
  embedBwdCase(130, 64, Array.from({ length: 77 }, (_, i) => (i * i) % 130), 3),
]);
