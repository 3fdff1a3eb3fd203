/** How adapters start: the values of A, B and DoRA's m before the first step. @module */
import type { Backend } from "../core/backend.ts";
import { ConfigError } from "../core/errors.ts";
import { Random } from "../core/philox.ts";
import { numel, type Tensor } from "../core/tensor.ts";
import type { Params } from "../nn/params.ts";
import type { LoraOptions, TrainPlan } from "./adapter.ts";
import type { ModelSource } from "./source.ts";

/** What a start may look at. */
export interface StartInput {
  readonly source: ModelSource;
  readonly be: Backend;
  readonly plan: TrainPlan;
  readonly params: Params;
  readonly weights: ReadonlyMap<string, Tensor>;
  readonly options: LoraOptions;
}

/** Unsloth's default random_state. */
const SEED = 3407;

/** Writes the adapters' first values to the device. */
export async function startAdapters(s: StartInput): Promise<void> {
  const start = s.options.start ?? "default";
  if (start !== "default" && start !== "gaussian") throw new ConfigError(`Cannot start adapters as '${start}'`);
  let stream = 0;
  for (const module of s.plan.adapters.keys()) {
    const a = s.params.get(`${module}.lora_A.weight`)!.value, [rank, inputs] = a.shape;
    const random = new Random(s.options.seed ?? SEED, stream++), values = new Float32Array(numel(a));
    // peft: kaiming_uniform with a = √5, which is uniform in ±1/√inputs; or normal with deviation 1/rank.
    const bound = 1 / Math.sqrt(inputs);
    for (let i = 0; i < values.length; i++) {
      values[i] = start === "gaussian" ? random.normal() / rank : (2 * random.uniform() - 1) * bound;
    }
    s.be.upload(a, values); // B is zero already
    startMagnitude(s, module);
  }
  await s.be.fence();
}

/** m = ‖W + s·B·A‖ by row, so that DoRA starts as the model it adapts. */
function startMagnitude(s: StartInput, module: string): void {
  const m = s.params.get(`${module}.lora_magnitude_vector.weight`);
  if (!m) return;
  const a = s.params.get(`${module}.lora_A.weight`)!, b = s.params.get(`${module}.lora_B.weight`)!;
  s.be.rowNorm(m.value, weightOf(s, module), a.value, b.value, s.plan.adapters.get(module)!.scale);
}

/** The frozen weight of a module. */
export function weightOf(s: Pick<StartInput, "source" | "weights">, module: string): Tensor {
  const named = s.source.tensors.find((t) => t.hf === `${module}.weight`);
  const w = s.weights.get(named?.ours ?? (module === "lm_head" ? "embed" : ""));
  if (!w) throw new ConfigError(`Cannot start the adapter of '${module}': it has no frozen weight`);
  return w;
}
