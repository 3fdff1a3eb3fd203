/** What flows from a dataset to a training step. @module */
import type { Message } from "../tokenizer/types.ts";

/** One record after its format was recognised. */
export type Example =
  | { kind: "chat"; messages: Message[]; tools?: unknown[] }
  | { kind: "completion"; prompt: string; completion: string }
  | { kind: "text"; text: string }
  | { kind: "preference"; prompt: Message[]; chosen: Message[]; rejected: Message[] };

/** One tokenised row. `weights[i]` is 1 where token i is trained as a target; the first token never is. */
export interface Row {
  ids: Int32Array;
  weights: Uint8Array;
  /** Index of the record in the dataset. */
  source: number;
  /** Tokens cut off at the right. */
  truncated: number;
}

/**
 * One micro-batch, sequences laid end to end: N tokens, S sequences.
 * `targets[n]` is the next token within the sequence; `weights[n]` 0 where it is not trained (always at a sequence's last token).
 */
export interface Batch {
  ids: Int32Array /* [N] */;
  targets: Int32Array /* [N] */;
  weights: Float32Array /* [N], 0 or 1 */;
  pos: Int32Array /* [N], restarting in each sequence */;
  cu: Int32Array /* [S+1] */;
}
