/**
 * The metadata keys that GGUF architectures share, both ways: a transformers config from them, and them from a config.
 * Keys: gguf-py's constants.py; which of them a loader needs: llama.cpp's load_hparams.
 * @module
 */
import { ConfigError, FormatError } from "../core/errors.ts";
import type { ModelConfig } from "../nn/config.ts";
import { ropeFields } from "./rope.ts";
import type { GgufExtra, GgufField, GgufReader, HfConfig } from "./config.ts";

/** u32. */
export const u32 = (value: number): GgufField => ({ value, type: { type: "u32", array: false } });
/** f32. */
export const f32 = (value: number): GgufField => ({ value, type: { type: "f32", array: false } });
/** A string. */
export const text = (value: string): GgufField => ({ value, type: { type: "string", array: false } });

/** A number of this arch; undefined when the file has none. @throws {FormatError} when the value is no number */
export function ggufNumber(file: GgufReader, arch: string, key: string): number | undefined {
  const v = file.meta.get(`${arch}.${key}`);
  if (v === undefined || typeof v === "number") return v;
  throw new FormatError(`Cannot read the GGUF: ${arch}.${key} is ${String(v).slice(0, 80)} and must be a number`);
}

function need(file: GgufReader, arch: string, key: string): number {
  const v = ggufNumber(file, arch, key);
  if (v === undefined) throw new FormatError(`Cannot read the GGUF: it has no ${arch}.${key}`);
  return v;
}

/** Ids at which generation ends: eos, and the end-of-turn ids newer files carry. */
function ends(file: GgufReader): number[] {
  const keys = ["eos_token_id", "eot_token_id", "eom_token_id"];
  const found = keys.map((k) => file.meta.get(`tokenizer.ggml.${k}`)).filter((v) => typeof v === "number");
  return [...new Set(found)];
}

/** The fields all families read, from the metadata of a GGUF of this arch. */
export function configFromGguf(file: GgufReader, arch: string, modelType: string): Record<string, unknown> {
  const dim = need(file, arch, "embedding_length"), heads = need(file, arch, "attention.head_count");
  const headDim = ggufNumber(file, arch, "attention.key_length") ?? dim / heads;
  const rotary = ggufNumber(file, arch, "rope.dimension_count") ?? headDim;
  if (rotary !== headDim && arch !== "phi3") {
    throw new ConfigError(
      `Cannot use the GGUF: ${rotary} of a head's ${headDim} features are rotated, and in ${arch} all are`,
    );
  }
  refuseForeign(file, arch, headDim);
  const table = file.shape("token_embd.weight");
  if (!table) throw new FormatError("Cannot read the GGUF: it has no tensor 'token_embd.weight'");
  return {
    model_type: modelType,
    hidden_size: dim,
    num_hidden_layers: need(file, arch, "block_count"),
    intermediate_size: need(file, arch, "feed_forward_length"),
    num_attention_heads: heads,
    num_key_value_heads: ggufNumber(file, arch, "attention.head_count_kv") ?? heads,
    head_dim: headDim,
    max_position_embeddings: need(file, arch, "context_length"),
    rms_norm_eps: shortest(need(file, arch, "attention.layer_norm_rms_epsilon")),
    vocab_size: table[0],
    tie_word_embeddings: !file.has("output.weight"),
    rope_theta: ggufNumber(file, arch, "rope.freq_base") ?? 10000,
    ...(rotary === headDim ? {} : { partial_rotary_factor: rotary / headDim }),
    ...ropeScaling(file, arch),
    eos_token_id: ends(file),
    bos_token_id: file.meta.get("tokenizer.ggml.bos_token_id") ?? null,
    pad_token_id: file.meta.get("tokenizer.ggml.padding_token_id") ?? null,
  };
}

/** The shortest decimal that is this f32: 1e-5 rather than 0.000009999999747378752. */
function shortest(x: number): number {
  for (let digits = 1; digits < 9; digits++) {
    const y = Number(x.toPrecision(digits));
    if (Math.fround(y) === x) return y;
  }
  return x;
}

