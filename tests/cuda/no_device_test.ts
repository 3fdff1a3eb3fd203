/**
 * The CUDA library where there is no GPU, through this runtime's FFI: it loads, says what is missing and the way out, and
 * nothing that could have run on the CPU fails because of it.
 */
import { existsSync } from "node:fs";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import { candidate } from "../../cuda/mod.ts";
import { runtime } from "../../ffi/library.ts";
import { selectBackend } from "../../ffi/select.ts";
import { BackendError } from "../../src/core/errors.ts";
import { STATUS } from "../../ffi/abi_base.ts";
import { candidate as wasm } from "../../wasm/mod.ts";
import { start } from "../cli/process.ts";

const LIBRARY = fileURLToPath(new URL("../../cuda/prebuilt/linux-x64/libunsloth_cuda.so", import.meta.url));
const REASON = /^Cannot use CUDA: (no NVIDIA driver is installed|the driver (finds no device|supports CUDA \d)).*[^.]$/;
const WAY_OUT = /install 580 or later|update it to 580 or later|nvidia-smi/;

/** Why there is nothing to see here; null where there is. */
function why(): string | null {
  if (process.platform !== "linux" || process.arch !== "x64") return "the library is for linux x64";
  if (!existsSync(LIBRARY)) return "the library is not in this checkout";
  if (existsSync("/dev/nvidia0")) return "this machine has a GPU";
  return runtime() === "other" ? "this runtime has no FFI" : null;
}
const reason = why();

async function runProgram(...argv: string[]): Promise<{ status: number | null; output: string }> {
  const program = start(argv, { NO_COLOR: "1" });
  const status = await program.ended;
  return { status, output: program.output() };
}

describe.skipIf(reason !== null)(`CUDA without a device${reason ? ` (${reason})` : ""}`, () => {
  test("a BackendError says what is missing and the way out", async () => {
    for (let i = 0; i < 3; i++) {
      const e = await candidate.open({}).then(() => null, (e) => e);
      expect(e).toBeInstanceOf(BackendError);
      expect(e.message).toMatch(REASON);
      expect(e.message).toMatch(WAY_OUT);
      expect(e).toMatchObject({ op: "us_device_probe", status: STATUS.noDevice });
    }
  });

  test("a device's number is refused for the same reason, before it is looked at", async () => {
    await expect(candidate.open({ device: 3, actDtype: "f32" })).rejects.toThrow(REASON);
  });

  test("auto goes on with one line", async () => {
    const lines: string[] = [];
    const be = await selectBackend({
      ...{ backend: "auto", candidates: [candidate, wasm], threads: 1 },
      log: (line) => lines.push(line),
    });
    be.close();
    expect(lines).toHaveLength(2);
    expect(lines[0]).toMatch(/^Backend cuda refused: Cannot use CUDA: [^\n]+$/);
    expect(lines[1]).toMatch(/^Backend wasm: /);
  });

  test("doctor shows why, and works", async () => {
    const { status, output } = await runProgram("doctor", "--num_threads", "1");
    expect(output).toMatch(/^cuda +refused: Cannot use CUDA: [^\n]+$/m);
    expect(output).toMatch(/^wasm +works: /m);
    expect(status).toBe(0);
  });

  test("doctor --backend cuda ends with 1", async () => {
    const { status, output } = await runProgram("doctor", "--backend", "cuda");
    expect(output).toMatch(/^cuda +refused: Cannot use CUDA: /m);
    expect(output).toContain("No backend works here");
    expect(status).toBe(1);
  });

  test("train --backend cuda ends with an error and its sentence, and trains on nothing else", async () => {
    const { status, output } = await runProgram(
      ...["train", "--model_name", "embedded", "--backend", "cuda", "--max_steps", "1"],
      ...["--dataset", "models/embedded/instructions.jsonl"],
    );
    expect(output).toMatch(/Cannot use CUDA: /);
    expect(output).not.toMatch(/Backend wasm|step 1/i);
    expect(output).not.toMatch(/^\s+at /m);
    expect(status).toBe(1);
  });
});
