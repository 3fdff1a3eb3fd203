/** A small byte-level tokenizer for tests of data: all 256 bytes, no merges, ChatML's markers. One byte, one token. */
import { CHATML, type Tokenizer, tokenizerFromGguf } from "../../src/tokenizer/mod.ts";

/** The alphabet of byte-level BPE (openai/gpt-2, encoder.py: bytes_to_unicode). */
function byteAlphabet(): string[] {
  const plain = (b: number) => (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
  let next = 256;
  return Array.from({ length: 256 }, (_, b) => String.fromCharCode(plain(b) ? b : next++));
}

/** Ids: byte b is b; then `<s>`, `</s>`, `<|im_start|>`, `<|im_end|>`. `change` replaces keys of the metadata. */
export function tinyTokenizer(change: Record<string, unknown> = {}, merges: string[] = []): Tokenizer {
  const pieces = [
    ...byteAlphabet(),
    "<s>",
    "</s>",
    "<|im_start|>",
    "<|im_end|>",
    ...merges.map((m) => m.replace(" ", "")),
  ];
  return tokenizerFromGguf(
    new Map<string, unknown>(Object.entries({
      "tokenizer.ggml.model": "gpt2",
      "tokenizer.ggml.pre": "gpt-2",
      "tokenizer.ggml.tokens": pieces,
      "tokenizer.ggml.token_type": pieces.map((_, id) => id >= 256 && id < 260 ? 3 : 1),
      "tokenizer.ggml.merges": merges,
      "tokenizer.ggml.bos_token_id": BOS,
      "tokenizer.ggml.eos_token_id": EOS,
      "tokenizer.chat_template": CHATML,
      ...change,
    })),
    "tiny",
  );
}

export const BOS = 256, EOS = 257, IM_START = 258, IM_END = 259;

/** A row as text, trained tokens in brackets, runs joined. */
export function shown(t: Tokenizer, row: { ids: Int32Array; weights: Uint8Array }): string {
  let out = "";
  for (let i = 0; i < row.ids.length;) {
    let j = i;
    while (j < row.ids.length && row.weights[j] === row.weights[i]) j++;
    const text = t.decode(row.ids.subarray(i, j));
    out += row.weights[i] ? `[${text}]` : text;
    i = j;
  }
  return out;
}
