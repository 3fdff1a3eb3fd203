/**
 * How adapters start: the values of A, B and DoRA's m before the first step, by peft's formulas. PiSSA and LoftQ take them
 * from the singular vectors of the weight or of what quantising left of it; after PiSSA the frozen weight is the rest.
 * @module
 */
import type { Backend } from "../core/backend.ts";
import { ConfigError } from "../core/errors.ts";
import { Random } from "../core/philox.ts";
import { numel, type Tensor } from "../core/tensor.ts";
import type { FloatTensor } from "../formats/adapter.ts";
import type { Params } from "../nn/params.ts";
import type { LoraOptions, TrainPlan } from "./adapter.ts";
import { type LowRank, topSingular } from "./low_rank.ts";
import { isQuantized } from "./quantized.ts";
import { readRows } from "./rows.ts";
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

/** The embedding's stream of random numbers, apart from the linears', which are counted from 0. */
const TABLE_STREAM = 0x80000000;

/**
 * Writes the adapters' first values to the device.
 * @returns PiSSA's first A and B by parameter name, without which its adapter means nothing to the original weights; else
 * an empty map
 * @throws {ConfigError} when LoftQ is asked for and the weights were not quantised at load
 */
export async function startAdapters(s: StartInput): Promise<Map<string, FloatTensor>> {
  const kind = s.options.start ?? "default", first = new Map<string, FloatTensor>();
  if (kind === "loftq" && !isQuantized(s.source)) {
    throw new ConfigError("Cannot start adapters as 'loftq': the weights are not quantised; load them in 4 bits");
  }
  let stream = 0;
  for (const module of s.plan.adapters.keys()) {
    if (s.params.get(`${module}.lora_embedding_B`)) {
      startTable(s, module);
      continue;
    }
    if (kind === "pissa") await startPissa(s, module, first);
    else if (kind === "loftq") await startLoftq(s, module);
    else startRandom(s, module, kind, stream++);
    startMagnitude(s, module);
  }
  await s.be.fence();
  return first;
}

const parts = (s: StartInput, module: string): { a: Tensor; b: Tensor; scale: number } => ({
  a: s.params.get(`${module}.lora_A.weight`)!.value,
  b: s.params.get(`${module}.lora_B.weight`)!.value,
  scale: s.plan.adapters.get(module)!.scale,
});

/** A uniform in ±1/√inputs (kaiming_uniform with a = √5), or normal with deviation 1/rank; B is zero already. */
function startRandom(s: StartInput, module: string, kind: "default" | "gaussian", stream: number): void {
  const { a } = parts(s, module), [rank, inputs] = a.shape, bound = 1 / Math.sqrt(inputs);
  const random = new Random(s.options.seed ?? SEED, stream), values = new Float32Array(numel(a));
  for (let i = 0; i < values.length; i++) {
    values[i] = kind === "gaussian" ? random.normal() / rank : (2 * random.uniform() - 1) * bound;
  }
  s.be.upload(a, values);
}

/** Whatever the start: A is zero already and B normal (peft's Embedding.reset_lora_parameters). */
function startTable(s: StartInput, module: string): void {
  const b = s.params.get(`${module}.lora_embedding_B`)!.value,
    random = new Random(s.options.seed ?? SEED, TABLE_STREAM);
  s.be.upload(b, Float32Array.from({ length: numel(b) }, () => random.normal()));
}

/** B·A·scale = the matrix: each factor takes the root of the singular value. */
function upload(s: StartInput, module: string, m: LowRank): [FloatTensor, FloatTensor] {
  const { a, b, scale } = parts(s, module), [rank, inputs] = a.shape, [outputs] = b.shape;
  const root = m.s.map((x) => Math.sqrt(x / scale));
  const av = Float32Array.from({ length: rank * inputs }, (_, i) => {
    const j = Math.floor(i / inputs);
    return (root[j] ?? 0) * (m.v[j]?.[i % inputs] ?? 0); // a rank beyond the matrix's own stays zero
  });
  const bv = Float32Array.from({ length: outputs * rank }, (_, i) => {
    const j = i % rank;
    return (root[j] ?? 0) * (m.u[j]?.[Math.floor(i / rank)] ?? 0);
  });
  s.be.upload(a, av);
  s.be.upload(b, bv);
  return [{ shape: a.shape, values: av }, { shape: b.shape, values: bv }];
}

/** Meng et al. 2024: the principal part is trained, the rest is frozen. */
async function startPissa(s: StartInput, module: string, first: Map<string, FloatTensor>): Promise<void> {
  const w = weightOf(s, module), { a, b, scale } = parts(s, module);
  const [av, bv] = upload(s, module, await topSingular(s.be, w, a.shape[0], s.options.seed ?? SEED));
  s.be.matmul(w, b, a, null, { alpha: -scale, beta: 1 });
  first.set(`${module}.lora_A.weight`, av);
  first.set(`${module}.lora_B.weight`, bv);
}

/** Li et al. 2023, one iteration: the adapter makes up for what quantising took. */
async function startLoftq(s: StartInput, module: string): Promise<void> {
  const w = weightOf(s, module), { a } = parts(s, module), source = s.source;
  if (!isQuantized(source)) return;
  const t = source.exact.tensors.find((x) => x.hf === `${module}.weight`);
  if (!t || w.dtype === t.stored.dtype) return startRandom(s, module, "default", 0); // nothing was taken
  const rest: Tensor = { handle: s.be.alloc(numel(w) * 4), byteOffset: 0, dtype: "f32", shape: w.shape };
  const lost: Tensor = { ...rest, handle: s.be.alloc(numel(w) * 4) };
  for (const { from, to, values } of readRows(t, source.config, "f32")) {
    const rows: Tensor = { ...rest, byteOffset: from * w.shape[1] * 4, shape: [to - from, w.shape[1]] };
    s.be.upload(rows, values);
  }
  s.be.copy(lost, w);
  s.be.scale(lost, lost, -1);
  s.be.add(rest, rest, lost);
  upload(s, module, await topSingular(s.be, rest, a.shape[0], s.options.seed ?? SEED));
  for (const x of [rest, lost]) s.be.free(x.handle);
}

/** m = ‖W + s·B·A‖ by row, so that DoRA starts as the model it adapts. */
function startMagnitude(s: StartInput, module: string): void {
  const m = s.params.get(`${module}.lora_magnitude_vector.weight`);
  if (!m) return;
  const { a, b, scale } = parts(s, module);
  s.be.rowNorm(m.value, weightOf(s, module), a, b, scale);
}

/** The frozen weight of a module. */
function weightOf(s: Pick<StartInput, "source" | "weights">, module: string): Tensor {
  const named = s.source.tensors.find((t) => t.hf === `${module}.weight`);
  const w = s.weights.get(named?.ours ?? (module === "lm_head" ? "embed" : ""));
  if (!w) throw new ConfigError(`Cannot start the adapter of '${module}': it has no frozen weight`);
  return w;
}
