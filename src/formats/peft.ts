/**
 * Adapters in Hugging Face peft's format: adapter_config.json and adapter_model.safetensors.
 * Source: peft 0.21, tuners/lora/config.py and utils/save_and_load.py.
 * @module
 */
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { ConfigError, FormatError } from "../core/errors.ts";
import {
  adaptedModules,
  type Adapter,
  type AdapterSettings,
  type FloatTensor,
  isNamed,
  isWhole,
  savedName,
} from "./adapter.ts";
import { writeWhole } from "./new_file.ts";
import { openSafetensors } from "./safetensors.ts";
import { floatTensor, writeSafetensors } from "./safetensors_write.ts";
import { readFloats } from "./stored.ts";

const CONFIG = "adapter_config.json";
const WEIGHTS = "adapter_model.safetensors";

/** What peft puts before the base model's own names. */
const PREFIX = "base_model.model.";

/**
 * Settings that change an adapter's arithmetic and are not implemented: refused when set. (fan_in_fan_out is not among them:
 * linears and embeddings take no notice of it.)
 */
const REFUSED = [
  ...["lora_bias", "use_bdlora", "use_qalora", "alora_invocation_tokens", "arrow_config"],
  ...["layer_replication", "target_parameters", "trainable_token_indices", "megatron_config", "kasa_config"],
  ...["velora_config", "monteclora_config"],
];

/** Starts that leave the base weights as they are: an adapter saved from any other is for weights nobody has. */
const PLAIN_STARTS: readonly unknown[] = [undefined, null, true, false, "gaussian", "orthogonal", "eva"];

/** With bias "all" peft also saves the biases inside its wrapper of a module trained whole; the plain name has them too. */
const TWICE = /\.(original_module|modules_to_save)\..*bias$/;

/** A file's JSON object. @throws {FormatError} when it is none */
export function readJsonObject(path: string): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(readFileSync(path, "utf8"));
  } catch (e) {
    throw new FormatError(`Cannot read '${path}': ${(e as Error).message}`, path, 0);
  }
  if (typeof value === "object" && value !== null && !Array.isArray(value)) return value as Record<string, unknown>;
  throw new FormatError(`Cannot read '${path}': it is no JSON object`, path, 0);
}

function isSet(value: unknown): boolean {
  if (Array.isArray(value)) return value.length > 0;
  if (typeof value === "object" && value !== null) return Object.keys(value).length > 0;
  return value !== undefined && value !== null && value !== false;
}

/** Whether the embedding or the head may be adapted or trained whole: a regular expression might name them. */
function tiesSomething(json: Record<string, unknown>): boolean {
  const names = [json.target_modules, json.modules_to_save ?? []].flat().map(String);
  return typeof json.target_modules === "string" || names.some((n) => /(^|\.)(embed_tokens|lm_head)$/.test(n));
}

/**
 * Settings from the JSON of adapter_config.json.
 * @throws {FormatError} for fields of the wrong kind; {ConfigError} naming a setting that is not implemented
 */
export function parsePeftConfig(json: Record<string, unknown>, path: string = CONFIG): AdapterSettings {
  const refuse = (why: string) => new FormatError(`Cannot read '${path}': ${why}`, path, 0);
  if (json.peft_type !== "LORA") throw new ConfigError(`Cannot use '${path}': peft_type ${json.peft_type} is not LORA`);
  const set = REFUSED.find((key) => isSet(json[key]));
  if (set) throw new ConfigError(`Cannot use '${path}': ${set} is set and not supported`);
  if (!PLAIN_STARTS.includes(json.init_lora_weights)) {
    throw new ConfigError(
      `Cannot use '${path}': its adapter started as '${json.init_lora_weights}', which changed the base weights; save it in ` +
        "peft with path_initial_model_for_weight_conversion",
    );
  }
  if (isSet(json.ensure_weight_tying) && tiesSomething(json)) {
    throw new ConfigError(
      `Cannot use '${path}': ensure_weight_tying is set, and here a tied head does not follow the embedding`,
    );
  }
  const { r, lora_alpha: alpha, target_modules: targets, bias = "none" } = json;
  if (typeof r !== "number" || !Number.isInteger(r) || r < 1) throw refuse(`r is ${r}`);
  if (typeof alpha !== "number") throw refuse(`lora_alpha is ${alpha}`);
  const listed = Array.isArray(targets) && targets.every((t) => typeof t === "string");
  if (!listed && typeof targets !== "string") throw refuse("target_modules is neither a list nor an expression");
  if (bias !== "none" && bias !== "all" && bias !== "lora_only") throw refuse(`bias is ${bias}`);
  const { layers_to_transform: layers, layers_pattern: lists, exclude_modules: exclude } = json;
  const numbers = (key: string): Record<string, number> => {
    const value = json[key] ?? {};
    if (typeof value === "object" && Object.values(value!).every((v) => typeof v === "number")) {
      return value as Record<string, number>;
    }
    throw refuse(`${key} is no map of numbers`);
  };
  return {
    r,
    alpha,
    rslora: json.use_rslora === true,
    dora: json.use_dora === true,
    dropout: typeof json.lora_dropout === "number" ? json.lora_dropout : 0,
    targetModules: targets as string[] | string,
    ...(layers === undefined || layers === null ? {} : { layersToTransform: [layers].flat() as number[] }),
    ...(isSet(lists) && isSet(layers) ? { layersPattern: [lists].flat() as string[] } : {}),
    ...(isSet(exclude) ? { excludeModules: exclude as string[] | string } : {}),
    rankPattern: numbers("rank_pattern"),
    alphaPattern: numbers("alpha_pattern"),
    modulesToSave: Array.isArray(json.modules_to_save) ? json.modules_to_save as string[] : [],
    bias,
    baseModel: typeof json.base_model_name_or_path === "string" ? json.base_model_name_or_path : null,
  };
}

