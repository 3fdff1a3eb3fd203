import { afterAll, expect, test } from "vitest";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  type Checkpoint,
  checkSettings,
  clearCheckpoints,
  clearLeftovers,
  latestCheckpoint,
  readCheckpoint,
  saveCheckpoint,
} from "../../src/train/state.ts";

const root = mkdtempSync(join(tmpdir(), "unsloth-state-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));
const bytes = (...values: number[]) => new Uint8Array(Float32Array.from(values).buffer);
function at(step: number): Checkpoint {
  const state = {
    version: 1 as const,
    step,
    epoch: 1,
    micro: 3,
    trainedTokens: 99,
    seconds: 1.5,
    best: null,
    worse: 0,
    ranks: null,
  };
  return {
    state: { ...state, settings: { seed: 7, rows: 20 } },
    params: new Map([["model.q_proj.lora_A.weight", { dtype: "f32", shape: [1, 2], bytes: bytes(1e-45, NaN) }]]),
    moments: new Map([["main.m", { dtype: "u8", shape: [3], bytes: Uint8Array.of(1, 2, 255) }]]),
  };
}

test("a checkpoint comes back to the bit, NaN and subnormals included", async () => {
  const dir = join(root, "a"), path = await saveCheckpoint(dir, at(10), 2), back = readCheckpoint(path);
  expect(path).toBe(join(dir, "checkpoint-000010"));
  expect(back.state).toEqual(at(10).state);
  for (const part of ["params", "moments"] as const) {
    for (const [name, t] of at(10)[part]) {
      expect(back[part].get(name)).toEqual({ ...t, bytes: Uint8Array.from(t.bytes) });
    }
  }
});

test("the newest checkpoints are kept, and the newest is found by number", async () => {
  const dir = join(root, "b");
  for (const step of [9, 10, 100]) await saveCheckpoint(dir, at(step), 2);
  expect(readdirSync(dir).sort()).toEqual(["checkpoint-000010", "checkpoint-000100"]);
  expect(latestCheckpoint(dir)).toBe(join(dir, "checkpoint-000100"));
  await saveCheckpoint(dir, at(100), 2); // the same step again replaces it
  expect(readdirSync(dir)).toHaveLength(2);
  expect(latestCheckpoint(join(root, "nowhere"))).toBe(null);
});

test("a save that fails leaves the last checkpoint and no debris", async () => {
  const dir = join(root, "c"), broken = at(11);
  await saveCheckpoint(dir, at(10), 2);
  const full: Checkpoint = {
    ...broken,
    moments: new Map([["m", { dtype: "f32", shape: [5], bytes: bytes(1) }]]), // too few bytes stands for a full disk
  };
  await expect(saveCheckpoint(dir, full, 1)).rejects.toThrow(/step 11: .*checkpoint-000010 is intact/);
  expect(readdirSync(dir)).toEqual(["checkpoint-000010"]);
  expect(readCheckpoint(join(dir, "checkpoint-000010")).state.step).toBe(10);
});

test("what a killed save left is no checkpoint and is cleared away", async () => {
  const dir = join(root, "d");
  await saveCheckpoint(dir, at(1), 2);
  mkdirSync(join(dir, "checkpoint-000002.123.tmp"));
  expect(latestCheckpoint(dir)).toBe(join(dir, "checkpoint-000001"));
  clearLeftovers(dir);
  expect(readdirSync(dir)).toEqual(["checkpoint-000001"]);
  writeFileSync(join(dir, "keep.txt"), "");
  clearCheckpoints(dir);
  expect(readdirSync(dir)).toEqual(["keep.txt"]);
});

test("resuming under other settings is refused with each difference", () => {
  expect(() => checkSettings("p", { seed: 7, lr: 1 }, { seed: 7, lr: 1 })).not.toThrow();
  expect(() => checkSettings("p", { seed: 7, lr: 1 }, { seed: 8, lr: 2 })).toThrow(
    "Cannot resume from p: seed was 7 and is 8, lr was 1 and is 2",
  );
});

test("a checkpoint without its state is refused by name", async () => {
  const path = await saveCheckpoint(join(root, "e"), at(1), 1);
  rmSync(join(path, "state.json"));
  expect(() => readCheckpoint(path)).toThrow(/Cannot resume from .*checkpoint-000001/);
  expect(existsSync(path)).toBe(true);
});
