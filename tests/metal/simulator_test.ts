/**
 * The Metal backend through this runtime's FFI, on the simulator: the same host and kernels as on a Mac. What stands below
 * TypeScript (lint, sanitizers, removed barriers, slips in the host, the dylib under qemu) is tests/metal/run.sh.
 */
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Backend } from "../../src/core/backend.ts";
import type { Tensor } from "../../src/core/tensor.ts";
import { MemoryError } from "../../src/core/errors.ts";
import { runtime } from "../../ffi/library.ts";
import { candidate } from "../../metal/mod.ts";
import { examine } from "../../metal/examine.ts";
import { candidate as wasm } from "../../wasm/mod.ts";
import { buildSimulator, missing, ROOT, runHere } from "./simulator.ts";

const why = missing(), SLOW = 600_000;
/** Kernels and host are the same from every runtime: Deno's suite has all of them, another one each operation's call. */
const whole = runtime() === "deno";

describe.skipIf(why !== null)(`Metal on the simulator${why ? ` (${why})` : ""}`, () => {
  let library = "", folder = "";
  beforeAll(() => {
    library = buildSimulator();
    folder = mkdtempSync(join(tmpdir(), "unsloth-metal-"));
  }, SLOW);
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  test(`every operation equals the reference in ${whole ? "f32, bf16 and f16" : "f32"}`, () => {
    const { status, text } = runHere(library, "vitest", [
      "run",
      "tests/ops",
      "-t",
      whole ? "on metal" : "on metal f32",
    ]);
    const [, passed, failed] = text.match(/(\d+) passed, (\d+) failed/) ?? [];
    expect(status, text.slice(-3000)).toBe(0);
    expect(Number(failed)).toBe(0);
    expect(Number(passed)).toBeGreaterThan(whole ? 1400 : 460);
  }, SLOW);

  /** One of each: plain, windows and soft caps, q/k norms. All fifteen: deno task golden DIR --backend metal. */
  for (const name of whole ? ["llama", "gemma2", "qwen3"] : ["llama"]) {
    test.skipIf(!existsSync(`${ROOT}../shared/golden`))(`the golden case ${name} holds`, () => {
      const args = ["../shared/golden", "--backend", "metal", "--case", name];
      const { status, text } = runHere(library, "tests/golden/main.ts", args);
      expect(status, text).toBe(0);
      expect(text).toContain("1 passed, 0 failed");
    }, SLOW);
  }

  const STEPS = 50;
  if (whole) {
    test(`${STEPS} LoRA steps of the embedded model have WASM's losses to 1e-4`, () => {
      const embedded = `${ROOT}models/embedded/`;
      const losses = (backend: string): number[] => {
        const out = join(folder, backend);
        const { status, text } = runHere(library, "mod.ts", [
          ...["train", "--backend", backend, "--dtype", "float32", "--output_dir", out],
          ...["--model_name", `${embedded}unsloth-tiny.Q8_0.gguf`, "--dataset", `${embedded}instructions.jsonl`],
          ...["--max_steps", `${STEPS}`, "--per_device_train_batch_size", "1", "--gradient_accumulation_steps", "1"],
          ...["--max_seq_length", "64", "--logging_steps", "1", "--samples", "0"],
        ]);
        expect(status, text).toBe(0);
        const lines = readFileSync(join(out, "metrics.jsonl"), "utf8").trim().split("\n").map((l) => JSON.parse(l));
        return lines.filter((l) => l.loss !== undefined).map((l) => l.loss as number);
      };
      const metal = losses("metal"), cpu = losses("wasm");
      expect(metal.length).toBe(STEPS);
      metal.forEach((loss, i) => expect(Math.abs(loss - cpu[i]) / cpu[i], `step ${i + 1}`).toBeLessThan(1e-4));
    }, SLOW);
  }

  test("a memory limit is kept", async () => {
    const be = await candidate.open({ library, memoryLimit: 1000 });
    const h = be.alloc(600);
    expect(be.memory()).toMatchObject({ active: 600, limit: 1000 });
    expect(() => be.alloc(600)).toThrow(MemoryError);
    be.free(h);
    be.free(be.alloc(1000));
    be.close();
  });

  describe("doctor --metal", () => {
    let cpu: Backend;
    beforeAll(async () => void (cpu = await wasm.open({ threads: 1 })));
    afterAll(() => cpu.close());
    const report = async (against: Backend): Promise<{ good: boolean; lines: string[] }> => {
      const lines: string[] = [];
      const open = (o: object) => candidate.open({ ...o, library });
      return { good: await examine({ open, against, log: (l) => lines.push(l), speed: false }), lines };
    };

    test("finds every operation right", async () => {
      const { good, lines } = await report(cpu);
      expect(good, lines.join("\n")).toBe(true);
      expect(lines.filter((l) => l.includes("73 of 73 operations agree"))).toHaveLength(3);
      expect(lines).toContain("f16 subnormals: kept");
      expect(lines).toContain("files as memory: read as they are");
    }, SLOW);

    test("names an operation that differs", async () => {
      const wrong = new Proxy(cpu, {
        get(be, op) {
          if (op === "rope") return (x: Tensor) => be.scale(x, x, 1.01);
          const value = Reflect.get(be, op);
          return typeof value === "function" ? value.bind(be) : value;
        },
      });
      const { good, lines } = await report(wrong);
      expect(good).toBe(false);
      const named = lines.filter((l) => l.includes("WRONG"));
      expect(named.length).toBeGreaterThan(0);
      expect(named.every((l) => l.includes("WRONG rope: "))).toBe(true);
    }, SLOW);
  });
});
