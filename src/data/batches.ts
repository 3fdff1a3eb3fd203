/**
 * Rows to micro-batches: sequences laid end to end, without padding, with their positions and bounds. An epoch is planned from
 * lengths alone, so counting its batches and going on in its middle cost nothing.
 * @module
 */
import { ConfigError } from "../core/errors.ts";
import { orderRows } from "./order.ts";
import { packRows } from "./pack.ts";
import type { Batch, BatchOptions, Row, Rows } from "./types.ts";

/** Row numbers of each micro-batch of one epoch. */
export function planEpoch(rows: Rows, o: BatchOptions): number[][] {
  if (!(o.batchSize >= 1)) throw new ConfigError(`Cannot make batches of ${o.batchSize} rows`);
  const order = orderRows(rows, o);
  const units = o.packTo ? packRows(order, (r) => rows.tokens(r), o.packTo) : Array.from(order, (r) => [r]);
  const plan: number[][] = [];
  for (let from = 0; from < units.length; from += o.batchSize) {
    if (o.dropLast && from + o.batchSize > units.length && plan.length > 0) break;
    plan.push(units.slice(from, from + o.batchSize).flat());
  }
  return plan;
}

/** Micro-batches of one epoch. */
export function countBatches(rows: Rows, o: BatchOptions): number {
  return planEpoch(rows, o).length;
}

/**
 * The micro-batches of one epoch, from `start` on.
 * @example
 * ```ts
 * for (const batch of batches(prepared.rows, { batchSize: 2, seed: 3407 })) step(batch);
 * ```
 */
export function* batches(rows: Rows, o: BatchOptions): Generator<Batch> {
  const plan = planEpoch(rows, o);
  for (let i = o.start ?? 0; i < plan.length; i++) yield layOut(plan[i]!.map((r) => rows.at(r)));
}

/** Rows end to end: each token's target is the next one of its row, and its weight that target's. */
export function layOut(rows: readonly Row[]): Batch {
  const total = rows.reduce((n, r) => n + r.ids.length, 0);
  const batch: Batch = {
    ids: new Int32Array(total),
    targets: new Int32Array(total),
    weights: new Float32Array(total),
    pos: new Int32Array(total),
    cu: new Int32Array(rows.length + 1),
  };
  let at = 0;
  rows.forEach((row, s) => {
    const n = row.ids.length;
    batch.ids.set(row.ids, at);
    batch.targets.set(row.ids.subarray(1), at);
    batch.weights.set(row.weights.subarray(1), at);
    for (let i = 0; i < n; i++) batch.pos[at + i] = i;
    at += n;
    batch.cu[s + 1] = at;
  });
  return batch;
}
