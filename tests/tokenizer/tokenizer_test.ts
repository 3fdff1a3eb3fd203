/** Tokenizers against Rust's tokenizers and llama.cpp (shared goldens), and on small vocabularies made here. */
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, describe, expect, test } from "vitest";
import { ConfigError, FormatError } from "../../src/core/errors.ts";
import {
  CHATML,
  encodeChat,
  encodeRendered,
  loadTokenizer,
  tokenizerFromGguf,
  withTemplate,
} from "../../src/tokenizer/mod.ts";
import { cannotUnpack, runFolder, unpack } from "../golden/tokenizer_cases.ts";

const SHARED = fileURLToPath(new URL("../../../shared/", import.meta.url));
const why = existsSync(SHARED) ? cannotUnpack() : "shared is absent", absent = why ? ` (${why})` : "";

describe.skipIf(absent !== "")(`against goldens${absent}`, () => {
  for (const folder of ["golden-tokenizers", "vocab"]) {
    test(`every row of ${folder} is equal`, () => {
      const rows = [...runFolder(join(SHARED, folder))];
      expect(rows.length).toBeGreaterThan(4);
      expect(rows.filter((r) => r.equal < r.of)).toEqual([]);
      expect(rows.every((r) => r.of > 0)).toBe(true);
    });
  }

  test("a SentencePiece vocabulary with scores gives the ids of the tokenizer.json made from it", () => {
    const files = unpack(join(SHARED, "golden-tokenizers"));
    try {
      for (const [name, prefix] of [["llama2", true], ["gemma3", false]] as const) {
        const meta = metadataOf(JSON.parse(readFileSync(join(files.find(name)!, "tokenizer.json"), "utf8")), prefix);
        const t = tokenizerFromGguf(meta, name);
        const golden = JSON.parse(readFileSync(files.find(`${name}.json`)!, "utf8"));
        for (const e of golden.encodings) expect(Array.from(t.encode(e.text)), e.text).toEqual(e.ids);
        for (const e of golden.encodings) expect(t.decode(e.ids), e.text).toBe(e.decoded);
      }
    } finally {
      files.close();
    }
  });

  test("GGUF vocabularies of Llama 3 and Qwen2 give the ids of their tokenizer.json", () => {
    const vocab = unpack(join(SHARED, "vocab"));
    try {
      for (const [name, json] of [["llama-bpe", "llama3_1"], ["qwen2", "qwen3"]] as const) {
        const t = loadTokenizer(vocab.find(`ggml-vocab-${name}.gguf`)!);
        const golden = JSON.parse(readFileSync(join(SHARED, "golden-tokenizers", `${json}.json`), "utf8"));
        for (const e of golden.encodings) expect(Array.from(t.encode(e.text)), e.text).toEqual(e.ids);
      }
    } finally {
      vocab.close();
    }
  });

  test("SmolLM2's turn marker is its BOS, is not added, and ends nothing", () => {
    const t = loadTokenizer(join(SHARED, "models/SmolLM2-135M-Instruct.Q4_1.gguf"));
    expect([t.size, t.bos, t.addBos, t.pad, t.eos[0]]).toEqual([49152, 1, false, 2, 2]);
    expect(t.piece(1)).toBe("<|im_start|>");
    expect(t.eos).not.toContain(1);
    const ids = encodeChat(t, [{ role: "user", content: "hi" }], { addPrompt: true });
    expect(t.decode(ids.slice(0, 3))).toBe("<|im_start|>system\n");
  });
});

/** GGUF metadata as llama.cpp's converter writes it, with scores from the ranks of the merges. */
function metadataOf(
  json: { model: { vocab: Record<string, number>; merges: (string | [string, string])[] }; added_tokens: Added[] },
  prefix: boolean,
): Map<string, unknown> {
  const tokens: string[] = [];
  for (const [piece, id] of Object.entries(json.model.vocab)) tokens[id] = piece;
  for (const a of json.added_tokens) tokens[a.id] = a.content;
  const ranks = new Map<string, number>();
  json.model.merges.forEach((m, i) => {
    const made = typeof m === "string" ? m.replace(" ", "") : m[0] + m[1];
    if (!ranks.has(made)) ranks.set(made, i);
  });
  const types = Int32Array.from(tokens, (p) => /^<0x..>$/.test(p) ? 6 : 1);
  for (const a of json.added_tokens) types[a.id] = a.special ? 3 : 4;
  return new Map<string, unknown>([
    ["tokenizer.ggml.model", "llama"],
    ["tokenizer.ggml.tokens", tokens],
    ["tokenizer.ggml.token_type", types],
    ["tokenizer.ggml.scores", Float32Array.from(tokens, (p) => -(ranks.get(p) ?? 1e7))],
    ["tokenizer.ggml.add_space_prefix", prefix],
    ["tokenizer.ggml.unknown_token_id", tokens.indexOf("<unk>")],
  ]);
}
interface Added {
  id: number;
  content: string;
  special: boolean;
}

