/**
 * Typed reading of a transformers config: a missing field takes the family's default, a wrong one is refused by name.
 * @module
 */
import type { Act } from "../core/backend.ts";
import { ConfigError } from "../core/errors.ts";
import type { HfConfig } from "./config.ts";

/** A number, or `fallback` when the field is absent or null. @throws {ConfigError} when it is something else */
export function number(hf: HfConfig, key: string, fallback?: number): number {
  const v = hf[key] ?? fallback;
  if (typeof v === "number" && Number.isFinite(v)) return v;
  throw new ConfigError(`Cannot read the model's config: ${key} is ${JSON.stringify(hf[key])} and must be a number`);
}

/** A positive integer. */
export function size(hf: HfConfig, key: string, fallback?: number): number {
  const n = number(hf, key, fallback);
  if (Number.isSafeInteger(n) && n > 0) return n;
  throw new ConfigError(`Cannot read the model's config: ${key} is ${n} and must be a positive integer`);
}

/** A boolean, or `fallback` when absent or null. */
export function flag(hf: HfConfig, key: string, fallback: boolean): boolean {
  const v = hf[key] ?? fallback;
  if (typeof v === "boolean") return v;
  throw new ConfigError(`Cannot read the model's config: ${key} is ${JSON.stringify(v)} and must be true or false`);
}

/** One id or null; the first of a list. */
export function id(hf: HfConfig, key: string): number | null {
  return ids(hf, key)[0] ?? null;
}

/** One id or a list of them. */
export function ids(hf: HfConfig, key: string): number[] {
  const v = hf[key];
  if (v === undefined || v === null) return [];
  const list = Array.isArray(v) ? v : [v];
  if (list.every((x) => Number.isSafeInteger(x))) return list as number[];
  throw new ConfigError(`Cannot read the model's config: ${key} is ${JSON.stringify(v)} and must be token ids`);
}

/** transformers' names of activations that this build has; five of them are the tanh form (activations.py). */
const ACTIVATIONS: Readonly<Record<string, Act>> = {
  silu: "silu",
  swish: "silu",
  gelu: "gelu",
  gelu_python: "gelu",
  gelu_new: "gelu_tanh",
  gelu_fast: "gelu_tanh",
  gelu_accurate: "gelu_tanh",
  gelu_python_tanh: "gelu_tanh",
  gelu_pytorch_tanh: "gelu_tanh",
};

/** The activation of the gate. */
export function activation(name: unknown): Act {
  const act = typeof name === "string" && Object.hasOwn(ACTIVATIONS, name) ? ACTIVATIONS[name] : undefined;
  if (act) return act;
  const known = Object.keys(ACTIVATIONS).join(", ");
  throw new ConfigError(`Cannot use the activation '${name}': this build has ${known}`);
}

/**
 * Which layers slide: `layer_types` where the config has it, else `otherwise`.
 * @throws {ConfigError} for a kind of layer that is neither full nor sliding attention
 */
export function slides(hf: HfConfig, layers: number, otherwise: (layer: number) => boolean): boolean[] {
  const types = hf.layer_types;
  if (!Array.isArray(types)) return Array.from({ length: layers }, (_, n) => otherwise(n));
  if (types.length !== layers) {
    throw new ConfigError(`Cannot read the model's config: ${types.length} layer_types for ${layers} layers`);
  }
  return types.map((t) => {
    if (t === "sliding_attention" || t === "full_attention") return t === "sliding_attention";
    throw new ConfigError(`Cannot use a layer of type '${t}': this build has full_attention and sliding_attention`);
  });
}
