/** The adapters the settings ask for: which modules of which layers, how they start. @module */
import { ConfigError } from "../core/errors.ts";
import { blockLinears, type LoraOptions, type ModelSource } from "../models/mod.ts";
import type { Config } from "./config.ts";

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
 * Endings of the modules that get adapters. phi3 has one linear for q, k, v and one for gate, up: Unsloth's seven names
 * stand for all linears of a block. With --layers each module is named whole, so that PEFT reads the same from the file.
 */
function targets(
  { target_modules: wanted, layers: text }: Config,
  { config, tensors }: ModelSource,
): readonly string[] {
  const endings = config.fused && wanted.length === 7 ? blockLinears(config) : wanted;
  const layers = parseLayers(text, config.layers);
  if (!layers) return endings;
  return tensors.flatMap(({ hf }) => {
    const [, module, layer, ending] = /^(.*\.layers\.(\d+)\..*?(\w+))\.weight$/.exec(hf) ?? [];
    return module && layers.includes(Number(layer)) && endings.includes(ending) ? [module] : [];
  });
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
