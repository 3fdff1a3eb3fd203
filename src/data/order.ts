/**
 * In what order rows are trained. Every order comes from Philox with the seed and the epoch, so it is the same on every runtime
 * and can be made again when a run is resumed.
 * @module
 */
import { ConfigError } from "../core/errors.ts";
import { Random } from "../core/philox.ts";
import { selectRows } from "./rows.ts";
import type { BatchOptions, Rows } from "./types.ts";

/** Streams of Philox that belong to the order of data ("data" and "eval" in ASCII); epochs count up from the first. */
const EPOCHS = 0x64617461, EVAL = 0x6576616c;

/** Micro-batches whose rows are sorted by length together, as transformers' LengthGroupedSampler has it. */
const GROUP = 50;

/** The numbers below n in random order (Fisher and Yates). */
function permute(n: number, random: Random): Int32Array {
  const order = Int32Array.from({ length: n }, (_, i) => i);
  for (let i = n - 1; i > 0; i--) {
    const j = random.below(i + 1);
    [order[i], order[j]] = [order[j]!, order[i]!];
  }
  return order;
}

/** Rows of one epoch in the order they are taken, before they are put into batches or packs. */
export function orderRows(rows: Rows, o: BatchOptions): Int32Array {
  if (o.shuffle === false) return Int32Array.from({ length: rows.length }, (_, i) => i);
  const random = new Random(o.seed, (EPOCHS + (o.epoch ?? 0)) >>> 0);
  const order = permute(rows.length, random);
  if (!o.groupByLength) return order;
  // Long rows first within a group, so that batches are of one length; the batches then come in random order.
  const size = GROUP * o.batchSize;
  for (let from = 0; from < order.length; from += size) {
    const group = order.subarray(from, from + size);
    group.set(Array.from(group).sort((a, b) => rows.tokens(b) - rows.tokens(a) || a - b));
  }
  const full = Math.floor(order.length / o.batchSize), out = new Int32Array(order.length);
  permute(full, random).forEach((from, to) =>
    out.set(order.subarray(from * o.batchSize, (from + 1) * o.batchSize), to * o.batchSize)
  );
  out.set(order.subarray(full * o.batchSize), full * o.batchSize);
  return out;
}

/**
 * Parts rows at random into some to train on and some to evaluate with.
 * @param size rows to evaluate with: a number of them, or below 1 a share
 * @throws {ConfigError} when nothing would be left to train on
 */
export function splitRows(rows: Rows, size: number, seed: number): { train: Rows; eval: Rows } {
  const count = size < 1 ? Math.ceil(size * rows.length) : Math.floor(size);
  if (!(count >= 0 && count < rows.length)) {
    throw new ConfigError(`Cannot hold out ${size} of ${rows.length} rows: at least one must be left to train on`);
  }
  const order = permute(rows.length, new Random(seed, EVAL));
  const sorted = (part: Int32Array) => selectRows(rows, part.toSorted());
  return { train: sorted(order.subarray(count)), eval: sorted(order.subarray(0, count)) };
}
