/** Puts a model under lower ranks in the middle of a run: values, moments and settings follow. @module */
import type { Backend } from "../core/backend.ts";
import { ConfigError } from "../core/errors.ts";
import { numel, type Tensor } from "../core/tensor.ts";
import type { LoraOptions } from "../models/adapter.ts";
import { type Model, readapt } from "../models/load.ts";
import type { Param } from "../nn/module.ts";
import { allotRanks, analyse, cutPair, type Pair, type PairSide } from "./adaptive_rank.ts";
import { createOptimizer } from "./optimizers.ts";
import type { Optimizer, OptimOptions } from "./types.ts";

/** What a run goes on with. */
export interface Lowered {
  readonly model: Model;
  readonly optimizer: Optimizer;
  /** By module. */
  readonly ranks: ReadonlyMap<string, number>;
  /** Trained parameters of the pairs, before and after. */
  readonly before: number;
  readonly after: number;
}

/** Parameters of all pairs at an average rank. */
function pairParameters(model: Model, rank: number): number {
  const sizes = [...model.plan.adapters.keys()].map((m) => {
    const a = model.params!.get(`${m}.lora_A.weight`)!.value, b = model.params!.get(`${m}.lora_B.weight`)!.value;
    return a.shape[1] + b.shape[0];
  });
  return rank * sizes.reduce((x, y) => x + y, 0);
}

/**
 * Lowers ranks until the pairs have as many parameters as `rank` in every layer would give.
 * @param t steps done, for the moments' bias corrections
 * @throws {ConfigError} for an optimiser without f32 first and second moments
 */
export async function lowerRanks(
  model: Model,
  optimizer: Optimizer,
  o: OptimOptions,
  t: number,
  rank: number,
): Promise<Lowered> {
  const { be } = model, state = await readState(model, optimizer, o, t);
  const pairs = [...model.plan.adapters.keys()].map((module) => pairOf(module, state));
  const analyses = pairs.map(analyse);
  const ranks = allotRanks(analyses, pairParameters(model, rank));
  const cut = analyses.map((x) => cutPair(x, ranks.get(x.pair.module)!));
  for (const { module, rank: r } of cut) ranks.set(module, r);
  const lora = withRanks(model, ranks);
  optimizer.close();
  const next = readapt(model, lora), fresh = createOptimizer(be, next.params!, o);
  writeState(next, fresh, o, t, new Map([...state, ...cut.flatMap(sides)]));
  const count = (list: readonly Pair[]) => list.reduce((n, p) => n + p.rank * (p.inputs + p.outputs), 0);
  return { model: next, optimizer: fresh, ranks, before: count(pairs), after: count(cut) };
}

const sides = (p: Pair): [string, PairSide][] => [
  [`${p.module}.lora_A.weight`, p.a],
  [`${p.module}.lora_B.weight`, p.b],
];

function pairOf(module: string, state: ReadonlyMap<string, PairSide & { shape: readonly number[] }>): Pair {
  const a = state.get(`${module}.lora_A.weight`)!, b = state.get(`${module}.lora_B.weight`)!;
  return { module, rank: a.shape[0], inputs: a.shape[1], outputs: b.shape[0], a, b };
}

/** The settings with each pair's own rank, and alphas that leave every scale as it was. */
export function withRanks(model: Model, ranks: ReadonlyMap<string, number>): LoraOptions {
  const lora = model.lora!, alphaPattern: Record<string, number> = {};
  for (const [module, rank] of ranks) {
    const { scale } = model.plan.adapters.get(module)!;
    alphaPattern[module] = scale * (lora.rslora ? Math.sqrt(rank) : rank);
  }
  return { ...lora, rankPattern: Object.fromEntries(ranks), alphaPattern };
}

/** A parameter's part of a tensor that is laid out as its slab. */
function partOf(p: Param, whole: Tensor): Tensor {
  return { ...whole, byteOffset: p.value.byteOffset, shape: p.value.shape };
}

/** First and second moments of a parameter. */
function momentsOf(model: Model, optimizer: Optimizer, p: Param): [m: Tensor, v: Tensor] {
  const slab = model.params!.slabs.find((s) => s.params.includes(p))!, state = optimizer.state();
  const [m, v] = ["m", "v"].map((key) => state.get(`${slab.group}.${key}`));
  if (m?.dtype !== "f32" || v?.dtype !== "f32") {
    throw new ConfigError("Cannot lower ranks with this optimiser: adamw_torch keeps the moments they are judged by");
  }
  return [partOf(p, m), partOf(p, v)];
}

/** Values and bias-corrected moments of all parameters. */
async function readState(model: Model, optimizer: Optimizer, o: OptimOptions, t: number) {
  const out = new Map<string, PairSide & { shape: readonly number[] }>(), [b1, b2] = o.betas.map((b) => 1 - b ** t);
  for (const p of model.params!.list) {
    const [m, v] = momentsOf(model, optimizer, p);
    const [value, first, second] = [await read(model.be, p.value), await read(model.be, m), await read(model.be, v)];
    out.set(p.name, { value, m: first.map((x) => x / b1), v: second.map((x) => x / b2), shape: p.value.shape });
  }
  return out;
}

async function read(be: Backend, t: Tensor): Promise<Float32Array> {
  const out = new Float32Array(numel(t));
  await be.download(t, out);
  return out;
}

function writeState(
  model: Model,
  optimizer: Optimizer,
  o: OptimOptions,
  t: number,
  all: ReadonlyMap<string, PairSide>,
): void {
  const [b1, b2] = o.betas.map((b) => 1 - b ** t);
  for (const p of model.params!.list) {
    const { value, m, v } = all.get(p.name)!, [first, second] = momentsOf(model, optimizer, p);
    model.be.upload(p.value, value);
    model.be.upload(first, m.map((x) => x * b1));
    model.be.upload(second, v.map((x) => x * b2));
  }
}
