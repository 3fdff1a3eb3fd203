/**
 * Rotary frequencies: transformers' rope types by their formulas (modeling_rope_utils.py), from configs of either form:
 * `rope_parameters` (transformers 5) or `rope_theta` with `rope_scaling` (before).
 * @module
 */
import { ConfigError } from "../core/errors.ts";
import type { Rope } from "../nn/config.ts";
import type { HfConfig } from "./config.ts";
import { number } from "./settings.ts";

/** One kind of layer's rotary settings, in one form. */
export interface RopeSettings {
  readonly type: string;
  readonly theta: number;
  /** Rotated features of a head. */
  readonly dim: number;
  readonly maxPos: number;
  /** The fields of the type, by transformers' names. */
  readonly fields: HfConfig;
}

/** What a family knows of its rope. */
export interface RopeDefaults {
  readonly theta: number;
  readonly headDim: number;
  readonly maxPos: number;
  /** Key of nested parameters, as gemma 3's `sliding_attention`. */
  readonly layerType?: string;
  /** Whether partial_rotary_factor counts: of these families in phi 3 alone. */
  readonly partial?: boolean;
}

const isObject = (v: unknown): v is Record<string, unknown> => typeof v === "object" && v !== null && !Array.isArray(v);

/** A config's rope settings, of whichever form; where a file has both, the older counts (convert_rope_params_to_dict). */
export function ropeFields(hf: HfConfig): Readonly<Record<string, unknown>> {
  return [hf.rope_scaling, hf.rope_parameters].find((x) => isObject(x) && Object.keys(x).length > 0) as HfConfig ?? {};
}

/** Settings from a config of either form. @throws {ConfigError} for a type this build lacks */
export function readRope(hf: HfConfig, d: RopeDefaults): RopeSettings {
  const given = ropeFields(hf), nested = isObject(given[d.layerType ?? ""]), type = kindOf(given, d);
  const fields = nested ? given[d.layerType!] as HfConfig : given;
  // Phi-3 keeps the trained length beside the parameters and it counts first; beside nested ones it counts for nothing
  // (standardize_rope_params).
  const beside = nested ? undefined : hf.original_max_position_embeddings;
  const settings: RopeSettings = {
    type,
    theta: number(fields, "rope_theta", number(hf, "rope_theta", d.theta)),
    dim: rotated(hf, d, fields, type),
    maxPos: d.maxPos,
    fields: {
      ...fields,
      original_max_position_embeddings: beside ?? fields.original_max_position_embeddings ?? d.maxPos,
      truncate: given.truncate, // read beside nested parameters, never in them (_compute_yarn_parameters)
    },
  };
  ropeOf(settings, 1); // refuses what is missing or unknown before anything is loaded
  return settings;
}

/** The rope type. @throws {ConfigError} where parameters are nested and the family has one rope for all layers */
function kindOf(given: HfConfig, d: RopeDefaults): string {
  const nested = Object.keys(given).find((k) => isObject(given[k]));
  if (nested !== undefined && !d.layerType) {
    throw new ConfigError(`Cannot use rope_parameters by kind of layer ('${nested}'): this family has one rope`);
  }
  const fields = d.layerType && isObject(given[d.layerType]) ? given[d.layerType] as HfConfig : given;
  return String(fields.rope_type ?? fields.type ?? "default");
}

/**
 * Rotated features of a head. An odd number of them is divided by in the exponents and rounded up to whole pairs, as
 * torch.arange does.
 * @throws {ConfigError} where transformers' own model fails: heads too small, a part of a head outside phi 3
 */
function rotated(hf: HfConfig, d: RopeDefaults, fields: HfConfig, type: string): number {
  const partial = number(fields, "partial_rotary_factor", number(hf, "partial_rotary_factor", 1));
  // Families that rotate whole heads make the default frequencies without it (compute_default_rope_parameters).
  const dim = d.partial || type !== "default" ? Math.trunc(d.headDim * partial) : d.headDim;
  if (dim < 1 || dim + dim % 2 > d.headDim) {
    throw new ConfigError(`Cannot rotate ${dim} features of a head of ${d.headDim}: they go in pairs`);
  }
  if (!d.partial && dim !== d.headDim) {
    throw new ConfigError(`Cannot use partial_rotary_factor ${partial} with the rope type '${type}' in this family`);
  }
  return dim;
}

/** Frequencies for a run whose longest sequence is `length` tokens. */
export function ropeOf(s: RopeSettings, length: number): Rope {
  const make = TYPES[s.type];
  if (!make) {
    throw new ConfigError(`Cannot use the rope type '${s.type}': this build has ${Object.keys(TYPES).join(", ")}`);
  }
  const rope = make(s, length);
  if (rope.freqs.every(Number.isFinite)) return rope;
  throw new ConfigError(`Cannot use the rope type '${s.type}': with these settings a frequency is no number`);
}

