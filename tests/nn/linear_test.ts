/** Linear with every kind of adapter: its backward against finite differences, on odd shapes. */
import { expect, test } from "vitest";
import { Linear } from "../../src/nn/linear.ts";
import type { Lora } from "../../src/nn/lora.ts";
import type { Slot } from "../../src/nn/module.ts";
import type { Tensor } from "../../src/core/tensor.ts";
import { slice } from "../../src/core/tensor.ts";
import { checkGradients, Lab } from "./gradient.ts";

const N = 7, I = 5, R = 3;

interface Kind {
  name: string;
  parts: number[];
  rank?: number;
  dora?: boolean;
  dropout?: number;
  bias?: "frozen" | "trained";
  weight?: "trained";
}

const KINDS: Kind[] = [
  { name: "a frozen weight", parts: [11] },
  { name: "a trained weight and bias", parts: [11], weight: "trained", bias: "trained" },
  { name: "LoRA beside a bias", parts: [11], rank: R, bias: "frozen" },
  { name: "LoRA of rank 1 on one output", parts: [1], rank: 1 },
  { name: "LoRA with dropout and a trained bias", parts: [11], rank: R, dropout: 0.3, bias: "trained" },
  { name: "LoRA on three fused outputs", parts: [4, 2, 5], rank: R, bias: "frozen", dropout: 0.2 },
  { name: "three trained fused outputs", parts: [4, 2, 5], weight: "trained", bias: "trained" },
];

function build(lab: Lab, k: Kind): Linear {
  const O = k.parts.reduce((a, b) => a + b, 0);
  const slot = (kind: string | undefined, name: string, ...shape: number[]): Slot =>
    kind === "trained" ? lab.trained(name, ...shape) : lab.frozen(...shape);
  const lora: Lora | null = k.rank === undefined ? null : {
    a: lab.param("A", [k.rank, I]),
    b: lab.param("B", [O, k.rank]),
    magnitude: k.dora ? lab.param("m", [O]) : null,
    scale: 0.7,
    dropout: k.dropout ?? 0,
    stream: 3,
  };
  return new Linear("layer", slot(k.weight, "W", O, I), k.bias ? slot(k.bias, "b", O) : null, k.parts, lora);
}

/** The parts of `out` laid side by side in memory, one after the other. */
function parts(out: Tensor, widths: number[]): Tensor[] {
  let from = 0;
  return widths.map((w) => ({ ...slice(out, N * from, N * (from += w)), shape: [N, w] }));
}

for (const k of KINDS) {
  test(`Linear with ${k.name} has the gradients of its differences`, async () => {
    const lab = new Lab([N]), linear = build(lab, k), O = k.parts.reduce((a, b) => a + b, 0);
    await checkGradients(lab, {
      out: [N * O],
      x: lab.tensor([N, I]),
      forward: (out, x, run) => linear.forward(parts(out, k.parts), x, run),
      backward(dx, dy, run) {
        const dys = parts(dy, k.parts), x = this.x;
        linear.backwardParams(linear.backwardInput(dx, dys, run, 0), dys, x, run);
      },
    });
  });
}

test("backwardInput with beta 1 adds to what dx holds", async () => {
  const lab = new Lab([N]), linear = build(lab, { name: "", parts: [11], rank: R });
  const x = lab.tensor([N, I]), dy = lab.tensor([N, 11]), dx = lab.tensor([N, I], new Float64Array(N * I).fill(2));
  const alone = lab.tensor([N, I]), out = lab.tensor([N, 11]);
  for (const [target, beta] of [[alone, 0], [dx, 1]] as const) {
    const run = lab.run(true);
    linear.forward([out], x, run);
    linear.backwardInput(target, [dy], run, beta);
  }
  const [a, b] = [await lab.read(alone), await lab.read(dx)];
  a.forEach((v, i) => expect(b[i]).toBeCloseTo(v + 2, 12));
});

test("a run without adapters sees the frozen weight alone", async () => {
  const lab = new Lab([N]), linear = build(lab, { name: "", parts: [11], rank: R, dora: true });
  const plain = new Linear("layer", linear.weight, null, [11], null);
  const x = lab.tensor([N, I]), a = lab.tensor([N, 11]), b = lab.tensor([N, 11]), c = lab.tensor([N, 11]);
  linear.forward([a], x, lab.run(false, { adapters: false }));
  plain.forward([b], x, lab.run(false));
  linear.forward([c], x, lab.run(false));
  expect(await lab.read(a)).toEqual(await lab.read(b));
  expect(await lab.read(c)).not.toEqual(await lab.read(b));
});

test("dropout is left out where the run has no seed, and repeats where it has", async () => {
  const lab = new Lab([N]), linear = build(lab, { name: "", parts: [11], rank: R, dropout: 0.5 });
  const x = lab.tensor([N, I]), outs = [1, 2, 3].map(() => lab.tensor([N, 11]));
  linear.forward([outs[0]], x, lab.run(false));
  linear.forward([outs[1]], x, lab.run(false));
  linear.forward([outs[2]], x, lab.run(false, { dropout: false }));
  const [first, again, without] = await Promise.all(outs.map((o) => lab.read(o)));
  expect(again).toEqual(first);
  expect(without).not.toEqual(first);
});
