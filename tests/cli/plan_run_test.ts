/** A run is refused before anything is loaded when its plan does not fit, with the flags that would make it fit. */
import { expect, test } from "vitest";
import { llamaWithoutWeights, LORA } from "../../bench/llama_3b.ts";
import { parseArgs } from "../../src/cli/args.ts";
import { planRun, withPlan } from "../../src/cli/plan_run.ts";
import { resolve } from "../../src/cli/settings.ts";
import type { WorkspaceShape } from "../../src/core/backend.ts";
import { MemoryError } from "../../src/core/errors.ts";
import { RecordingBackend } from "../../src/core/recording.ts";
import type { Rows } from "../../src/data/types.ts";
import { type ModelSource, quantizeSource, roundSource } from "../../src/models/mod.ts";
import { createWasmBackend } from "../../wasm/mod.ts";

const GIB = 2 ** 30;

/** A GPU of that many GiB of which nothing but the size is asked. */
class Device extends RecordingBackend {
  readonly #known: readonly string[];

  constructor(gib: number, known: readonly string[] = ["fp8_128", "nf4"]) {
    super({ actDtype: "bf16", limit: gib * GIB });
    this.#known = known;
  }
  override supports(dtype: string): boolean {
    return ["f32", "bf16", "f16", ...this.#known].includes(dtype);
  }
}

/** Rows of 2,048 tokens each. */
const ROWS: Rows = {
  length: 64,
  tokens: () => 2048,
  at: () => {
    throw new Error("a plan reads no row");
  },
  close: () => {},
};

/** Plans a run of Llama-3.2-3B's shape by the flags that matter here. */
function plan(device: RecordingBackend, ...flags: string[]) {
  const { config } = resolve("train", parseArgs("train", ["--model_name", "m", ...flags]));
  let source: ModelSource = llamaWithoutWeights();
  if (config.load_in_4bit) source = quantizeSource(source);
  if (config.load_in_fp8) source = roundSource(source);
  return planRun(config, source, device, LORA, {
    ...{ rows: ROWS, heldOut: null, smoothing: 0, evalBatchSize: 4, evalEvery: 0, patience: 0, logEvery: 1, dir: "" },
    feed: {
      ...{ batchSize: config.per_device_train_batch_size, accumulation: config.gradient_accumulation_steps, seed: 1 },
    },
    optim: {
      ...{ name: "adamw_torch", lr: 1, betas: [0.9, 0.999], eps: 1e-8, weightDecay: 0, maxGradNorm: 1 },
      ...{ schedule: "constant", warmupSteps: 0, totalSteps: 1 },
    },
    ...{ saveEvery: 0, keep: 1, resume: false, tensorboard: false, settings: {} },
  });
}

function refused(device: RecordingBackend, ...flags: string[]): MemoryError {
  try {
    plan(device, ...flags);
  } catch (e) {
    if (e instanceof MemoryError) return e;
    throw e;
  }
  throw new Error("It was not refused");
}

/** The flags a refusal proposes, one list a line. */
const proposed = (e: MemoryError) =>
  e.message.split("\n").filter((l) => l.startsWith("  --")).map((l) => l.trim().replace(/ +[\d.]+ [GM]B$/, ""));

const PLAIN = ["--per_device_train_batch_size", "8", "--gradient_accumulation_steps", "1"];
const NONE = ["--use_gradient_checkpointing", "none"];

test("the backend is told what products with 8-bit weights read at once", () => {
  const shapes: WorkspaceShape[] = [];
  class Asked extends Device {
    readonly workspace = (shape: WorkspaceShape) => (shapes.push(shape), 0);
  }
  const columns = (...flags: string[]) => {
    shapes.length = 0;
    plan(new Asked(80), ...PLAIN, ...flags);
    return [...new Set(shapes.map((x) => x.columns8))];
  };
  expect(columns()).toEqual([0]);
  expect(columns("--load_in_fp8")).toEqual([2 * 8192]); // the gradients of gate and up
});

test("a plan that exceeds the device is refused with its table; every flag proposed makes the run fit", () => {
  const e = refused(new Device(16), ...PLAIN, ...NONE);
  expect(e.needed).toBeGreaterThan(33 * GIB);
  expect(e.available).toBe(16 * GIB);
  expect(e.message).toMatch(
    /^Cannot train: the run needs 3\d\.\d\d GB and the device has 17\.18 GB left\n {2}weights +6\.4/,
  );
  const rows = e.message.split("\n").slice(1, 6).map((l) => Number(/([\d.]+) GB$/.exec(l)?.[1] ?? 0));
  expect(rows.reduce((a, b) => a + b)).toBeCloseTo(e.needed / 1e9, 0);
  const flags = proposed(e);
  expect(flags).toEqual([
    "--use_gradient_checkpointing selective",
    "--use_gradient_checkpointing offload",
    "--per_device_train_batch_size 2 --gradient_accumulation_steps 4",
  ]);
  for (const f of flags) {
    expect(plan(new Device(16), ...PLAIN, ...NONE, ...f.split(" ")).memory.total).toBeLessThan(16 * GIB);
  }
});

test("where no flag is enough alone, they are joined until the run fits", () => {
  const flags = proposed(refused(new Device(5), ...PLAIN, ...NONE));
  expect(flags).toHaveLength(1);
  expect(flags[0]).toContain("offload --load_in_4bit");
  expect(plan(new Device(5), ...PLAIN, ...NONE, ...flags[0].split(" ")).memory.total).toBeLessThan(5 * GIB);
  expect(refused(new Device(1), ...PLAIN).message).toMatch(/Nothing here makes it fit; lower --max_seq_length/);
});

test("what a device cannot do is not proposed", () => {
  const device = new Device(16, []);
  device.offloads = () => null;
  expect(proposed(refused(device, ...PLAIN, ...NONE)).join()).not.toMatch(/fp8|4bit/);
  const own = new Device(9, []);
  (own as { offloads(): string | null }).offloads = () => "nothing to gain";
  expect(proposed(refused(own, ...PLAIN)).join()).not.toContain("offload");
});

test("unsloth keeps what fits into half, and moves the blocks' inputs only where they are too much for all of it", () => {
  const roomy = plan(new Device(80), ...PLAIN),
    half = plan(new Device(30), ...PLAIN),
    tight = plan(new Device(9), ...PLAIN);
  expect(Math.min(...roomy.checkpoint.levels)).toBeGreaterThanOrEqual(4);
  expect(half.checkpoint.offload).toBeUndefined();
  expect(half.memory.total).toBeLessThanOrEqual(15 * GIB);
  expect(half.memory.total).toBeGreaterThan(14 * GIB);
  expect(tight.checkpoint.offload).toBe(true);
  expect(tight.memory.host).toBe(26 * 2 * 16384 * 3072); // all inputs but the last two blocks'
});

test("offload is refused by name where host memory is the device's", async () => {
  const be = await createWasmBackend({ threads: 1 });
  expect(() => plan(be as unknown as RecordingBackend, ...PLAIN, "--gradient_checkpointing", "offload")).toThrow(
    "Cannot use --use_gradient_checkpointing offload on wasm: nothing to gain: host memory is device memory",
  );
  be.close();
});

test("a device that has less than it said gets its words and the plan", () => {
  const { memory } = plan(new Device(80), ...PLAIN), e = new MemoryError("Cannot allocate 9 bytes", 9, 3);
  expect(withPlan(e, memory).message).toMatch(
    /^Cannot allocate 9 bytes; the plan of this run takes [\d.]+ GB:\n {2}weights/,
  );
});
