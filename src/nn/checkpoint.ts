/**
 * Gradient checkpointing (Chen et al. 2016): what stays of each block between the passes; the rest is computed again.
 * @module
 */
import type { Backend } from "../core/backend.ts";
import { ConfigError } from "../core/errors.ts";
import { LEVEL, type Level } from "./mixer.ts";

/** What stays of a model's blocks. */
export interface Checkpointing {
  /** One a block. */
  readonly levels: readonly Level[];
  /** The blocks' inputs wait in host memory (offload.ts). Default false. */
  readonly offload?: boolean;
}

/** Whether a product is computed twice. */
export function recomputes(o: Checkpointing): boolean {
  return o.levels.some((l) => l < LEVEL.products);
}

/**
 * true: of each block its input, but for the last one, whose backward follows at once; "offload": the inputs in host memory;
 * false: what products make.
 * @throws {ConfigError} when the backend has no other memory to move to
 */
export function checkpointing(
  be: Pick<Backend, "name" | "offloads">,
  layers: number,
  o: boolean | "offload" | Checkpointing,
): Checkpointing {
  const offload = o === "offload" || (typeof o === "object" && o.offload), why = offload ? be.offloads() : null;
  if (why !== null) throw new ConfigError(`Cannot move blocks' inputs to host memory on ${be.name}: ${why}`);
  if (typeof o === "object") return o;
  if (o === "offload") return { levels: Array(layers).fill(LEVEL.input), offload: true };
  const level = o ? LEVEL.input : LEVEL.products;
  return { levels: Array.from({ length: layers }, (_, n) => n + 1 < layers ? level : LEVEL.products) };
}