/**
 * Keys whose value changes the arithmetic, and the one that is computed here.
 * @throws {ConfigError} naming the key that says otherwise
 */
function refuseForeign(file: GgufReader, arch: string, headDim: number): void {
  const patterns: Record<string, number> = { gemma2: 2, gemma3: 6 };
  const plain: Record<string, number | boolean> = {
    ...{ "attention.value_length": headDim, "attention.causal": true, "attention.scale": 0, "attention.clamp_kqv": 0 },
    ...{ "attention.max_alibi_bias": 0, "attention.sliding_window_pattern": patterns[arch] ?? 0, expert_count: 0 },
    ...{ logit_scale: 0, residual_scale: 0, embedding_scale: 0, use_parallel_residual: false },
    ...{ "rope.scaling.yarn_ext_factor": 1, "rope.scaling.yarn_attn_factor": 1 },
    ...(arch === "phi3" ? {} : { "rope.scaling.attn_factor": 1 }),
  };
  for (const [key, value] of Object.entries(plain)) {
    const found = file.meta.get(`${arch}.${key}`);
    if (found === undefined || found === value) continue;
    throw new ConfigError(`Cannot use the GGUF: its ${arch}.${key} is ${found}, and this build has ${value}`);
  }
}

/** As llama.cpp reads it: a factor without a type, and the older scale_linear, are linear; a factor of 0 is none. */
function ropeScaling(file: GgufReader, arch: string): Record<string, unknown> {
  const factors = file.floats("rope_freqs.weight"), number = (key: string) => ggufNumber(file, arch, key);
  if (factors) return { rope_scaling: { rope_type: "factors", factors: [...factors] } };
  const factor = number("rope.scaling.factor") ?? number("rope.scale_linear");
  const type = file.meta.get(`${arch}.rope.scaling.type`) ?? (factor ? "linear" : "none");
  if (type === "none" || type === "longrope") return {}; // phi3 reads its longrope itself
  if ((type !== "linear" && type !== "yarn") || factor === undefined) {
    throw new ConfigError(`Cannot read the GGUF: rope.scaling.type '${type}' with factor ${factor} is not supported`);
  }
  const fields = {
    original_max_position_embeddings: number("rope.scaling.original_context_length"),
    ...(type === "yarn"
      ? { beta_fast: number("rope.scaling.yarn_beta_fast"), beta_slow: number("rope.scaling.yarn_beta_slow") }
      : {}),
  };
  const given = Object.entries(fields).filter(([, v]) => v !== undefined && v !== 0);
  return { rope_scaling: { rope_type: type, factor, ...Object.fromEntries(given) } };
}

/**
 * The keys every arch has.
 * @throws {ConfigError} for another activation than llama.cpp's graph of the arch has: there is no key for it
 */
export function ggufBase(c: ModelConfig, arch: string): [string, GgufField][] {
  const act = arch.startsWith("gemma") ? "gelu_tanh" : "silu";
  if (c.act !== act) refuse(arch, `the activation ${c.act} (the runtime has ${act})`);
  return [
    [`${arch}.context_length`, u32(c.maxPos)],
    [`${arch}.embedding_length`, u32(c.dim)],
    [`${arch}.block_count`, u32(c.layers)],
    [`${arch}.feed_forward_length`, u32(c.ffn)],
    [`${arch}.attention.head_count`, u32(c.heads)],
    [`${arch}.attention.head_count_kv`, u32(c.kvHeads)],
    [`${arch}.attention.key_length`, u32(c.headDim)],
    [`${arch}.attention.value_length`, u32(c.headDim)],
    [`${arch}.attention.layer_norm_rms_epsilon`, f32(c.norm.eps)],
  ];
}

/** transformers' rope type of a config of either form. */
export function ropeType(hf: HfConfig): string {
  const f = ropeFields(hf);
  return String(f.rope_type ?? f.type ?? "default");
}

