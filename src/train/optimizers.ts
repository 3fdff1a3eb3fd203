/** Optimisers by name, and the groups of parameters they treat apart. @module */
import type { Backend } from "../core/backend.ts";
import { ConfigError } from "../core/errors.ts";
import type { Params } from "../nn/params.ts";
import { AdamW, type GroupTable } from "./adamw.ts";
import type { Optimizer, OptimOptions } from "./types.ts";

type Make = (be: Backend, params: Params, o: OptimOptions, groups: GroupTable) => Optimizer;

const OPTIMIZERS: Readonly<Record<string, Make>> = {
  adamw_torch: (be, params, o, groups) => new AdamW(be, params, o, groups),
};

/** All names. */
export const OPTIMIZER_NAMES: readonly string[] = Object.keys(OPTIMIZERS);

/** Parameter groups: LoRA's B apart where LoRA+ gives it another learning rate. */
export function groupFor(o: Pick<OptimOptions, "loraPlusRatio">): (name: string) => string {
  const apart = o.loraPlusRatio !== undefined && o.loraPlusRatio !== 1;
  return (name) => apart && name.includes(".lora_B.") ? "lora_b" : "main";
}

/** @throws {ConfigError} for a name that is none of `OPTIMIZER_NAMES` */
export function createOptimizer(be: Backend, params: Params, o: OptimOptions): Optimizer {
  const make = OPTIMIZERS[o.name];
  if (!make) throw new ConfigError(`Cannot use the optimiser '${o.name}': there are ${OPTIMIZER_NAMES.join(", ")}`);
  return make(be, params, o, { lora_b: { lr: o.loraPlusRatio ?? 1, decay: 1 } });
}
