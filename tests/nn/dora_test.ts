/**
 * DoRA: the norm of W + s·B·A counts as a constant in the backward, so A and B are differentiated with the scale
 * c = m/‖·‖ held fixed: as a linear layer whose output columns are scaled by a number that does not move.
 */
import { expect, test } from "vitest";
import { Linear } from "../../src/nn/linear.ts";
import type { Lora } from "../../src/nn/lora.ts";
import { slice, type Tensor } from "../../src/core/tensor.ts";
import type { Run } from "../../src/nn/module.ts";
import { checkGradients, Lab } from "./gradient.ts";

const N = 6, I = 5, R = 2, PARTS = [4, 3], O = 7;

function build(lab: Lab, o: { dropout: number; bias: boolean }): { linear: Linear; norm: Tensor; lora: Lora } {
  const lora: Lora = {
    a: lab.param("A", [R, I]),
    b: lab.param("B", [O, R]),
    magnitude: lab.param("m", [O]),
    scale: 0.5,
    dropout: o.dropout,
    stream: 1,
  };
  const linear = new Linear("layer", lab.frozen(O, I), o.bias ? lab.trained("bias", O) : null, PARTS, lora);
  const norm = lab.tensor([O]);
  lab.be.rowNorm(norm, linear.weight.frozen!, lora.a.value, lora.b.value, lora.scale);
  return { linear, norm, lora };
}

const parts = (t: Tensor): Tensor[] => {
  let from = 0;
  return PARTS.map((w) => ({ ...slice(t, N * from, N * (from += w)), shape: [N, w] }));
};

/** The paper's formula with the norm given, from whole matrices: y = c∘((W+sBA)x') + W(x - x') + b. */
function plainForward(lab: Lab, l: Linear, lora: Lora, norm: Tensor, out: Tensor, x: Tensor, run: Run): void {
  const { be, arena } = run, mark = arena.mark(), w = l.weight.frozen!;
  const merged = arena.act(O, I), c = arena.tensor("f32", O), xd = arena.act(N, I), rest = arena.act(N, I);
  be.copy(merged, w);
  be.matmul(merged, lora.b.value, lora.a.value, null, { alpha: lora.scale, beta: 1 });
  be.divide(c, lora.magnitude!.value, norm);
  be.dropout(xd, x, lab.seed, lora.stream, lora.dropout);
  be.scale(rest, xd, -1);
  be.add(rest, rest, x);
  let from = 0;
  parts(out).forEach((o, i) => {
    const rows = (t: Tensor) => slice(t, from, from + PARTS[i]), y = arena.act(N, PARTS[i]);
    be.matmul(y, xd, rows(merged), null, { transB: true });
    be.scaleCols(y, y, rows(c));
    be.matmul(o, rest, rows(w), l.bias && rows(l.bias.param!.value), { transB: true });
    be.add(o, o, y);
    from += PARTS[i];
  });
  arena.release(mark);
}

for (const o of [{ dropout: 0, bias: false }, { dropout: 0, bias: true }, { dropout: 0.4, bias: true }]) {
  const name = `dropout ${o.dropout}, ${o.bias ? "a" : "no"} bias`;
  test(`DoRA (${name}) computes the paper's formula and its gradients with the norm held fixed`, async () => {
    const lab = new Lab([N]), { linear, norm, lora } = build(lab, o), x = lab.tensor([N, I]);
    const [a, b] = [lab.tensor([N * O]), lab.tensor([N * O])];
    linear.forward(parts(a), x, lab.run(false));
    plainForward(lab, linear, lora, norm, b, x, lab.run(false));
    const [found, wanted] = [await lab.read(a), await lab.read(b)];
    found.forEach((v, i) => expect(v).toBeCloseTo(wanted[i], 12));
    await checkGradients(lab, {
      out: [N * O],
      x,
      forward(out, x, run) {
        // The kept pass is the module's; the differences are the formula's, where the norm stays what it was.
        if (run.keep) linear.forward(parts(out), x, run);
        else plainForward(lab, linear, lora, norm, out, x, run);
      },
      backward: (dx, dy, run) => {
        const dys = parts(dy);
        linear.backwardParams(linear.backwardInput(dx, dys, run, 0), dys, x, run);
      },
    });
  });
}
