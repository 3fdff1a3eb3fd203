/** Which skipped tests CI lets pass: those that need a GPU or a Mac, and no others. */
import { expect, test } from "vitest";
import { findBackends } from "../ops/backends.ts";

// By a name that compilers do not follow: it is JavaScript, which Node runs before anything is installed.
const { unexplained }: { unexplained(output: string, excuses?: RegExp[]): string[] } = await import(
  new URL("../skips.mjs", import.meta.url).href
);

test("what the backends of a machine without GPU say is let pass, alone and joined", async () => {
  const { present, refused } = await findBackends();
  present.forEach(({ be }) => be.close());
  const hardware = refused.filter((why) => /^(cuda|metal) /.test(why));
  const lines = [...hardware.map((why) => `this file on ${why}`), `8-bit > none: ${hardware.join("; ")}`];
  expect(unexplained(lines.map((line) => `skipped: ${line}`).join("\n"))).toEqual([]);
});

test("any other reason is named, also beside a good one", () => {
  const bad = [
    "skipped: llama.cpp reads what we write (needs npm install in tests/oracles) > to the bit",
    "skipped: rope > of [7] on wasm fma (Cannot run rope on wasm)",
    "skipped: a test without a reason",
    "skipped: x: cuda f32: Cannot use CUDA: no NVIDIA driver is installed; install 580 or later, or use another backend; wasm: broken",
  ];
  expect(unexplained(`1 passed\n${bad.join("\n")}\n\n1 passed, 0 failed, 4 skipped`)).toEqual(bad);
  expect(unexplained(bad.join("\n"), [/tests\/oracles/])).toEqual(bad.slice(1));
});
