/** From records to rows: counts, cutting, chunks, refusals before the first step, and the store that holds the rows. */
import { existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { ConfigError, DataError } from "../../src/core/errors.ts";
import {
  describeCounts,
  openDataset,
  prepare,
  type PrepareOptions,
  selectRows,
  showExample,
} from "../../src/data/mod.ts";
import { RowStore } from "../../src/data/rows.ts";
import { BOS, EOS, shown, tinyTokenizer } from "./tiny.ts";

const tiny = tinyTokenizer();
const root = mkdtempSync(join(tmpdir(), "prepare-"));
afterAll(() => rmSync(root, { recursive: true }));

const pair = (prompt: string, completion: string) => ({ prompt, completion });
async function prepared(rows: unknown[], o: Partial<PrepareOptions> = {}, t = tiny) {
  return await prepare(await openDataset(rows), t, { maxLength: 64, ...o });
}

describe("prepare", () => {
  test("counts rows, tokens, trained tokens, what is cut and what is dropped", async () => {
    // One byte is one token; EOS is one more. Rows of 4, 10 and 9 tokens, cut to 8; the last loses its whole answer.
    const { rows, counts } = await prepared([pair("pp", "c"), pair("pp", "ccccccc"), pair("pppppppp", "")], {
      maxLength: 8,
    });
    expect(counts).toEqual({
      ...{ records: 3, rows: 2, tokens: 12, trainedTokens: 8, truncatedRows: 2, truncatedTokens: 3 },
      ...{ longest: 10, dropped: 1, badRows: 0 },
    });
    expect([rows.length, rows.tokens(1), rows.at(1).truncated, rows.at(1).source]).toEqual([2, 8, 2, 1]);
    expect(shown(tiny, rows.at(0))).toBe("pp[c</s>]");
    expect(describeCounts(counts)).toEqual([
      "Rows 2 from 3 records; tokens 12, trained 8 (66.7%)",
      "Cut at the right: 2 rows, 3 tokens lost; the longest row has 10",
      "Dropped: 1 rows without a trained token",
    ]);
  });
  test("says what it does", async () => {
    const { notes } = await prepared([{
      messages: [{ role: "user", content: "q" }, { role: "assistant", content: "a" }],
    }]);
    expect(notes).toEqual(["Template: the model's chat template; trained: answers; no BOS; EOS </s>"]);
  });
  test("refuses data of which nothing is trained, and says why", async () => {
    await expect(prepared([pair("pppppppp", "c")], { maxLength: 4 })).rejects.toThrow(
      /cut before the answer, so raise max_seq_length/,
    );
  });
  test("refuses a tokenizer with more ids than the model has rows", async () => {
    await expect(prepared([pair("p", "c")], { vocab: 259 })).rejects.toThrow(
      "has 260 ids and the model's embedding 259 rows",
    );
    expect((await prepared([pair("p", "c")], { vocab: 260 })).counts.rows).toBe(1);
  });
  test("refuses a tokenizer without an end", async () => {
    const endless = tinyTokenizer({ "tokenizer.ggml.eos_token_id": undefined });
    await expect(prepared([pair("p", "c")], {}, endless)).rejects.toThrow(
      /no token that ends a text.*name one as eos_token in tokenizer_config\.json/,
    );
  });
  test("refuses preferences unless told to train on the chosen answers", async () => {
    const rows = [{ prompt: "p", chosen: "good", rejected: "bad" }];
    await expect(prepared(rows)).rejects.toThrow(DataError);
    const { rows: got, notes } = await prepared(rows, { preference: "chosen" });
    expect(shown(tiny, got.at(0))).toMatch(/\[good<\|im_end\|>\n\]$/);
    expect(notes.join("\n")).toContain("chosen answers alone");
  });
  test("refuses rated answers unless told to train on the wanted ones", async () => {
    const rows = [{ ...pair("p", "good"), label: true }, { ...pair("p", "bad"), label: false }];
    await expect(prepared(rows)).rejects.toThrow("'label' says whether its answer is wanted");
    const { rows: got, counts } = await prepared(rows, { preference: "chosen" });
    expect([got.length, counts.dropped, shown(tiny, got.at(0))]).toEqual([1, 1, "p[good</s>]"]);
  });
  test("refuses a broken record met late with file and line, and removes its temporary file", async () => {
    const path = join(root, "late.jsonl");
    const good = JSON.stringify(pair("p", "c".repeat(50)));
    writeFileSync(path, `${good}\n`.repeat(500) + '{"prompt":"p","completion":null}\n');
    const before = readdirSync(tmpdir()).filter((n) => n.startsWith("unsloth-rows-"));
    await expect(prepare(await openDataset(path), tiny, { maxLength: 64, memory: 1 })).rejects.toThrow(
      "line 501: its 'completion' is null",
    );
    expect(readdirSync(tmpdir()).filter((n) => n.startsWith("unsloth-rows-"))).toEqual(before);
  });
  test("stops when it is interrupted, in the first pass and in the second", async () => {
    const rows = Array.from({ length: 3000 }, () => pair("p", "c")), signal = AbortSignal.abort();
    await expect(openDataset(rows, { signal })).rejects.toMatchObject({ name: "AbortError" });
    await expect(prepared(rows, { signal })).rejects.toMatchObject({ name: "AbortError" });
  });
  test("stops at its limit and reports progress", async () => {
    const calls: number[][] = [];
    const { counts } = await prepared(Array.from({ length: 600 }, () => pair("p", "c")), {
      limit: 520,
      onProgress: (done, total) => calls.push([done, total]),
    });
    expect([counts.records, calls]).toEqual([520, [[256, 520], [512, 520], [520, 520]]]);
  });
  test("refuses lengths that cannot be", async () => {
    await expect(prepared([pair("p", "c")], { maxLength: 1 })).rejects.toThrow(ConfigError);
  });
});

describe("texts in chunks", () => {
  async function chunks(name: string, text: string, o: Partial<PrepareOptions>, t = tiny) {
    writeFileSync(join(root, name), text);
    const { rows } = await prepare(await openDataset(join(root, name)), t, { maxLength: 64, ...o });
    return Array.from({ length: rows.length }, (_, i) => shown(t, rows.at(i)));
  }
  test("of a file overlap by the stride, and EOS comes once, at the end", async () => {
    expect(await chunks("a.txt", "abcdefghij", { chunks: { size: 4, stride: 1 } })).toEqual([
      "a[bcd]",
      "d[efg]",
      "g[hij]",
      "j[</s>]",
    ]);
    expect(await chunks("b.txt", "abcdefghi", { chunks: { size: 4, stride: 1 } })).toEqual([
      "a[bcd]",
      "d[efg]",
      "g[hi</s>]",
    ]);
  });
  test("of a file fill maxLength when nothing else is said", async () => {
    expect(await chunks("c.md", "abcdefg", { maxLength: 4 })).toEqual(["a[bcd]", "e[fg</s>]"]);
  });
  test("open with BOS where the tokenizer adds it, once a file", async () => {
    const adds = tinyTokenizer({ "tokenizer.ggml.add_bos_token": true });
    expect(await chunks("d.txt", "abcdef", { maxLength: 4 }, adds)).toEqual(["<s>[abc]", "d[ef</s>]"]);
  });
  test("hold every token of a file that is read in pieces", async () => {
    const text = Array.from({ length: 180 }, (_, i) => `${i} ${"word ".repeat(1300)}`).join("\n");
    writeFileSync(join(root, "long.txt"), text);
    const { rows } = await prepare(await openDataset(join(root, "long.txt")), tiny, { maxLength: 1 << 16 });
    let got = "";
    for (let i = 0; i < rows.length; i++) got += tiny.decode(rows.at(i).ids);
    expect(got === text + "</s>").toBe(true);
  });
  test("of records are made only when asked; else records are cut", async () => {
    const rows = [{ text: "abcdef" }, { text: "xy" }];
    expect((await prepared(rows, { maxLength: 4 })).counts.truncatedTokens).toBe(3);
    const { rows: got } = await prepared(rows, { maxLength: 4, chunks: { size: 4, stride: 0 } });
    expect([0, 1, 2].map((i) => shown(tiny, got.at(i)))).toEqual(["a[bcd]", "e[f</s>]", "x[y</s>]"]);
  });
  test("that would not advance are refused", async () => {
    await expect(chunks("e.txt", "abc", { chunks: { size: 4, stride: 4 } })).rejects.toThrow(ConfigError);
    await expect(chunks("f.txt", "abc", { maxLength: 4, chunks: { size: 5, stride: 0 } })).rejects.toThrow(
      "chunks of 5 tokens: a row holds 4",
    );
  });
});

describe("the store of rows", () => {
  const row = (i: number) => ({
    ids: Int32Array.from({ length: 1 + (i * 7919) % 3000 }, (_, k) => i * 31 + k),
    weights: Uint8Array.from({ length: 1 + (i * 7919) % 3000 }, (_, k) => (i + k) % 2),
    source: i,
    truncated: i % 3,
  });
  test("gives back what was put in, from memory and from its file, in any order", () => {
    const small = new RowStore(1 << 20), large = new RowStore();
    for (let i = 0; i < 2000; i++) [small, large].forEach((s) => s.push(row(i)));
    expect(small.bytes).toBeLessThan(5 << 20);
    expect(large.bytes).toBeGreaterThan(12 << 20);
    for (const i of [1999, 0, 1234, 7, 0]) {
      expect(small.at(i)).toEqual(row(i));
      expect(large.at(i)).toEqual(row(i));
      expect(small.tokens(i)).toBe(row(i).ids.length);
    }
    const folder = readdirSync(tmpdir()).filter((n) => n.startsWith("unsloth-rows-")).map((n) => join(tmpdir(), n));
    small.close();
    large.close();
    expect(folder.some((f) => !existsSync(f))).toBe(true);
    expect(() => large.at(2000)).toThrow(RangeError);
  });
  test("takes rows longer than a slab", () => {
    const store = new RowStore(1),
      long = { ...row(1), ids: new Int32Array(2_000_000).fill(5), weights: new Uint8Array(2_000_000) };
    [row(1), long, row(2)].forEach((r) => store.push(r));
    expect([store.at(1).ids.length, store.at(2)]).toEqual([2_000_000, row(2)]);
    store.close();
  });
  test("shows some of its rows in another order", () => {
    const store = new RowStore();
    [0, 1, 2].forEach((i) => store.push(row(i)));
    const some = selectRows(store, [2, 0]);
    expect([some.length, some.at(0), some.tokens(1)]).toEqual([2, row(2), row(0).ids.length]);
    expect(() => some.at(2)).toThrow(RangeError);
  });
});

describe("an example is shown", () => {
  const bytes = (s: string) => Array.from(new TextEncoder().encode(s));
  const ids = Int32Array.from([BOS, ...bytes("q\n"), ...bytes("é\x07"), EOS]);
  const r = { ids, weights: Uint8Array.from([0, 0, 0, 1, 1, 1, 1]), source: 0, truncated: 0 };
  test("token by token, trained ones in brackets, control characters harmless", () => {
    expect(showExample(r, tiny)).toBe("<s>q⏎\n[é][·][</s>]");
  });
  test("with bytes that are no character as they stand in the vocabulary", () => {
    const cut = {
      ...r,
      ids: Int32Array.from([BOS, ...bytes("👍").slice(0, 2), 113]),
      weights: Uint8Array.from([0, 0, 1, 1]),
    };
    expect(showExample(cut, tiny)).toBe("<s>ð[Ł][q]");
  });
  test("in colour", () => expect(showExample(r, tiny, { color: true })).toBe("<s>q⏎\n\x1b[32mé·</s>\x1b[0m"));
  test("with its middle left out when it is long", () => {
    expect(showExample(r, tiny, { limit: 4 })).toBe("<s>q … 3 tokens … [·][</s>]");
    const ids = Int32Array.from(bytes("abcdefghijklmnop")), weights = new Uint8Array(16);
    weights.fill(1, 8, 10); // what is trained is shown, wherever it stands
    expect(showExample({ ...r, ids, weights }, tiny, { limit: 8 })).toBe("abcd … 3 tokens … h[i][j]k … 5 tokens … ");
  });
});
