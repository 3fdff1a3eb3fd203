/** How text is cut into words, against what Rust's tokenizers cut (make_pre_tokenizers.py). */
import { Tokenizer as Library } from "@huggingface/tokenizers";
import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { describePreTokenizer, PRE_TOKENIZERS } from "../../src/tokenizer/pre_tokenizers.ts";
import { type Node, rewritePreTokenizer } from "../../src/tokenizer/rewrite.ts";

const golden = JSON.parse(readFileSync(new URL("pre_tokenizers.json", import.meta.url), "utf8")) as {
  texts: string[];
  kinds: Record<string, string[][]>;
  rewritten: Record<string, string[][]>;
};

function cut(description: unknown): string[][] {
  const model = { type: "BPE", vocab: {}, merges: [] };
  const parts = { normalizer: null, pre_tokenizer: description, post_processor: null, decoder: null };
  const words = new Library({ ...parts, added_tokens: [], model }, {}).pre_tokenizer!;
  return golden.texts.map((t) => t === "" ? [] : words.pre_tokenize(t, { section_index: 0 }));
}

describe("a GGUF file's pre-tokenizer cuts as the model's tokenizer.json does in Rust", () => {
  for (const [kind, want] of Object.entries(golden.kinds)) {
    test(kind, () => expect(cut(describePreTokenizer(PRE_TOKENIZERS.get(kind)!))).toEqual(want));
  }
});

describe("a rewritten part of tokenizer.json cuts as in Rust", () => {
  const parts: Record<string, Node> = {
    "digits": { type: "Digits", individual_digits: true },
    "digit runs": { type: "Digits", individual_digits: false },
    "metaspace": { type: "Metaspace", replacement: "▁", prepend_scheme: "always", split: true },
    "metaspace first": { type: "Metaspace", replacement: "▁", prepend_scheme: "first", split: true },
    "merged with previous": { type: "Split", pattern: { String: " " }, behavior: "MergedWithPrevious", invert: false },
    "merged with next": { type: "Split", pattern: { String: "-" }, behavior: "MergedWithNext", invert: false },
  };
  for (const [kind, node] of Object.entries(parts)) {
    test(kind, () => expect(cut(rewritePreTokenizer(node, "test"))).toEqual(golden.rewritten[kind]));
  }
  test("a behavior that cannot be written is refused by name", () => {
    const node = { type: "Split", pattern: { Regex: "a+" }, behavior: "Contiguous", invert: false };
    expect(() => rewritePreTokenizer(node, "folder")).toThrow("splits with behavior 'Contiguous'");
  });
});
