/** Host slots: what is stashed comes back to the bit, beside other work and within a recorded graph. */
import { expect, test } from "vitest";
import type { Backend } from "../../src/core/backend.ts";
import { byteLength, type Tensor } from "../../src/core/tensor.ts";
import { createWasmBackend } from "../../wasm/mod.ts";
import { ReferenceBackend } from "../reference/mod.ts";
import { type Case, inout, output, testOp, type Values } from "./harness.ts";

/** Numbers of the slots used here, far from a model's. */
const SLOTS = [900, 901];

/** x to one slot, 2x to another while x is overwritten, both back: a = x, b = 2x, and x = 4x after all. */
function work(be: Backend, x: Tensor, a: Tensor, b: Tensor): void {
  be.scale(b, x, 2);
  be.stash(SLOTS[0], x);
  be.stash(SLOTS[1], b);
  be.scale(a, b, 2);
  be.slotWait(SLOTS[0]);
  be.scale(x, b, 2);
  be.slotWait(SLOTS[1]);
  be.scale(b, b, -1);
  be.fetch(b, SLOTS[1]);
  be.scale(a, a, -1);
  be.slotWait(SLOTS[1]);
  be.fetch(a, SLOTS[0]);
  be.slotWait(SLOTS[0]);
}

function within(be: Backend, x: Tensor, run: () => void): void {
  for (const s of SLOTS) be.hostSlot(s, byteLength(x));
  try {
    run();
  } finally {
    for (const s of SLOTS) be.hostSlot(s, 0);
  }
}

const tensors = (shape: number[]) => ({ x: inout(shape), a: output(shape), b: output(shape) });

const CASES: Case[] = [
  ...[[1], [7, 13], [512, 1023]].map((shape): Case => ({
    name: `of [${shape}]`,
    tensors: tensors(shape),
    run: (be, { x, a, b }) => within(be, x, () => work(be, x, a, b)),
    formula: ({ x }: Values) => ({ a: x, b: x.map((v) => 2 * v), x: x.map((v) => 4 * v) }),
  })),
  {
    name: "recorded once and replayed on other values",
    tensors: tensors([37, 64]),
    run: (be, { x, a, b }) =>
      within(be, x, () => {
        work(be, x, a, b); // x is now 4x; scratch exists
        const graph = be.capture(() => work(be, x, a, b));
        if (graph) graph.launch(), graph.launch();
        else work(be, x, a, b), work(be, x, a, b);
        graph?.close();
      }),
    formula: ({ x }: Values) => ({ a: x.map((v) => 16 * v), b: x.map((v) => 32 * v), x: x.map((v) => 64 * v) }),
  },
];

testOp("stash", CASES, ["wasm"]);

test("what was never placed, is too small, or holds something else is refused", () => {
  const be = new ReferenceBackend(), x: Tensor = { handle: be.alloc(32), byteOffset: 0, dtype: "f32", shape: [8] };
  be.fill(x, 1);
  expect(() => be.stash(3, x)).toThrow("Cannot use slot 3 of host memory: nothing was placed in it");
  be.hostSlot(3, 16);
  expect(() => be.hostSlot(3, 16)).toThrow("it is taken");
  expect(() => be.stash(3, x)).toThrow("Cannot stash 32 bytes in slot 3: it has 16");
  expect(() => be.fetch(x, 3)).toThrow("Cannot fetch 8 numbers from slot 3: it holds 0");
  expect(() => be.hostSlot(-1, 16)).toThrow("Cannot use slot -1");
  expect(() => be.stash(3, { ...x, dtype: "i32" })).toThrow("x is i32");
});

test("WASM refuses by name and says why", async () => {
  const be = await createWasmBackend({ threads: 1 });
  expect(be.offloads()).toBe("nothing to gain: host memory is device memory");
  expect(() => be.hostSlot(0, 1)).toThrow("Cannot move tensors to host memory on wasm");
  be.close();
});
