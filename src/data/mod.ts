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
  Row,
  Rows,
} from "./types.ts";
