/** The committed kernels are those that the sources beside them compile to. */
import { Buffer } from "node:buffer";
import { createHash } from "node:crypto";
import { describe, expect, test } from "vitest";
import { assemblePanels, compile, hashPanels, hashSources } from "../../wasm/build.ts";
import * as fma from "../../wasm/kernels_fma.wasm.ts";
import * as mul from "../../wasm/kernels_mul.wasm.ts";
import * as panels from "../../wasm/kernels_panels.wasm.ts";
import { VARIANTS } from "../../wasm/micro_kernel.ts";

const COMMITTED = { fma, mul };
const sha256 = (b: Uint8Array): string => createHash("sha256").update(b).digest("hex");

describe.each(VARIANTS)("the $name kernels", (v) => {
  const committed = COMMITTED[v.name], bytes = Buffer.from(committed.base64, "base64");

  test("carry the hash of wasm/assembly as it is now", () => {
    expect(committed.sources, "run: deno run -A wasm/build.ts").toBe(hashSources(v));
  });

  test("are the bytes they say they are", () => {
    expect(sha256(bytes)).toBe(committed.binary);
  });

  test("compile to the same bytes again", async () => {
    expect(sha256(await compile(v)), "run: deno run -A wasm/build.ts").toBe(committed.binary);
  });

  test("import the shared memory, and the fused ones the tile over structs", () => {
    const wanted = WebAssembly.Module.imports(new WebAssembly.Module(bytes)).map((x) => `${x.module}.${x.name}`);
    const tile = ["fillPlain", "fillTransposed", "multiply", "take"].map((f) => `panels.${f}`);
    expect(wanted.toSorted()).toEqual(["env.memory", ...v.fused ? tile : []].toSorted());
  });
});

describe("the tile over structs", () => {
  test("is what wasm/panel_kernel.ts writes", async () => {
    expect(panels.sources, "run: deno run -A wasm/build.ts").toBe(hashPanels());
    expect(sha256(Buffer.from(panels.base64, "base64"))).toBe(panels.binary);
    expect(sha256(await assemblePanels()), "run: deno run -A wasm/build.ts").toBe(panels.binary);
  });
});

test("the kernels take less than 220 KB of the package", () => {
  expect(fma.base64.length + mul.base64.length + panels.base64.length).toBeLessThan(220_000);
});
