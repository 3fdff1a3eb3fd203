/**
 * From a file to micro-batches: `openDataset` recognises the format, `prepare` makes tokens with a loss mask, `batches` lays
 * rows end to end. Everything here is the same on every runtime for the same seed.
 * @module
 */
export type {
  Batch,
  BatchOptions,
  Counts,
  Dataset,
  DatasetOptions,
  Example,
  FormatName,
  Prepared,
  PrepareOptions,
  RawPart,
  Row,
  Rows,
} from "./types.ts";
export { batches, countBatches, layOut, planEpoch } from "./batches.ts";
export { openDataset } from "./dataset.ts";
export { splitRows } from "./order.ts";
export { describeCounts, showExample, type ShowOptions } from "./preflight.ts";
export { prepare } from "./prepare.ts";
export { alpacaPrompt } from "./render.ts";
export { isDataFile } from "./read/mod.ts";
export { selectRows } from "./rows.ts";
export { countShared, digestRows } from "./shared_rows.ts";
