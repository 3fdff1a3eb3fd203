/** Log-probabilities in the two shapes of OpenAI's API. @module */
import type { TokenLogprob } from "../src/infer/types.ts";
import type { Tokenizer } from "../src/tokenizer/types.ts";

/** A token with its log-probability. `token` has U+FFFD where it is a part of a character; `bytes` tells which part. */
export interface ChatLogprob {
  token: string;
  logprob: number;
  bytes: number[] | null;
}

/** Of /v1/chat/completions. */
export interface ChatLogprobs {
  content: (ChatLogprob & { top_logprobs: ChatLogprob[] })[];
  refusal: null;
}

/** Of /v1/completions; `text_offset` counts UTF-16 units from the start of the answer. */
export interface TextLogprobs {
  tokens: string[];
  token_logprobs: number[];
  top_logprobs: Record<string, number>[];
  text_offset: number[];
}

/** JSON has no -Infinity: a token that cannot come is -9999, as in vLLM. */
const finite = (logprob: number) => Math.max(logprob, -9999);

/** The chat's shape. */
export function chatLogprobs(tokenizer: Tokenizer, list: readonly TokenLogprob[]): ChatLogprobs {
  const one = ({ id, logprob }: { id: number; logprob: number }): ChatLogprob => {
    const token = tokenText(tokenizer, id);
    return { token, logprob: finite(logprob), bytes: tokenBytes(tokenizer, id, token) };
  };
  return { content: list.map((l) => ({ ...one(l), top_logprobs: l.top.map(one) })), refusal: null };
}

/** The completions' shape; `offset` is the length of the text before. */
export function textLogprobs(tokenizer: Tokenizer, list: readonly TokenLogprob[], offset: number): TextLogprobs {
  const tokens = list.map((l) => tokenText(tokenizer, l.id));
  const starts = tokens.map((_, i) => tokens.slice(0, i).reduce((n, t) => n + t.length, offset));
  return {
    tokens,
    token_logprobs: list.map((l) => finite(l.logprob)),
    top_logprobs: list.map((l) =>
      Object.fromEntries(l.top.map((t) => [tokenText(tokenizer, t.id), finite(t.logprob)]))
    ),
    text_offset: starts,
  };
}

/** A token's text, with the space that SentencePiece vocabularies write as U+2581 and drop at the start of a text. */
function tokenText(tokenizer: Tokenizer, id: number): string {
  const text = tokenizer.decode([id]);
  return tokenizer.piece(id).startsWith("\u2581") && !text.startsWith(" ") ? ` ${text}` : text;
}

/** A token's bytes; null where neither its text nor its piece tells them. */
function tokenBytes(tokenizer: Tokenizer, id: number, text: string): number[] | null {
  if (!text.includes("\ufffd")) return [...new TextEncoder().encode(text)];
  const piece = tokenizer.piece(id), byte = /^<0x([0-9A-F]{2})>$/.exec(piece);
  if (byte) return [parseInt(byte[1], 16)];
  const bytes = Array.from(piece, (c) => BYTE_OF.get(c));
  return bytes.includes(undefined) ? null : bytes as number[];
}

/** GPT-2's alphabet of bytes (`bytes_to_unicode` in openai/gpt-2, src/encoder.py): printable ones stand for themselves. */
const BYTE_OF: ReadonlyMap<string, number> = (() => {
  const map = new Map<string, number>();
  let next = 256;
  for (let b = 0; b < 256; b++) {
    const printable = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
    map.set(String.fromCharCode(printable ? b : next++), b);
  }
  return map;
})();
