/**
 * Which type each tensor of a GGUF gets under a name like q4_k_m: llama.cpp's mixtures, so that a file of ours is the
 * file its own quantiser would make. Rules: src/llama-quant.cpp, llama_tensor_get_type_impl and tensor_type_fallback
 * (plain decoders only: no experts).
 * @module
 */
import { type DType, DTYPES, isQuant } from "../core/dtype.ts";
import { ConfigError } from "../core/errors.ts";
import type { ModelConfig } from "../models/mod.ts";

/** A name, the type most tensors get, and general.file_type (llama.h, llama_ftype). */
interface Recipe {
  readonly type: DType;
  readonly fileType: number;
}

const RECIPES = {
  f32: { type: "f32", fileType: 0 },
  f16: { type: "f16", fileType: 1 },
  bf16: { type: "bf16", fileType: 32 },
  q8_0: { type: "q8_0", fileType: 7 },
  q4_0: { type: "q4_0", fileType: 2 },
  q4_1: { type: "q4_1", fileType: 3 },
  q5_0: { type: "q5_0", fileType: 8 },
  q5_1: { type: "q5_1", fileType: 9 },
  q2_k: { type: "q2_k", fileType: 10 },
  q3_k_s: { type: "q3_k", fileType: 11 },
  q3_k_m: { type: "q3_k", fileType: 12 },
  q3_k_l: { type: "q3_k", fileType: 13 },
  q4_k_s: { type: "q4_k", fileType: 14 },
  q4_k_m: { type: "q4_k", fileType: 15 },
  q5_k_s: { type: "q5_k", fileType: 16 },
  q5_k_m: { type: "q5_k", fileType: 17 },
  q6_k: { type: "q6_k", fileType: 18 },
  iq4_nl: { type: "iq4_nl", fileType: 25 },
  iq4_xs: { type: "iq4_xs", fileType: 30 },
} as const satisfies Record<string, Recipe>;

/** Names of GGUF quantizations. */
export type Quantization = keyof typeof RECIPES;

/** All of them, in the order of the help. */
export const QUANTIZATIONS = Object.keys(RECIPES) as readonly Quantization[];

/** Other names in use: Unsloth's (save.py, ALLOWED_QUANTS) and llama-quantize's. */
const ALIASES: Readonly<Record<string, Quantization>> = {
  not_quantized: "f16",
  fast_quantized: "q8_0",
  quantized: "q4_k_m",
  q3_k: "q3_k_m",
  q4_k: "q4_k_m",
  q5_k: "q5_k_m",
};

/** The quantization of a name, in any case. @throws {ConfigError} listing the names there are */
export function parseQuantization(name: string): Quantization {
  const lower = name.toLowerCase();
  const found = ALIASES[lower] ?? lower;
  if (Object.hasOwn(RECIPES, found)) return found as Quantization;
  throw new ConfigError(`Cannot quantise to '${name}': this build has ${QUANTIZATIONS.join(", ")}`);
}

/** general.file_type. */
export function fileTypeOf(q: Quantization): number {
  return RECIPES[q].fileType;
}

/** A tensor of the file. */
export interface Planned {
  readonly gguf: string;
  /** Row-major. */
  readonly shape: readonly number[];
}

/** llama.cpp's order of visiting: by block, then by name (weight_name_comparer). */
function visitingOrder(a: Planned, b: Planned): number {
  const block = (t: Planned) => Number(/^blk\.(\d+)\./.exec(t.gguf)?.[1] ?? -1);
  return block(a) - block(b) || (a.gguf < b.gguf ? -1 : 1);
}

/** Layers at both ends and every third between. */
const moreBits = (i: number, n: number): boolean => {
  const eighth = Math.trunc(n / 8);
  return i < eighth || i >= Math.trunc(7 * n / 8) || (i - eighth) % 3 === 2;
};

/** What the rules look at. */
interface Situation {
  readonly q: Quantization;
  readonly config: ModelConfig;
  readonly importance: boolean;
  /** How many v-like tensors there are. */
  readonly values: number;
}

