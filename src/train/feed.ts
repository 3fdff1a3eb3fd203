/**
 * Micro-batches in the order of training, epoch after epoch, with the place of each, so that a run can go on anywhere. A
 * step's micro-batches never cross an epoch's end: the last step of an epoch takes what is left (transformers' rule).
 * @module
 */
import { layOut, planEpoch } from "../data/mod.ts";
import type { Batch, BatchOptions, Rows } from "../data/types.ts";

/** Where training stands in the data: the epoch, and how many of its micro-batches are done. */
export interface Place {
  readonly epoch: number;
  readonly micro: number;
}

/** The micro-batches of one step, and the place after them. */
export interface StepBatches {
  readonly micro: readonly Batch[];
  /** Numbers of the records in them, from 0. */
  readonly records: readonly number[];
  readonly next: Place;
}

/** What decides the order. */
export type FeedOptions = Pick<BatchOptions, "batchSize" | "packTo" | "seed" | "groupByLength"> & {
  /** Micro-batches a step. */
  readonly accumulation: number;
};

/** Steps of one epoch; packing may make epochs differ by a few, and this is the first one's. */
export function stepsPerEpoch(rows: Rows, o: FeedOptions): number {
  return Math.ceil(planEpoch(rows, o).length / o.accumulation);
}

/** Endless steps from a place. */
export function* feed(rows: Rows, o: FeedOptions, from: Place): Generator<StepBatches, never> {
  let { epoch, micro } = from;
  while (true) {
    const plan = planEpoch(rows, { ...o, epoch });
    while (micro < plan.length) {
      const parts = plan.slice(micro, micro + o.accumulation).map((numbers) => numbers.map((r) => rows.at(r)));
      micro += parts.length;
      const next = micro < plan.length ? { epoch, micro } : { epoch: epoch + 1, micro: 0 };
      yield { micro: parts.map(layOut), records: parts.flat().map((row) => row.source), next };
    }
    epoch++;
    micro = 0;
  }
}