/** The longest run whose frequencies are those of a short one; Infinity: they do not depend on the length. */
export function ropeTurn(s: RopeSettings): number {
  if (s.type === "dynamic") return s.maxPos;
  return TYPES[s.type] === longrope ? number(s.fields, "original_max_position_embeddings") : Infinity;
}

/** theta^(2i/dim) for each pair i: a period in tokens is 2π times this. */
function periods(theta: number, dim: number): Float64Array {
  return Float64Array.from({ length: Math.ceil(dim / 2) }, (_, i) => theta ** (2 * i / dim));
}

const plain = (s: RopeSettings): Float64Array => periods(s.theta, s.dim).map((p) => 1 / p);

const TYPES: Readonly<Record<string, (s: RopeSettings, length: number) => Rope>> = {
  default: (s) => ({ freqs: plain(s), factor: 1 }),
  linear: (s) => ({ freqs: plain(s).map((f) => f / number(s.fields, "factor")), factor: 1 }),
  dynamic: dynamicNtk,
  llama3,
  yarn,
  longrope,
  su: longrope,
  // Not transformers': what a GGUF's rope_freqs tensor says, frequencies divided one by one.
  factors: (s) => ({ freqs: divideBy(plain(s), list(s, "factors")), factor: 1 }),
};

/** NTK-aware: theta grows with the sequence once it is longer than the trained length (u/emozilla's form). */
function dynamicNtk(s: RopeSettings, length: number): Rope {
  const k = number(s.fields, "factor"), n = Math.max(length, s.maxPos);
  const theta = s.theta * (k * n / s.maxPos - (k - 1)) ** (s.dim / (s.dim - 2));
  return { freqs: periods(theta, s.dim).map((p) => 1 / p), factor: 1 };
}

/** Llama 3.1: long wavelengths are stretched, short ones kept, those between mixed. */
function llama3(s: RopeSettings): Rope {
  const f = s.fields, factor = number(f, "factor"), low = number(f, "low_freq_factor");
  const high = number(f, "high_freq_factor"), trained = number(f, "original_max_position_embeddings");
  const freqs = plain(s).map((x) => {
    const wavelength = 2 * Math.PI / x;
    if (wavelength < trained / high) return x;
    if (wavelength > trained / low) return x / factor;
    const smooth = (trained / wavelength - low) / (high - low);
    return (1 - smooth) * x / factor + smooth * x;
  });
  return { freqs, factor: 1 };
}

/** YaRN (Peng et al. 2023). */
function yarn(s: RopeSettings): Rope {
  const f = s.fields, trained = number(f, "original_max_position_embeddings");
  const factor = number(f, "factor", s.maxPos / trained);
  // The pair that turns `rotations` times within the trained length.
  const pair = (rotations: number) => s.dim * Math.log(trained / (rotations * 2 * Math.PI)) / (2 * Math.log(s.theta));
  let low = pair(number(f, "beta_fast", 32) || 32), high = pair(number(f, "beta_slow", 1) || 1);
  if (f.truncate !== false) [low, high] = [Math.floor(low), Math.ceil(high)];
  [low, high] = [Math.max(low, 0), Math.min(high, s.dim - 1)];
  if (low === high) high += 0.001;
  const freqs = plain(s).map((x, i) => {
    const ramp = Math.min(1, Math.max(0, (i - low) / (high - low)));
    return x / factor * ramp + x * (1 - ramp);
  });
  return { freqs, factor: yarnFactor(f, factor) };
}

function yarnFactor(f: HfConfig, factor: number): number {
  if (typeof f.attention_factor === "number") return f.attention_factor;
  const mscale = (m: number) => factor <= 1 ? 1 : 0.1 * m * Math.log(factor) + 1;
  const one = number(f, "mscale", 0), all = number(f, "mscale_all_dim", 0);
  return one && all ? mscale(one) / mscale(all) : mscale(1);
}

/** LongRoPE (Ding et al. 2024): one list of divisors up to the trained length, another beyond. */
function longrope(s: RopeSettings, length: number): Rope {
  const f = s.fields, trained = number(f, "original_max_position_embeddings");
  const factor = number(f, "factor", s.maxPos / trained);
  const computed = factor <= 1 ? 1 : Math.sqrt(1 + Math.log(factor) / Math.log(trained));
  const short = list(s, "short_factor"), long = list(s, "long_factor");
  return {
    freqs: divideBy(plain(s), length > trained ? long : short),
    factor: number(f, "attention_factor", computed),
  };
}

function list(s: RopeSettings, key: string): number[] {
  const v = s.fields[key], pairs = Math.ceil(s.dim / 2);
  if (Array.isArray(v) && v.length === pairs && v.every((x) => typeof x === "number")) return v;
  const found = Array.isArray(v) ? `${v.length} entries` : JSON.stringify(v);
  throw new ConfigError(`Cannot use the rope type '${s.type}': ${key} has ${found} and must be ${pairs} numbers`);
}

const divideBy = (freqs: Float64Array, by: readonly number[]): Float64Array => freqs.map((f, i) => f / by[i]);