/** A byte-level vocabulary: h e l o and Ġ, two merges, two markers, two rows of padding. */
function small(more: [string, unknown][] = []): Map<string, unknown> {
  return new Map<string, unknown>([
    ["tokenizer.ggml.model", "gpt2"],
    ["tokenizer.ggml.pre", "gpt-2"],
    ["tokenizer.ggml.tokens", ["h", "e", "l", "o", "Ġ", "he", "ll", "<s>", "</s>", "<|im_end|>", "[PAD10]", "[PAD11]"]],
    ["tokenizer.ggml.token_type", [1, 1, 1, 1, 1, 1, 1, 3, 3, 3, 5, 5]],
    ["tokenizer.ggml.merges", ["h e", "l l"]],
    ["tokenizer.ggml.bos_token_id", 7],
    ["tokenizer.ggml.eos_token_id", 8],
    ["tokenizer.chat_template", CHATML],
    ...more,
  ]);
}

describe("a tokenizer from GGUF metadata", () => {
  test("encodes, merges and decodes; padding rows do not count", () => {
    const t = tokenizerFromGguf(small(), "small");
    expect(Array.from(t.encode("hello hell"))).toEqual([5, 6, 3, 4, 5, 6]);
    expect(t.decode([5, 6, 3, 4, 5, 6])).toBe("hello hell");
    expect(t.size).toBe(10);
  });
  test("ends texts with its EOS first and the turn ends it knows by text", () => {
    expect(tokenizerFromGguf(small(), "small").eos).toEqual([8, 9]);
    expect(tokenizerFromGguf(small([["tokenizer.ggml.eot_token_id", 9]]), "small").eos).toEqual([8, 9]);
  });
  test("puts BOS in front only when asked and only when the file says so", () => {
    const plain = tokenizerFromGguf(small(), "small");
    const adds = tokenizerFromGguf(small([["tokenizer.ggml.add_bos_token", true]]), "small");
    expect(Array.from(plain.encode("he", { special: true }))).toEqual([5]);
    expect(Array.from(adds.encode("he"))).toEqual([5]);
    expect(Array.from(adds.encode("he", { special: true }))).toEqual([7, 5]);
  });
  test("never has BOS twice when the rendered text begins with it", () => {
    const adds = tokenizerFromGguf(small([["tokenizer.ggml.add_bos_token", true]]), "small");
    expect(Array.from(encodeRendered(adds, "<s>he"))).toEqual([7, 5]);
    expect(Array.from(encodeRendered(adds, "he"))).toEqual([7, 5]);
  });
  test("decodes nothing to nothing, leaves out special ids when asked, and ignores ids it does not have", () => {
    const t = tokenizerFromGguf(small(), "small");
    expect(t.decode([])).toBe("");
    expect(t.decode([7, 5, 8])).toBe("<s>he</s>");
    expect(t.decode([7, 5, 8, 11], { skipSpecial: true })).toBe("he");
  });
  test("takes another chat template", () => {
    const t = withTemplate(tokenizerFromGguf(small(), "small"), "{{ messages[0].content }}!");
    expect(t.chat([{ role: "user", content: "he" }], { addPrompt: false })).toBe("he!");
  });
  const refusals: [string, [string, unknown][], typeof ConfigError | typeof FormatError, string][] = [
    ["an unknown pre-tokenizer", [["tokenizer.ggml.pre", "nonesuch"]], ConfigError, "'nonesuch'"],
    ["a missing pre-tokenizer", [["tokenizer.ggml.pre", undefined]], ConfigError, "is missing"],
    ["an unknown kind", [["tokenizer.ggml.model", "bert"]], ConfigError, "'bert'"],
    ["a piece that stands twice", [["tokenizer.ggml.tokens", ["h", "h"]]], FormatError, "both 0 and 1"],
    ["missing merges", [["tokenizer.ggml.merges", undefined]], FormatError, "merges is missing"],
    ["types that do not reach", [["tokenizer.ggml.token_type", [1]]], FormatError, "have 1 types"],
  ];
  for (const [what, change, kind, words] of refusals) {
    test(`refuses ${what}`, () => {
      expect(() => tokenizerFromGguf(small(change), "small")).toThrow(kind);
      expect(() => tokenizerFromGguf(small(change), "small")).toThrow(words);
    });
  }
});

