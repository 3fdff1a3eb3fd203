/**
 * Gradient checkpointing (Chen et al. 2016): what stays of each block between the passes; the rest is computed again.
 * @module
 */
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

/** true: of each block its input, but for the last one, whose backward follows at once; false: what products make. */
export function checkpointing(layers: number, o: boolean | "offload" | Checkpointing): Checkpointing {
  if (o === "offload") return { levels: Array(layers).fill(LEVEL.input), offload: true };
  if (typeof o !== "boolean") return o;
  const level = o ? LEVEL.input : LEVEL.products;
  return { levels: Array.from({ length: layers }, (_, n) => n + 1 < layers ? level : LEVEL.products) };
}