/**
 * rope.* keys for a model whose layers share one rope; `theta` is the family's default where it is not 10,000. `dynamic` needs none: up to the context length it is the plain one.
 * @throws {ConfigError} for settings llama.cpp has no key for
 */
export function ggufRope(
  c: ModelConfig,
  hf: HfConfig,
  arch: string,
  o: { factors: boolean; theta?: number },
): [string, GgufField][] {
  const f = ropeFields(hf), type = ropeType(hf), layer = firstRotating(c);
  const rotary = 2 * c.rope(layer, 1)!.freqs.length;
  const theta = Number(f.rope_theta ?? hf.rope_theta ?? o.theta ?? 10000);
  const keys: [string, GgufField][] = [
    [`${arch}.rope.dimension_count`, u32(rotary)],
    [`${arch}.rope.freq_base`, f32(theta)],
  ];
  if (type === "default" || type === "dynamic" || (o.factors && (type === "llama3" || type === "factors"))) return keys;
  if (type !== "linear" && type !== "yarn") refuse(arch, `rope type '${type}'`);
  for (const key of ["attention_factor", "mscale", "mscale_all_dim", "beta_fast", "beta_slow", "truncate"]) {
    const plain: Record<string, unknown> = { beta_fast: 32, beta_slow: 1, truncate: true };
    if (f[key] !== undefined && f[key] !== null && f[key] !== plain[key]) refuse(arch, `${type}'s ${key} ${f[key]}`);
  }
  keys.push([`${arch}.rope.scaling.type`, text(type)], [`${arch}.rope.scaling.factor`, f32(Number(f.factor))]);
  if (type === "yarn") {
    const original = Number(hf.original_max_position_embeddings ?? f.original_max_position_embeddings ?? c.maxPos);
    keys.push([`${arch}.rope.scaling.original_context_length`, u32(original)]);
  }
  return keys;
}

/** `rope_freqs.weight`: by how much each plain frequency is divided (llama3); none for other types. */
export function ropeFreqs(c: ModelConfig, hf: HfConfig): GgufExtra[] {
  const type = ropeType(hf);
  if (type !== "llama3" && type !== "factors") return [];
  const { freqs } = c.rope(firstRotating(c), 1)!, dim = 2 * freqs.length;
  const theta = Number(ropeFields(hf).rope_theta ?? hf.rope_theta ?? 10000);
  const values = Float32Array.from(freqs, (x, i) => 1 / (x * theta ** (2 * i / dim)));
  return [{ name: "rope_freqs.weight", values }];
}

function firstRotating(c: ModelConfig): number {
  for (let n = 0; n < c.layers; n++) if (c.rope(n, 1)) return n;
  throw new ConfigError("Cannot describe the model's rope: no layer rotates");
}

/** @throws {ConfigError} always */
export function refuse(arch: string, what: string): never {
  throw new ConfigError(`Cannot express the model as a GGUF of '${arch}': ${what} has no place there`);
}

/** Refuses heads that are not as wide as the model together, where the loader of this arch expects it (n_embd rows of q). */
export function refuseWidth(c: ModelConfig, arch: string): void {
  if (c.heads * c.headDim !== c.dim) refuse(arch, `a width of ${c.dim} under ${c.heads} heads of ${c.headDim}`);
}

/** Refuses biases an arch has no tensors for. */
export function refuseBias(c: ModelConfig, arch: string, allowed: Partial<ModelConfig["bias"]> = {}): void {
  for (const kind of ["qkv", "o", "mlp"] as const) {
    if (c.bias[kind] && !allowed[kind]) refuse(arch, `a bias on ${kind}`);
  }
}

/** Refuses sliding windows where the runtime of this arch has none. */
export function refuseWindows(c: ModelConfig, arch: string): void {
  for (let n = 0; n < c.layers; n++) {
    const w = c.window(n);
    if (w > 0 && w < c.maxPos) refuse(arch, `layer ${n}'s sliding window of ${w} tokens`);
  }
}