/** The JSON that peft writes for these settings, with the keys that every version since 0.7 knows. */
export function peftConfig(s: AdapterSettings): Record<string, unknown> {
  return {
    alpha_pattern: s.alphaPattern,
    auto_mapping: null,
    base_model_name_or_path: s.baseModel,
    bias: s.bias,
    exclude_modules: s.excludeModules ?? null,
    fan_in_fan_out: false,
    inference_mode: true,
    init_lora_weights: true,
    layers_pattern: s.layersPattern ?? null,
    layers_to_transform: s.layersToTransform ?? null,
    lora_alpha: s.alpha,
    lora_dropout: s.dropout,
    modules_to_save: s.modulesToSave.length ? s.modulesToSave : null,
    peft_type: "LORA",
    r: s.r,
    rank_pattern: s.rankPattern,
    revision: null,
    target_modules: s.targetModules,
    task_type: "CAUSAL_LM",
    use_dora: s.dora,
    use_rslora: s.rslora,
  };
}

/** Whether `dir` holds an adapter in peft's format. */
export function isPeftAdapter(dir: string): boolean {
  const path = join(dir, CONFIG);
  return existsSync(path) && "peft_type" in readJsonObject(path);
}

/**
 * Reads an adapter folder.
 * @throws {FormatError} for malformed files; {ConfigError} for weights that are absent or pickled, or settings that are not implemented
 */
export function readPeft(dir: string): Adapter {
  const path = join(dir, CONFIG);
  const settings = parsePeftConfig(readJsonObject(path), path);
  const weights = join(dir, WEIGHTS);
  if (!existsSync(weights) && existsSync(join(dir, "adapter_model.bin"))) {
    throw new ConfigError(`Cannot read '${dir}': its weights are a pickle; save it with safe_serialization=True`);
  }
  if (!existsSync(weights)) throw new ConfigError(`Cannot read the adapter '${dir}': it has no ${WEIGHTS}`);
  const file = openSafetensors(weights);
  try {
    const tensors = new Map<string, FloatTensor>();
    for (const t of file.tensors.values()) {
      if (TWICE.test(t.name)) continue;
      if (!t.name.startsWith(PREFIX)) {
        throw new FormatError(`Cannot read '${weights}': tensor '${t.name}' does not start with ${PREFIX}`, weights, 8);
      }
      tensors.set(t.name.slice(PREFIX.length), { shape: t.shape, values: readFloats(t) });
    }
    return { settings: withoutUnmatched(settings, tensors), tensors };
  } finally {
    file.close();
  }
}

/** Without the targets and whole modules that the adapter has no tensor of: peft takes no notice of names that match nothing. */
function withoutUnmatched(s: AdapterSettings, tensors: ReadonlyMap<string, FloatTensor>): AdapterSettings {
  const { targetModules: targets } = s, adapted = adaptedModules(tensors);
  const whole = [...tensors.keys()].filter((n) => !n.includes(".lora_")).map((n) => n.replace(/\.(weight|bias)$/, ""));
  const matched = typeof targets === "string" ? targets : targets.filter((t) => adapted.some((m) => isNamed(m, [t])));
  return {
    ...s,
    targetModules: matched.length ? matched : targets,
    modulesToSave: s.modulesToSave.filter((name) => whole.some((m) => isWhole(m, [name]))),
  };
}

/** Writes an adapter folder that peft loads; the folder must exist. Tensors are f32, sorted by name. */
export async function writePeft(dir: string, adapter: Adapter): Promise<void> {
  const tensors = [...adapter.tensors].sort(([a], [b]) => a < b ? -1 : 1);
  await writeSafetensors(
    join(dir, WEIGHTS),
    tensors.map(([name, t]) => floatTensor(PREFIX + savedName(name), t.values, t.shape)),
  );
  const json = JSON.stringify(peftConfig(adapter.settings), null, 2) + "\n";
  await writeWhole(join(dir, CONFIG), async (file) => file.write(new TextEncoder().encode(json)));
}