function typeOfValue(s: Situation, i: number): DType {
  const { q, config: c } = s;
  const shared = c.heads / c.kvHeads >= 4;
  let type: DType = RECIPES[q].type;
  if (q === "q2_k") type = shared ? "q4_k" : "q3_k";
  else if (q === "q3_k_m") type = i < 2 ? "q5_k" : "q4_k";
  else if (q === "q3_k_l") type = "q5_k";
  else if ((q === "iq4_nl" || q === "iq4_xs") && shared) type = "q5_k";
  else if ((q === "q4_k_m" || q === "q5_k_m") && moreBits(i, s.values)) type = "q6_k";
  else if (q === "q4_k_s" && i < 4) type = "q5_k";
  // In 70B models eight query heads share a value head, which makes its weight small and worth more bits.
  const is70B = c.layers === 80 && (c.arch === "qwen2" || (c.arch === "llama" && c.heads !== c.kvHeads));
  return is70B && (type === "q3_k" || type === "q4_k") ? "q5_k" : type;
}

function typeOfDown(s: Situation, i: number): DType {
  const { q, config: { layers: n } } = s;
  const first = i < Math.trunc(n / 8);
  if (q === "q2_k") return "q3_k";
  if (q === "q3_k_m") return i < Math.trunc(n / 16) ? "q5_k" : "q4_k";
  if (q === "q3_k_l") return "q5_k";
  if ((q === "q4_k_m" || q === "q5_k_m") && moreBits(i, n)) return "q6_k";
  if ((q === "iq4_nl" || q === "iq4_xs") && first && !s.importance) return "q5_k";
  if (q === "q4_k_s" && first) return "q5_k";
  if (q === "q4_0" && s.importance && first) return "q4_1";
  if (q === "q5_0" && s.importance && first) return "q5_1";
  return RECIPES[q].type;
}

function typeOfOutput(q: Quantization): DType {
  if (q === "q2_k") return "q3_k";
  if (q === "q3_k_m") return "q4_k";
  return q === "q3_k_l" ? "q5_k" : RECIPES[q].type;
}

/** The head (or the embedding in its place): eight bits where rows do not fit, six where fewer were asked for. */
function typeOfHead(q: Quantization, cols: number): DType {
  const { type } = RECIPES[q];
  return cols % DTYPES[type].block || type === "q8_0" ? "q8_0" : "q6_k";
}

const SMALLER: Partial<Record<DType, DType>> = {
  q2_k: "q4_0",
  q3_k: "q4_0",
  q4_k: "q5_0",
  q5_k: "q5_1",
  q6_k: "q8_0",
  iq4_xs: "iq4_nl",
};

/** The type of 32-element blocks where rows do not hold whole blocks of 256, f16 where not even those. */
export function fitRows(type: DType, cols: number): DType {
  if (cols % DTYPES[type].block === 0) return type;
  const smaller = SMALLER[type] ?? type;
  return cols % DTYPES[smaller].block === 0 ? smaller : "f16";
}

/**
 * Types of all tensors by name.
 * @param importance whether an importance matrix is at hand, which changes some rules
 */
export function chooseTypes(
  q: Quantization,
  tensors: readonly Planned[],
  config: ModelConfig,
  importance: boolean,
): Map<string, DType> {
  const isValue = (name: string) => /attn_(v|qkv)\.weight$/.test(name);
  const situation = { q, config, importance, values: tensors.filter((t) => isValue(t.gguf)).length };
  const tied = !tensors.some((t) => t.gguf === "output.weight");
  const plain = RECIPES[q].type;
  const out = new Map<string, DType>();
  let [values, downs] = [0, 0];
  for (const { gguf, shape } of [...tensors].sort(visitingOrder)) {
    const cols = shape[shape.length - 1]!;
    if (shape.length < 2 || !gguf.endsWith(".weight") || gguf.includes("_norm.weight")) {
      out.set(gguf, "f32");
      continue;
    }
    let type: DType = plain;
    if (!isQuant(plain)) type = plain;
    else if (gguf === "output.weight" || (tied && gguf === "token_embd.weight")) type = typeOfHead(q, cols);
    else if (isValue(gguf)) type = typeOfValue(situation, values++);
    else if (gguf.includes("ffn_down")) type = typeOfDown(situation, downs++);
    else if (gguf.endsWith("attn_output.weight")) type = typeOfOutput(q);
    out.set(gguf, fitRows(type, cols));
  }
  return out;
}
