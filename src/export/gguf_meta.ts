/**
 * The metadata of an exported GGUF: copied where the model came as one, so that nothing of it is lost, and built from
 * config.json, generation_config.json and the tokenizer where it came as a folder.
 * @module
 */
import { existsSync } from "node:fs";
import { basename, join } from "node:path";
import type { GgufMeta } from "../formats/gguf_write.ts";
import { typeOfValue } from "../formats/gguf_write.ts";
import { readJsonObject } from "../formats/peft.ts";
import type { GgufField } from "../models/mod.ts";
import type { Tokenizer } from "../tokenizer/mod.ts";
import { tokenizerFields, tokenizerIds } from "./gguf_tokenizer.ts";
import type { MergedModel } from "./merge.ts";
import { fileTypeOf, type Quantization } from "./quantization.ts";

/** What the file says about itself. */
export interface GgufIdentity {
  /** general.name. Default: the source's own, or its folder's. */
  readonly name?: string;
  /** Hub id or path of the model that was fine-tuned. */
  readonly baseModel?: string | null;
}

const f32 = (value: number): GgufField => ({ value, type: { type: "f32", array: false } });
const i32 = (value: number): GgufField => ({ value, type: { type: "i32", array: false } });
const u32 = (value: number): GgufField => ({ value, type: { type: "u32", array: false } });
const text = (value: string): GgufField => ({ value, type: { type: "string", array: false } });

/** Number of parameters as people write it: 135M, 1.2B (gguf-py's utility.py). */
export function sizeLabel(parameters: number): string {
  const [unit, letter] = parameters > 1e9 ? [1e9, "B"] : parameters > 1e6 ? [1e6, "M"] : [1e3, "K"];
  const n = parameters / unit!;
  return `${n.toFixed(Math.max(0, 2 - String(Math.round(n)).replace(/^0/, "").length))}${letter}`;
}

/** general.sampling.*: generation_config.json's defaults, when it samples at all. */
function samplingFields(dir: string): [string, GgufField][] {
  const path = join(dir, "generation_config.json");
  const json = existsSync(path) ? readJsonObject(path) : {};
  if (json.do_sample === false) return [];
  const names: [string, string, (v: number) => GgufField][] = [
    ["temperature", "temp", f32],
    ["top_k", "top_k", i32],
    ["top_p", "top_p", f32],
    ["min_p", "min_p", f32],
    ["repetition_penalty", "penalty_repeat", f32],
  ];
  return names.flatMap(([theirs, ours, field]) => {
    const value = json[theirs];
    return typeof value === "number" ? [[`general.sampling.${ours}`, field(value)] as [string, GgufField]] : [];
  });
}

/**
 * llama.cpp (and our reader) take a name with "phi-3" or "phi3" in it to say that turn markers swallow the spaces after
 * them (llama-vocab.cpp), so the name is made to say what tokenizer.json says.
 */
export function truthfulName(name: string, dir: string): string {
  const path = join(dir, "tokenizer.json");
  const added = existsSync(path) ? readJsonObject(path).added_tokens as { content: string; rstrip?: boolean }[] : [];
  const strips = added.some((t) => t.rstrip && t.content.startsWith("<|"));
  const says = /phi-?3/i.test(name);
  if (strips && !says) return `${name} (phi-3 tokenizer)`;
  return strips ? name : name.replace(/(phi)-?(3)/gi, "$1 $2");
}

function fromFolder(model: MergedModel, tokenizer: Tokenizer, o: GgufIdentity): GgufMeta {
  const { source, config, hf } = model;
  const parameters = model.tensors.reduce((n, t) => n + t.shape.reduce((a, b) => a * b, 1), 0);
  const embed = model.tensors.find((t) => t.ours === "embed")!;
  return new Map([
    ["general.architecture", text(source.family.ggufArch)],
    ["general.type", text("model")],
    ["general.name", text(truthfulName(o.name ?? basename(source.path), source.path))],
    ["general.size_label", text(sizeLabel(parameters))],
    ...(o.baseModel
      ? [["general.base_model.count", u32(1)], ["general.base_model.0.name", text(o.baseModel)]] as [
        string,
        GgufField,
      ][]
      : []),
    ...samplingFields(source.path),
    ...source.family.ggufMeta(config, hf),
    ...tokenizerFields(source.path, tokenizer, embed.shape[0]!),
  ]);
}

/** The file's own keys; those that change with the tokenizer in use are set anew where they differ. */
function fromGguf(model: MergedModel, tokenizer: Tokenizer, o: GgufIdentity): GgufMeta {
  const { meta, types } = model.source.gguf!;
  const out: GgufMeta = new Map();
  for (const [key, value] of meta) {
    if (!/^(split|quantize\.imatrix)\./.test(key)) out.set(key, { value, type: types.get(key)! });
  }
  // The old name stays with a file whose tokenizer it tells about (see truthfulName).
  const told = /phi-?3/i.test(String(meta.get("general.name")));
  if (o.name && told === /phi-?3/i.test(o.name)) out.set("general.name", text(o.name));
  const own = ["tokenizer.ggml.eos_token_id", "tokenizer.chat_template"];
  const now = tokenizerIds(tokenizer);
  for (const key of own) {
    const field = now.get(key);
    if (field) out.set(key, field);
  }
  return out;
}

/**
 * All metadata of the file.
 * @throws {ConfigError} naming what a GGUF of this architecture cannot express
 */
export function ggufMetaOf(
  model: MergedModel,
  tokenizer: Tokenizer,
  q: Quantization,
  o: GgufIdentity,
): GgufMeta {
  const meta = model.source.gguf ? fromGguf(model, tokenizer, o) : fromFolder(model, tokenizer, o);
  meta.set("general.file_type", { value: fileTypeOf(q), type: typeOfValue(0) });
  meta.set("general.quantization_version", { value: 2, type: typeOfValue(2) });
  return meta;
}
