/** The harness itself: it notices each way in which a kernel goes wrong. */
import { describe, expect, test } from "vitest";
import type { Backend } from "../../src/core/backend.ts";
import { numel, type Tensor } from "../../src/core/tensor.ts";
import { createWasmBackend } from "../../wasm/mod.ts";
import { type Case, expectClose, input, output, runOn } from "./harness.ts";

const scaleCase: Case = {
  name: "doubles",
  tensors: { x: input([3, 5]), out: output([3, 5]) },
  run: (be, { out, x }) => be.scale(out, x, 2),
};

/** A backend whose `scale` does something more. */
async function doctored(more: (be: Backend, out: Tensor, x: Tensor) => void): Promise<Backend> {
  const be = await createWasmBackend({ threads: 1 }), scale = be.scale.bind(be);
  be.scale = (out, x, factor) => {
    scale(out, x, factor);
    more(be, out, x);
  };
  return be;
}
const past = (t: Tensor, bytes: number): Tensor => ({ ...t, byteOffset: t.byteOffset + bytes, shape: [1] });

describe("runOn()", () => {
  test("lets a right kernel pass", async () => {
    const { before, after } = await runOn(await doctored(() => {}), scaleCase, "f32");
    expectClose("out", after.out, before.x.map((v) => 2 * v), 1e-7);
  });
  test("notices a write past the end and one before the start", async () => {
    const end = await doctored((be, out) => be.fill(past(out, 4 * numel(out)), 0));
    await expect(runOn(end, scaleCase, "f32")).rejects.toThrow(
      "out [3,5]: byte 60 was written, and the tensor is bytes 0 to 60",
    );
    const start = await doctored((be, out) => be.fill(past(out, -4), 0));
    await expect(runOn(start, scaleCase, "f32")).rejects.toThrow("byte -4 was written");
  });
  test("notices a changed input", async () => {
    const be = await doctored((be, _, x) => be.fill(past(x, 8), 0));
    await expect(runOn(be, scaleCase, "f32")).rejects.toThrow("x was changed");
  });
  test("shows what was not written as NaN", async () => {
    const be = await createWasmBackend({ threads: 1 });
    be.scale = (): void => {};
    const { after } = await runOn(be, scaleCase, "f32");
    expect(() => expectClose("out", after.out, new Array(15).fill(0), 1)).toThrow("out[0] is NaN");
  });
});

describe("expectClose()", () => {
  test("judges by the norm, and names the worst element", () => {
    expectClose("x", [1, 2, 3], [1, 2, 3 + 1e-9], 1e-9);
    expect(() => expectClose("x", [1, 2.01, 3], [1, 2, 3], 1e-3)).toThrow("worst at 1: 2.01 and must be 2");
    expect(() => expectClose("x", [1, NaN], [1, 2], 1)).toThrow("x[1] is NaN");
    expect(() => expectClose("x", [1, Infinity], [1, 2], 1)).toThrow("worst at 1");
    expect(() => expectClose("x", [1], [1, 2], 1)).toThrow();
  });
  test("a result of zero must be zero to the tolerance", () => {
    expectClose("x", [0], [0], 0);
    expect(() => expectClose("x", [1e-3], [0], 1e-4)).toThrow();
  });
});
