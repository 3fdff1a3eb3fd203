/**
 * A LoRA adapter as data, whatever program wrote it: settings and tensors under transformers' names. What each pair
 * means (rank, scale, DoRA magnitude) is worked out here, once, for merging and for every format.
 * @module
 */
import { ConfigError } from "../core/errors.ts";

/** Values with their shape, row-major. */
export interface FloatTensor {
  readonly shape: readonly number[];
  readonly values: Float32Array;
}

/** What PEFT calls LoraConfig, the part that changes what an adapter means. */
export interface AdapterSettings {
  /** Rank where rankPattern names none. */
  readonly r: number;
  readonly alpha: number;
  /** Scale is alpha/√r instead of alpha/r (Kalajdzievski 2023). */
  readonly rslora: boolean;
  /** Weight-decomposed: magnitude vectors beside the pairs (Liu et al. 2024). */
  readonly dora: boolean;
  readonly dropout: number;
  /** Suffixes of module names, or one regular expression. */
  readonly targetModules: Names;
  /** Only modules of these layers, but for targets that are named whole; absent or empty: all. */
  readonly layersToTransform?: readonly number[];
  /** What the list of layers may be called, as regular expressions; absent or empty: anything. */
  readonly layersPattern?: readonly string[];
  /** Suffixes of modules that are left out, or one regular expression; absent: none. */
  readonly excludeModules?: Names;
  /** Rank by regular expression over the end of a module's name; the first that matches counts. */
  readonly rankPattern: Readonly<Record<string, number>>;
  readonly alphaPattern: Readonly<Record<string, number>>;
  /** Modules trained whole and saved whole. */
  readonly modulesToSave: readonly string[];
  readonly bias: "none" | "all" | "lora_only";
  /** Hub id or path of the base model; null when not known. */
  readonly baseModel: string | null;
}

/** An adapter: settings, and tensors by name without PEFT's prefix, e.g. `model.layers.0.self_attn.q_proj.lora_A.weight`. */
export interface Adapter {
  readonly settings: AdapterSettings;
  readonly tensors: ReadonlyMap<string, FloatTensor>;
}

/** ΔW = scale · b · a; with `magnitude` m the merged weight is m ⊙ (W+ΔW)/‖W+ΔW‖ by rows. */
export interface LoraPair {
  readonly a: Float32Array /* [R,I] */;
  readonly b: Float32Array /* [O,R] */;
  readonly rank: number;
  readonly inputs: number;
  readonly outputs: number;
  readonly scale: number;
  readonly magnitude: Float32Array | null /* [O] */;
}

/** What an adapter does to a model: pairs by module name, whole tensors by tensor name. */
export interface AdapterParts {
  /** By module, e.g. `model.layers.0.self_attn.q_proj`. */
  readonly pairs: ReadonlyMap<string, LoraPair>;
  /** By module: pairs on an embedding table, a [R,V] and b [D,R]; ΔW = scale · (b·a)ᵀ. */
  readonly embeddings: ReadonlyMap<string, LoraPair>;
  /** Replacements of whole tensors (modules_to_save, trained biases), by tensor name. */
  readonly whole: ReadonlyMap<string, FloatTensor>;
}

/** A setting's regular expression over all of a name. @throws {ConfigError} for one that JavaScript does not read */
export function expression(pattern: string): RegExp {
  try {
    return new RegExp(`^(?:${pattern})$`);
  } catch (e) {
    throw new ConfigError(`Cannot use the regular expression '${pattern}': ${(e as Error).message}`);
  }
}

/** Suffixes of module names, or one regular expression over all of a name. */
export type Names = readonly string[] | string;

/** Whether a module is among the named. */
export function isNamed(module: string, names: Names): boolean {
  if (typeof names === "string") return expression(names).test(module);
  return names.some((t) => module === t || module.endsWith(`.${t}`));
}

/** Whether modules_to_save names a module, or one that it lies in (peft, utils/other.py, _set_trainable). */
export function isWhole(module: string, modulesToSave: readonly string[]): boolean {
  const parts = module.split("."), within = parts.map((_, i) => parts.slice(0, i + 1).join("."));
  return within.some((m) => modulesToSave.some((name) => m.endsWith(name)));
}

/** The value of the first pattern that matches the end of `module`, as peft's get_pattern_key. */
function patternValue(patterns: Readonly<Record<string, number>>, module: string, otherwise: number): number {
  for (const [pattern, value] of Object.entries(patterns)) {
    if (expression(`(?:.*\\.)?(?:${pattern})`).test(module)) return value;
  }
  return otherwise;
}

