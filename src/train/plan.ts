/**
 * What a run will need, before anything is loaded: the same code runs once on a backend that only counts.
 * @module
 */
import type { Backend } from "../core/backend.ts";
import { RecordingBackend } from "../core/recording.ts";
import { numel, type Tensor } from "../core/tensor.ts";
import type { Batch } from "../data/types.ts";
import type { TrainPlan } from "../models/adapter.ts";
import { type LoadOptions, type Model, moduleNames, placeWeights, planTraining } from "../models/load.ts";
import type { ModelSource } from "../models/source.ts";
import { checkpointing } from "../nn/checkpoint.ts";
import { Decoder } from "../nn/decoder.ts";
import { Params } from "../nn/params.ts";
import { inputBytes, Pass, type PassOptions } from "./pass.ts";
import { createOptimizer } from "./optimizers.ts";
import type { OptimOptions } from "./types.ts";

/** Bytes, by what they hold. */
export interface MemoryPlan {
  /** Frozen weights, as they lie on the device. */
  readonly weights: number;
  /** Trained tensors, f32. */
  readonly params: number;
  readonly grads: number;
  /** The optimiser's state. */
  readonly optimizer: number;
  /** Activations at their peak. */
  readonly arena: number;
  readonly inputs: number;
  /** What the backend's operations take besides. */
  readonly workspace: number;
  /** Pinned host memory in which blocks' inputs wait; no part of the total. */
  readonly host: number;
  readonly total: number;
  /** Trained elements, without padding. */
  readonly trained: number;
}

/** What a plan depends on besides the model. */
export interface PlanOptions extends Pick<LoadOptions, "lora" | "full" | "checkpoint"> {
  readonly pass: PassOptions;
  /** Absent: evaluation only. */
  readonly optim?: OptimOptions;
}

/** A decoder that computes nothing, with the memory it would take. */
interface Recorded {
  readonly rec: RecordingBackend;
  readonly decoder: Decoder;
  readonly params: Params | null;
  readonly weights: number;
  /** Whether some of them are rounded to 8 bits. */
  readonly rounded: boolean;
}

/** What a plan asks of the backend to come. */
type Target = Pick<Backend, "actDtype" | "supports" | "workspace" | "renorm">;

function recordDecoder(
  source: ModelSource,
  plan: TrainPlan,
  be: Target,
  o: Pick<LoadOptions, "checkpoint" | "maxLength">,
): Recorded {
  const rec = new RecordingBackend({ actDtype: be.actDtype, renorm: be.renorm !== undefined });
  const { bytes, places } = placeWeights(source, plan, be), handle = rec.alloc(bytes);
  const params = plan.specs.length ? new Params(rec, plan.specs) : null;
  const tensors = places.map(({ tensor, dtype, byteOffset }): [string, Tensor] => {
    return [tensor.ours, { handle, byteOffset, dtype, shape: tensor.shape }];
  });
  const decoder = new Decoder({
    ...{ be: rec, config: source.config, weights: new Map(tensors), params, moduleName: moduleNames(source) },
    checkpoint: checkpointing(rec, source.config.layers, o.checkpoint ?? true),
    ...{ adapters: plan.adapters, maxLength: o.maxLength },
  });
  return { rec, decoder, params, weights: bytes, rounded: places.some((p) => p.dtype === "fp8_128") };
}

/** Bytes of a run on a backend with `be`'s activation type and block formats. */
export function planMemory(source: ModelSource, be: Target, o: PlanOptions): MemoryPlan {
  const plan = planTraining(source, o);
  const { rec, decoder, params, weights, rounded } = recordDecoder(source, plan, be, {
    ...o,
    maxLength: o.pass.maxLength,
  });
  const slab = (params?.slabs ?? []).reduce((n, s) => n + numel(s.value) * 4, 0);
  const before = rec.memory().active;
  const optimizer = params && o.optim ? createOptimizer(rec, params, o.optim) : null;
  const optimizerBytes = rec.memory().active - before;
  optimizer?.close();
  const arena = recordPass(rec, decoder, o.pass, params !== null), inputs = inputBytes(o.pass);
  const { heads, kvHeads, headDim, dim, ffn } = source.config,
    tokens = params ? o.pass.trainTokens ?? o.pass.maxTokens : 0;
  // The gradients of gate and up, or of q, k and v, meet in one product.
  const columns8 = rounded ? Math.max(2 * ffn, (heads + 2 * kvHeads) * headDim, dim) : 0;
  const workspace = be.workspace?.({ tokens, heads, headDim, columns8 }) ?? 0;
  const total = weights + 2 * slab + optimizerBytes + arena + inputs + workspace;
  return {
    ...{ weights, params: slab, grads: slab, optimizer: optimizerBytes, arena, inputs, workspace, total },
    host: params ? decoder.offloadBytes(o.pass.trainTokens ?? o.pass.maxTokens) : 0,
    trained: params?.count ?? 0,
  };
}

/** Bytes of activations that passes over a loaded model need. */
export function planArena(model: Model, o: PassOptions): number {
  const { rec, decoder, params } = recordDecoder(model.source, model.plan, model.be, {
    checkpoint: model.checkpoint,
    maxLength: o.maxLength,
  });
  return recordPass(rec, decoder, o, params !== null);
}

/** Peak of the arena over a pass of the largest shape. */
function recordPass(rec: RecordingBackend, decoder: Decoder, o: PassOptions, train: boolean): number {
  const pass = new Pass(rec, decoder, o, Number.MAX_SAFE_INTEGER);
  if (train) pass.train(pass.upload(pass.stage(largestBatch(o, o.trainTokens ?? o.maxTokens))));
  pass.evaluate(pass.upload(pass.stage(largestBatch(o, o.maxTokens))), true);
  const peak = pass.arena.peakBytes;
  pass.close();
  rec.calls.length = 0;
  return peak;
}

/** A batch of as many tokens and sequences as the pass takes; only its shape counts. */
function largestBatch(o: PassOptions, n: number): Batch {
  const s = Math.min(o.maxSequences, n), zeros = () => new Int32Array(n);
  const cu = Int32Array.from({ length: s + 1 }, (_, i) => Math.min(n, i * o.maxLength));
  return { ids: zeros(), targets: zeros(), weights: new Float32Array(n).fill(1), pos: zeros(), cu };
}
