/** The adapters the settings ask for: which modules of which layers, how they start. @module */
import { ConfigError } from "../core/errors.ts";
import { blockLinears, type LoraOptions, type ModelSource } from "../models/mod.ts";
import { type Config, LINEARS } from "./config.ts";

/** PEFT's settings for this model; `name` is what the adapter will name as its base. */
export function loraOptions(config: Config, source: ModelSource, name: string): LoraOptions {
  return {
    r: config.r,
    alpha: config.lora_alpha,
    rslora: config.use_rslora,
    dora: config.use_dora,
    dropout: config.lora_dropout,
    targetModules: targets(config, source),
    rankPattern: {},
    alphaPattern: {},
    modulesToSave: [],
    bias: config.bias,
    baseModel: name,
    seed: config.random_state,
    start: config.init_lora_weights,
  };
}

/**
 * Endings of the modules that get adapters, or a regular expression of their whole names, as peft takes either. phi3 has one
 * linear for q, k, v and one for gate, up: Unsloth's seven names stand for all linears of a block. With --layers each module
 * is named whole, so that PEFT reads the same from the file.
 */
function targets(
  { target_modules: wanted, layers: text }: Config,
  { config, tensors }: ModelSource,
): readonly string[] | string {
  const pattern = patternOf(wanted), all = wanted.includes("all-linear");
  if (all && wanted.length > 1) {
    throw new ConfigError("Cannot use --target_modules all-linear with other names: it stands for all of them");
  }
  const seven = config.fused && LINEARS.every((name) => wanted.includes(name));
  const endings = all || seven ? blockLinears(config) : wanted;
  const layers = parseLayers(text, config.layers);
  if (!layers) return pattern ?? endings;
  const takes = pattern === null
    ? (_: string, ending: string) => endings.includes(ending)
    : (module: string) => new RegExp(`^(?:${pattern})$`).test(module);
  const modules = tensors.flatMap(({ hf, shape }) => {
    const [, module, layer, ending] = /^(.*\.layers\.(\d+)\..*?(\w+))\.weight$/.exec(hf) ?? [];
    return module && shape.length === 2 && layers.includes(Number(layer)) && takes(module, ending) ? [module] : [];
  });
  if (modules.length > 0) return modules;
  throw new ConfigError(
    `Cannot use --layers ${text} with --target_modules ${wanted.join(" ")}: no linear of these layers is among them`,
  );
}

/** The regular expression among the names, which stands alone; its commas were taken for the list's. */
function patternOf(wanted: readonly string[]): string | null {
  if (wanted.every((name) => /^[\w-]+$/.test(name))) return null;
  const pattern = wanted.join(",");
  try {
    new RegExp(pattern);
  } catch (e) {
    throw new ConfigError(`Cannot use --target_modules ${pattern}: ${(e as Error).message}`);
  }
  return pattern;
}

/**
 * `0-3,8` or `last:4` as layer numbers; null: all.
 * @throws {ConfigError} for anything else, or a layer the model has not
 */
export function parseLayers(text: string | null, layers: number): number[] | null {
  if (text === null) return null;
  const last = /^last:(\d+)$/.exec(text);
  const parts = last ? [`${layers - Number(last[1])}-${layers - 1}`] : text.split(",");
  const out = parts.flatMap((part) => {
    const m = /^(-?\d+)(?:-(\d+))?$/.exec(part.trim());
    const from = Number(m?.[1] ?? NaN), to = Number(m?.[2] ?? from);
    if (!(from >= 0 && from <= to && to < layers)) {
      throw new ConfigError(
        `Cannot use --layers ${text}: the model has layers 0 to ${layers - 1}; write 0-3,8 or last:4`,
      );
    }
    return Array.from({ length: to - from + 1 }, (_, i) => from + i);
  });
  return [...new Set(out)].sort((a, b) => a - b);
}