/** Rank of `module` by the settings. */
export function rankOf(s: AdapterSettings, module: string): number {
  return patternValue(s.rankPattern, module, s.r);
}

/** Alpha of `module` by the settings. */
export function alphaOf(s: AdapterSettings, module: string): number {
  return patternValue(s.alphaPattern, module, s.alpha);
}

/** What b·a is multiplied by in `module`. */
export function scaleOf(s: AdapterSettings, module: string): number {
  const alpha = alphaOf(s, module), r = rankOf(s, module);
  return s.rslora ? alpha / Math.sqrt(r) : alpha / r;
}

interface Found {
  a?: FloatTensor;
  b?: FloatTensor;
  magnitude?: FloatTensor;
  embedding: boolean;
}

/**
 * The name under which peft saves a parameter: without the wrapper `modules_to_save`, and for DoRA's magnitudes without
 * the ending that the module has in memory (peft's utils/save_and_load.py and tuners/lora/model.py).
 */
export function savedName(name: string): string {
  return name.replace(/\.modules_to_save\.(weight|bias)$/, ".$1").replace(/(\.lora_magnitude_vector)\.weight$/, "$1");
}

/** The modules that carry a low-rank pair. */
export function adaptedModules(tensors: ReadonlyMap<string, FloatTensor>): string[] {
  return [...tensors.keys()].flatMap((n) => /^(.*)\.(?:lora_A\.weight|lora_embedding_A)$/.exec(n)?.[1] ?? []);
}

/** The base model's tensor that a whole trained tensor stands for; biases of adapted linears have `base_layer` in between. */
function baseName(name: string): string {
  return savedName(name).replace(/\.base_layer\.(weight|bias)$/, ".$1");
}

const SUFFIX = /^(.*)\.(lora_A|lora_B|lora_embedding_A|lora_embedding_B|lora_magnitude_vector)(?:\.weight)?$/;

/** Tensors sorted into pairs and whole ones. */
function collect(adapter: Adapter): { found: Map<string, Found>; whole: Map<string, FloatTensor> } {
  const found = new Map<string, Found>();
  const whole = new Map<string, FloatTensor>();
  for (const [name, t] of adapter.tensors) {
    const m = SUFFIX.exec(name);
    if (!m) {
      if (/\.lora_|^lora_/.test(name)) throw new ConfigError(`Cannot use this adapter: '${name}' is not understood`);
      whole.set(baseName(name), t);
      continue;
    }
    const [module, kind] = [m[1]!, m[2]!];
    const f = found.get(module) ?? { embedding: kind.startsWith("lora_embedding") };
    if (kind === "lora_magnitude_vector") f.magnitude = t;
    else if (kind.endsWith("A")) f.a = t;
    else f.b = t;
    found.set(module, f);
  }
  return { found, whole };
}

function makePair(module: string, f: Found, s: AdapterSettings): LoraPair {
  const refuse = (why: string) => new ConfigError(`Cannot use the adapter of '${module}': ${why}`);
  const { a, b } = f;
  if (!a || !b) throw refuse(`lora_${a ? "B" : "A"} is missing`);
  const [rank, inputs] = a.shape;
  const outputs = b.shape[0];
  if (a.shape.length !== 2 || b.shape.length !== 2 || b.shape[1] !== rank) {
    throw refuse(`lora_A is [${a.shape}] and lora_B [${b.shape}]`);
  }
  if (rank !== rankOf(s, module)) throw refuse(`its rank is ${rank} and the settings say ${rankOf(s, module)}`);
  if (s.dora && !f.magnitude && !f.embedding) throw refuse("use_dora is set and lora_magnitude_vector is missing");
  if (f.embedding && f.magnitude) throw refuse("a magnitude on an embedding (use_dora) is not supported");
  const m = f.magnitude?.values ?? null;
  if (m && m.length !== outputs) {
    throw refuse(`lora_magnitude_vector has ${m.length} values and lora_B ${outputs} rows`);
  }
  return {
    a: a.values,
    b: b.values,
    rank: rank!,
    inputs: inputs!,
    outputs: outputs!,
    scale: scaleOf(s, module),
    magnitude: m,
  };
}

/**
 * What the adapter's tensors mean.
 * @throws {ConfigError} naming the module or tensor that does not fit the settings
 */
export function adapterParts(adapter: Adapter): AdapterParts {
  const { found, whole } = collect(adapter);
  const pairs = new Map<string, LoraPair>();
  const embeddings = new Map<string, LoraPair>();
  for (const [module, f] of found) {
    (f.embedding ? embeddings : pairs).set(module, makePair(module, f, adapter.settings));
  }
  return { pairs, embeddings, whole };
}
