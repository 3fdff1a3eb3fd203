/** Optimisers by transformers' names. @module */
import type { Backend } from "../core/backend.ts";
import { ConfigError } from "../core/errors.ts";
import type { Params } from "../nn/params.ts";
import { adamw, adamw8 } from "./adamw.ts";
import { type Rule, SlabOptimizer } from "./rule.ts";
import { adafactor, lion, sgd } from "./rules.ts";
import type { Optimizer, OptimOptions } from "./types.ts";

const RULES: Readonly<Record<string, Rule>> = {
  adamw_torch: adamw,
  adamw_8bit: adamw8,
  sgd,
  lion_32bit: lion,
  adafactor,
};

/** Other names transformers has for the same arithmetic; bitsandbytes' paged ones differ in where their state lies. */
const ALIASES: Readonly<Record<string, string>> = {
  adamw_hf: "adamw_torch",
  adamw_torch_fused: "adamw_torch",
  adamw_bnb_8bit: "adamw_8bit",
  paged_adamw_8bit: "adamw_8bit",
  paged_lion_32bit: "lion_32bit",
};

/** All names. */
export const OPTIMIZER_NAMES: readonly string[] = [...Object.keys(RULES), ...Object.keys(ALIASES)];

/**
 * The optimiser over a model's parameters.
 * @throws {ConfigError} for a name that is none of `OPTIMIZER_NAMES`, or a momentum that the optimiser does not have
 */
export function createOptimizer(be: Backend, params: Params, o: OptimOptions): Optimizer {
  const rule = RULES[ALIASES[o.name] ?? o.name];
  if (!rule) throw new ConfigError(`Cannot use the optimiser '${o.name}': there are ${OPTIMIZER_NAMES.join(", ")}`);
  if (o.momentum && rule !== sgd) throw new ConfigError(`Cannot use momentum with '${o.name}': it acts with sgd alone`);
  return new SlabOptimizer(be, params, o, rule);
}
