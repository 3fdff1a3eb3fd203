/** Norm, feed-forward, attention and block: each backward against finite differences, on odd shapes. */
import { expect, test } from "vitest";
import type { Tensor } from "../../src/core/tensor.ts";
import { Attention, type AttentionParts } from "../../src/nn/attention.ts";
import { Block, Residual } from "../../src/nn/block.ts";
import { Linear } from "../../src/nn/linear.ts";
import { Mlp } from "../../src/nn/mlp.ts";
import type { Run } from "../../src/nn/module.ts";
import { Norm } from "../../src/nn/norm.ts";
import { checkGradients, Lab } from "./gradient.ts";

const D = 5, F = 7;

const rms = { kind: "rms", eps: 1e-5, plusOne: false } as const;

function linear(lab: Lab, name: string, parts: number[], input: number): Linear {
  const O = parts.reduce((a, b) => a + b, 0);
  const lora = {
    ...{ a: lab.param(`${name}.A`, [2, input]), b: lab.param(`${name}.B`, [O, 2]), magnitude: null },
    ...{ scale: 0.5, dropout: 0.25, stream: name.length },
  };
  return new Linear(name, lab.frozen(O, input), null, parts, lora);
}

for (const kind of ["rms", "layer"] as const) {
  for (const plusOne of [false, true]) {
    test(`Norm (${kind}, plusOne ${plusOne}) has the gradients of its differences and adds to dx`, async () => {
      const lab = new Lab([6]), bias = kind === "layer" ? lab.trained("b", D) : null;
      const norm = new Norm(lab.trained("w", D), bias, { kind, eps: 1e-5, plusOne });
      await checkGradients(lab, {
        out: [3, 2, D],
        x: lab.tensor([3, 2, D]),
        forward: (out, x, run) => norm.forward(out, x, run),
        backward: (dx, dy, run) => norm.backward(dx, dy, run),
      });
    });
  }
}

for (const act of ["silu", "gelu", "gelu_tanh"] as const) {
  for (const fused of [false, true]) {
    test(`Mlp (${act}, ${fused ? "fused" : "separate"} inputs) has the gradients of its differences`, async () => {
      const lab = new Lab([6]);
      const inputs = fused ? [linear(lab, "in", [F, F], D)] : ["gate", "upper"].map((n) => linear(lab, n, [F], D));
      const mlp = new Mlp(inputs, linear(lab, "downward", [D], F), F, act);
      await checkGradients(lab, {
        out: [6, D],
        x: lab.tensor([6, D]),
        forward: (out, x, run) => mlp.forward(out, x, run),
        backward(dx, dy, run) {
          run.be.copy(dx, mlp.backward(dy, () => this.x, run, true)!);
        },
      });
    });
  }
}

function attention(
  lab: Lab,
  o: { norms: boolean; fused: boolean; rope: number; window: number; cap: number },
): Attention {
  const heads = 4, kvHeads = 2, headDim = 6, kv = kvHeads * headDim;
  const qk = () => o.norms ? new Norm(lab.trained(`norm${lab.params.length}`, headDim), null, rms) : null;
  const parts: AttentionParts = {
    ...{ layer: 0, heads, kvHeads, headDim },
    inputs: o.fused
      ? [linear(lab, "qkv", [heads * headDim, kv, kv], D)]
      : [linear(lab, "q", [heads * headDim], D), linear(lab, "kk", [kv], D), linear(lab, "vvv", [kv], D)],
    o: linear(lab, "oooo", [D], heads * headDim),
    ...{ qNorm: qk(), kNorm: qk() },
    rope: o.rope ? { freqs: lab.tensor([o.rope]), factor: 1.3 } : null,
    opts: { scale: 0.4, window: o.window, softcap: o.cap },
  };
  return new Attention(parts);
}

const ATTENTIONS = [
  { norms: false, fused: false, rope: 3, window: 0, cap: 0 },
  { norms: true, fused: false, rope: 3, window: 2, cap: 0 },
  { norms: false, fused: true, rope: 2, window: 0, cap: 3 },
  { norms: false, fused: false, rope: 0, window: 3, cap: 0 },
];

for (const o of ATTENTIONS) {
  test(`Attention ${JSON.stringify(o)} has the gradients of its differences, sequences apart`, async () => {
    const lab = new Lab([1, 4, 3]), layer = attention(lab, o);
    await checkGradients(lab, {
      out: [8, D],
      x: lab.tensor([8, D]),
      forward: (out, x, run) => layer.forward(out, x, run),
      backward(dx, dy, run) {
        run.be.copy(dx, layer.backward(dy, () => this.x, run, true)!);
      },
    });
  });
}

/** A block as a module: its backward works in place on the gradient. */
function blockSubject(lab: Lab, block: Block) {
  return {
    out: [8, D],
    x: lab.tensor([8, D]),
    forward: (out: Tensor, x: Tensor, run: Run) => {
      const copy = run.arena.act(8, D); // without keep a block rewrites its input
      run.be.copy(copy, x);
      run.be.copy(out, block.forward(copy, run));
    },
    backward: (dx: Tensor, dy: Tensor, run: Run) => {
      run.be.copy(dx, dy);
      block.backward(dx, run);
    },
  };
}

for (const post of [false, true]) {
  test(`Block ${post ? "with" : "without"} post-norms has the gradients of its differences`, async () => {
    const lab = new Lab([5, 3]), norm = (n: string) => new Norm(lab.trained(n, D), null, rms);
    const mlp = new Mlp(
      [linear(lab, "gate", [F], D), linear(lab, "upper", [F], D)],
      linear(lab, "dn", [D], F),
      F,
      "silu",
    );
    const block = new Block(
      new Residual(norm("n1"), attention(lab, ATTENTIONS[0]), post ? norm("p1") : null),
      new Residual(norm("n2"), mlp, post ? norm("p2") : null),
    );
    await checkGradients(lab, blockSubject(lab, block));
  });
}

test("a backward that does not mirror its forward is refused", () => {
  const lab = new Lab([4]), a = new Norm(lab.trained("a", D), null, rms), b = new Norm(lab.trained("b", D), null, rms);
  const run = lab.run(true), x = lab.tensor([4, D]), out = lab.tensor([4, D]);
  a.forward(out, x, run);
  b.forward(out, x, run);
  expect(() => a.backward(out, x, run)).toThrow("Cannot load saved tensors: backward order does not mirror forward");
});
