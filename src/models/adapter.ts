/**
 * Which tensors of a model are trained, and which of its linears (or its embedding) carry an adapter: peft's rules
 * (targets.ts), worked out against the family's list of tensors.
 * @module
 */
import { ConfigError } from "../core/errors.ts";
import { type AdapterSettings, isWhole, rankOf, scaleOf } from "../formats/adapter.ts";
import type { AdapterSpec } from "../nn/decoder.ts";
import type { ParamSpec } from "../nn/params.ts";
import type { ModelConfig } from "./config.ts";
import type { NamedTensor } from "./names.ts";
import { isAdapted, refuseUnmatched } from "./targets.ts";

/** How the low-rank matrices start. `default`: A uniform, B zero, so the first step sees the base model. */
export type LoraStart = "default" | "gaussian" | "pissa" | "loftq";

/** peft's settings, and what it has beyond what an adapter file needs. */
export interface LoraOptions extends AdapterSettings {
  readonly start?: LoraStart;
  /** Seed of A's start. Default 3407, Unsloth's random_state. */
  readonly seed?: number;
}

/** What will be trained. */
export interface TrainPlan {
  readonly specs: readonly ParamSpec[];
  /** By transformers' module name. */
  readonly adapters: ReadonlyMap<string, AdapterSpec>;
  /** Trained copies of the model's own tensors: parameter name to the tensor's transformers name. */
  readonly copies: ReadonlyMap<string, string>;
  /** True when the model's own tensors are trained in place: there is no frozen copy. */
  readonly full: boolean;
  /** Modules whose frozen weight is rewritten before training (PiSSA), so that it needs a dense type. */
  readonly rewritten: ReadonlySet<string>;
}

/** Nothing is trained: inference. */
export const FROZEN: TrainPlan = {
  ...{ specs: [], adapters: new Map(), copies: new Map(), full: false, rewritten: new Set<string>() },
};

/** LoRA's usual targets: every linear of a block. */
export function blockLinears(c: ModelConfig): string[] {
  return c.fused
    ? ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"]
    : ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];
}

/** Every tensor is trained. */
export function planFull(tensors: readonly NamedTensor[]): TrainPlan {
  const specs = tensors.map((t) => ({ name: t.hf, shape: t.shape }));
  return {
    specs,
    adapters: new Map(),
    copies: new Map(tensors.map((t) => [t.hf, t.hf])),
    full: true,
    rewritten: new Set(),
  };
}

/** `model.layers.0.self_attn.q_proj` of `model.layers.0.self_attn.q_proj.weight`. */
export const moduleOf = (tensor: string): string => tensor.replace(/\.(weight|bias)$/, "");

/**
 * Adapters by peft's rules (tuners_utils.check_target_module_exists).
 * @throws {ConfigError} when a target matches nothing, or names what cannot carry an adapter
 */
export function planLora(c: ModelConfig, tensors: readonly NamedTensor[], o: LoraOptions): TrainPlan {
  const modules = adaptable(c, tensors);
  const targets = o.targetModules === "all-linear" ? blockLinears(c) : o.targetModules;
  if (typeof targets === "string" && o.layersToTransform?.length) {
    throw new ConfigError("Cannot use layers_to_transform with one expression of targets: name the layers in it");
  }
  refuseUnmatched(targets, [...modules.keys()], tensors.map((t) => moduleOf(t.hf)));
  const chosen = [...modules].filter(([m]) => isAdapted(m, targets, o));
  if (chosen.length === 0) throw new ConfigError("Cannot train adapters: no module is left after exclusions");
  const adapters = new Map<string, AdapterSpec>(), specs: ParamSpec[] = [];
  const table = moduleOf(tensors.find((t) => t.ours === "embed")!.hf);
  for (const [module, [outputs, inputs]] of chosen) {
    const rank = rankOf(o, module);
    adapters.set(module, { scale: scaleOf(o, module), dropout: o.dropout });
    if (module === table) {
      if (o.dora) throw new ConfigError(`Cannot adapt '${table}' with DoRA: this build has it for linear layers only`);
      specs.push({ name: `${module}.lora_embedding_A`, shape: [outputs, rank] });
      specs.push({ name: `${module}.lora_embedding_B`, shape: [inputs, rank] });
      continue;
    }
    specs.push({ name: `${module}.lora_A.weight`, shape: [rank, inputs] });
    specs.push({ name: `${module}.lora_B.weight`, shape: [outputs, rank] });
    if (o.dora) specs.push({ name: `${module}.lora_magnitude_vector.weight`, shape: [outputs] });
  }
  const copies = trainedCopies(c, tensors, o, adapters);
  const shapes = new Map(tensors.map((t) => [t.hf, t.shape]));
  for (const [name, tensor] of copies) specs.push({ name, shape: shapes.get(tensor)! });
  const rewritten = new Set(o.start === "pissa" ? [...adapters.keys()].filter((m) => m !== table) : []);
  if (c.tied && rewritten.has("lm_head")) {
    throw new ConfigError("Cannot start the adapter of 'lm_head' as 'pissa': its weight is the embedding's too");
  }
  return { specs, adapters, copies, full: false, rewritten };
}

/** Modules that can carry an adapter: linears with [outputs, inputs], the embedding with [V,D]. */
function adaptable(c: ModelConfig, tensors: readonly NamedTensor[]): Map<string, readonly number[]> {
  const out = new Map<string, readonly number[]>();
  for (const t of tensors) if (t.shape.length === 2) out.set(moduleOf(t.hf), t.shape);
  if (c.tied) out.set("lm_head", [c.vocab, c.dim]);
  return out;
}

/** Biases and modules_to_save, under the names peft gives them. */
function trainedCopies(
  c: ModelConfig,
  tensors: readonly NamedTensor[],
  o: LoraOptions,
  adapters: ReadonlyMap<string, AdapterSpec>,
): Map<string, string> {
  const copies = new Map<string, string>();
  for (const t of tensors) {
    const module = moduleOf(t.hf), suffix = t.hf.slice(module.length);
    if (isWhole(module, o.modulesToSave)) copies.set(`${module}.modules_to_save${suffix}`, t.hf);
    else if (suffix === ".bias" && (o.bias === "all" || (o.bias === "lora_only" && adapters.has(module)))) {
      copies.set(adapters.has(module) ? `${module}.base_layer.bias` : t.hf, t.hf);
    }
  }
  if (c.tied && isWhole("lm_head", o.modulesToSave)) {
    copies.set("lm_head.modules_to_save.weight", "model.embed_tokens.weight");
  }
  for (const m of o.modulesToSave) {
    if (![...copies.keys()].some((name) => isWhole(moduleOf(name).replace(".modules_to_save", ""), [m]))) {
      throw new ConfigError(`Cannot train '${m}' whole: no module of the model ends so`);
    }
    if ([...adapters.keys()].some((a) => isWhole(a, [m]))) {
      throw new ConfigError(`Cannot train '${m}' whole and adapt it: name it in one of the two`);
    }
  }
  return copies;
}