describe("a tokenizer from a folder", () => {
  const root = mkdtempSync(join(tmpdir(), "tokenizer-"));
  afterAll(() => rmSync(root, { recursive: true }));
  const added = ["<s>", "</s>", "<|im_end|>"].map((content, i) => ({ id: 3 + i, content, special: true }));
  const bosFirst = { type: "TemplateProcessing", single: [{ SpecialToken: { id: "<s>" } }, { Sequence: { id: "A" } }] };
  const json = {
    added_tokens: added,
    normalizer: null,
    pre_tokenizer: { type: "ByteLevel", add_prefix_space: false, use_regex: true },
    post_processor: bosFirst,
    decoder: { type: "ByteLevel" },
    model: { type: "BPE", vocab: { h: 0, e: 1, he: 2 }, merges: ["h e"] },
  };
  const config = { bos_token: "<s>", eos_token: { content: "</s>" }, chat_template: "config" };
  function folder(name: string, files: Record<string, unknown>): string {
    const dir = join(root, name);
    mkdirSync(dir);
    for (const [file, body] of Object.entries(files)) {
      writeFileSync(join(dir, file), typeof body === "string" ? body : JSON.stringify(body));
    }
    return dir;
  }

  test("reads ids, BOS rule and template", () => {
    const t = loadTokenizer(folder("plain", { "tokenizer.json": json, "tokenizer_config.json": config }));
    expect([t.size, t.bos, t.addBos, t.template]).toEqual([6, 3, true, "config"]);
    expect(t.eos).toEqual([4, 5]);
    expect(Array.from(t.encode("he<|im_end|>", { special: true }))).toEqual([3, 2, 5]);
  });
  test("takes further ends from generation_config.json and the template from chat_template.jinja", () => {
    const t = loadTokenizer(folder("more", {
      "tokenizer.json": { ...json, added_tokens: [...added, { id: 6, content: "<stop>", special: true }] },
      "tokenizer_config.json": config,
      "generation_config.json": { eos_token_id: [4, 6] },
      "chat_template.jinja": "file",
    }));
    expect([t.eos, t.template]).toEqual([[4, 6, 5], "file"]);
  });
  test("believes add_bos_token before the post-processor", () => {
    const t = loadTokenizer(folder("nobos", {
      "tokenizer.json": json,
      "tokenizer_config.json": { ...config, add_bos_token: false },
    }));
    expect(Array.from(t.encode("he", { special: true }))).toEqual([2]);
  });
  test("refuses by name what the library would do otherwise than Rust", () => {
    const unigram = { ...json, model: { type: "Unigram", vocab: [["a", 0]] } };
    expect(() => loadTokenizer(folder("unigram", { "tokenizer.json": unigram }))).toThrow("its model is Unigram");
    const whole = { ...json, added_tokens: [{ id: 3, content: "word", single_word: true }] };
    expect(() => loadTokenizer(folder("whole", { "tokenizer.json": whole }))).toThrow(
      "'word' counts only as a whole word",
    );
  });
  test("names what is missing", () => {
    expect(() => loadTokenizer(join(root, "absent"))).toThrow("does not exist");
    expect(() => loadTokenizer(folder("empty", {}))).toThrow("has no tokenizer.json");
    expect(() => loadTokenizer(folder("spm", { "tokenizer.model": "x" }))).toThrow("it has tokenizer.model");
    expect(() => loadTokenizer(folder("broken", { "tokenizer.json": "{" }))).toThrow(FormatError);
  });
});
