/** glu and gluBwd: three activations, gated and plain. */
import type { Act } from "../../src/core/backend.ts";
import { type Case, inout, input, output, testOp, type Values } from "./harness.ts";

const ACTS: Act[] = ["silu", "gelu", "gelu_tanh"];
const SHAPES: [number, number][] = [[1, 1], [3, 7], [5, 131], [17, 192]];

/** Φ(x) by Simpson's rule over the density: shares nothing with an erf. */
function normalCdf(x: number): number {
  const n = 2000, h = x / n, density = (t: number): number => Math.exp(-t * t / 2) / Math.sqrt(2 * Math.PI);
  let sum = density(0) + density(x);
  for (let i = 1; i < n; i++) sum += density(i * h) * (i % 2 ? 4 : 2);
  return 0.5 + sum * h / 3;
}

function value(x: number, act: Act): number {
  if (act === "silu") return x * 0.5 * (1 + Math.tanh(x / 2));
  if (act === "gelu") return x * normalCdf(x);
  // 0.5 (1 + tanh y) is 1 / (1 + e^-2y)
  return x / (1 + Math.exp(-2 * Math.sqrt(2 / Math.PI) * (x + 0.044715 * x * x * x)));
}

const edges = [0, -0, 1e-6, -1e-6, 6, -6, 20, -20, 90, -90];

testOp(
  "glu",
  ACTS.flatMap((act) => [
    ...SHAPES.flatMap(([N, F]) =>
      [true, false].map((gated): Case => ({
        name: `${act} [${N},${F}]${gated ? " gated" : ""}`,
        tensors: { gate: input([N, F], 2), ...(gated ? { up: input([N, F]) } : {}), h: output([N, F]) },
        run: (be, { h, gate, up }) => be.glu(h, gate, up ?? null, act),
        formula: ({ gate, up }: Values) => ({ h: gate.map((x, i) => value(x, act) * (up ? up[i] : 1)) }),
      }))
    ),
    {
      name: `${act} of zero, tiny and large numbers`,
      tensors: { gate: input([1, edges.length], edges), h: output([1, edges.length]) },
      run: (be, { h, gate }) => be.glu(h, gate, null, act),
      formula: ({ gate }: Values) => ({ h: gate.map((x) => x < -30 ? 0 : value(x, act)) }),
    },
  ]),
);

// The derivative in the reference is held to its value by finite differences in tests/reference/gradients_test.ts.
testOp(
  "gluBwd",
  ACTS.flatMap((act) => [
    ...SHAPES.flatMap(([N, F]) =>
      [true, false].map((gated): Case => ({
        name: `${act} [${N},${F}]${gated ? " gated" : ""}`,
        tensors: {
          gate: input([N, F], 2),
          dH: input([N, F]),
          h: output([N, F]),
          dGate: output([N, F]),
          ...(gated ? { up: input([N, F]), dUp: output([N, F]) } : {}),
        },
        run: (be, { dGate, dUp, h, dH, gate, up }) => be.gluBwd(dGate, dUp ?? null, h, dH, gate, up ?? null, act),
      }))
    ),
    {
      name: `${act} with the gradients in the inputs' memory`,
      tensors: { gate: inout([5, 33], 2), up: inout([5, 33]), dH: input([5, 33]), h: output([5, 33]) },
      run: (be, { h, dH, gate, up }) => be.gluBwd(gate, up, h, dH, gate, up, act),
    },
    {
      name: `${act} with h in dH's memory`,
      tensors: { gate: inout([7, 43], 2), up: inout([7, 43]), dH: inout([7, 43]) },
      run: (be, { dH, gate, up }) => be.gluBwd(gate, up, dH, dH, gate, up, act),
    },
    {
      name: `${act} at zero, tiny and large numbers`,
      tensors: {
        gate: input([1, edges.length], edges),
        dH: input([1, edges.length]),
        h: output([1, edges.length]),
        dGate: output([1, edges.length]),
      },
      run: (be, { dGate, h, dH, gate }) => be.gluBwd(dGate, null, h, dH, gate, null, act),
    },
  ]),
);
