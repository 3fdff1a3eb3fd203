/** dropout: the elements that Philox keeps, the same on every backend. */
import { keeps } from "../../src/core/philox.ts";
import { type Case, inout, input, ints, output, testOp } from "./harness.ts";

function dropoutCase(N: number, D: number, seed: [number, number], stream: number, p: number): Case {
  return {
    name: `[${N},${D}] p ${p}, seed ${seed}, stream ${stream}`,
    tensors: { x: input([N, D]), seed: ints(...seed), out: output([N, D]) },
    run: (be, { out, x, seed }) => be.dropout(out, x, seed, stream, p),
    formula: ({ x }) => ({ out: x.map((v, i) => keeps(seed, stream, i, p) ? v / (1 - p) : 0) }),
  };
}

testOp("dropout", [
  dropoutCase(1, 1, [1, 2], 0, 0.5),
  dropoutCase(3, 5, [7, 0], 3, 0.1),
  dropoutCase(17, 131, [-5, 12], 4000000000, 0.3),
  dropoutCase(4, 64, [1, 1], 1, 0),
  dropoutCase(4, 64, [1, 1], 1, 0.999),
  {
    name: "in place",
    tensors: { x: inout([9, 9]), seed: ints(3, 4) },
    run: (be, { x, seed }) => be.dropout(x, x, seed, 2, 0.25),
    formula: ({ x }) => ({ x: x.map((v, i) => keeps([3, 4], 2, i, 0.25) ? v / 0.75 : 0) }),
  },
]);
