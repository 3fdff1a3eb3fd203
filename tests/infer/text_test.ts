/** Text out of tokens: whole characters only, nothing of a stop string, and every token beside its text. */
import { describe, expect, test } from "vitest";
import { Random } from "../../src/core/philox.ts";
import { AnswerText, Detokenizer, StopFilter } from "../../src/infer/text.ts";

/** A tokenizer whose token is one byte of UTF-8, so that every character over U+007F spans tokens. */
const bytes = { decode: (ids: ArrayLike<number>) => new TextDecoder("utf-8").decode(Uint8Array.from(Array.from(ids))) };
const encode = (text: string) => [...new TextEncoder().encode(text)];
const TEXT = "naïve 日本語 👩‍👩‍👧 €5 — ok\n𝕏𝄞";

describe("Detokenizer", () => {
  test("never gives out a part of a character and loses none", () => {
    const d = new Detokenizer(bytes, []);
    const parts = encode(TEXT).map((b) => d.push(b));
    for (const p of parts) expect(p).not.toContain("\ufffd");
    expect(parts.join("") + d.flush()).toBe(TEXT);
  });
  test("gives out each character with its last byte, not later", () => {
    const d = new Detokenizer(bytes, []);
    expect(encode("a€b").map((b) => d.push(b))).toEqual(["a", "", "", "€", "b"]);
  });
  test("shows bytes that are no character as U+FFFD once something follows, or at the end", () => {
    const d = new Detokenizer(bytes, []);
    expect([0xe2, 0x82, 0x61].map((b) => d.push(b))).toEqual(["", "", "\ufffda"]);
    expect([d.push(0xe2), d.flush(), d.flush()]).toEqual(["", "\ufffd", ""]);
  });
  test("passes on a real U+FFFD", () => {
    const d = new Detokenizer(bytes, []);
    expect(encode("\ufffdx").map((b) => d.push(b)).join("")).toBe("\ufffdx");
  });
  test("keeps the space that a tokenizer drops at the start of a text", () => {
    const words = ["▁Hello", "▁world", "▁again"];
    const spm = {
      decode: (ids: ArrayLike<number>) =>
        Array.from(ids, (i) => words[i]).join("").replaceAll("▁", " ").replace(/^ /, ""),
    };
    const d = new Detokenizer(spm, [0]);
    expect([d.push(1), d.push(2)]).toEqual([" world", " again"]);
    expect(new Detokenizer(spm, []).push(0)).toBe("Hello");
  });
});

describe("StopFilter", () => {
  const run = (parts: string[], stops: string[]) => {
    const f = new StopFilter(stops);
    const out: string[] = [];
    for (const p of parts) {
      const { text, stopped } = f.push(p);
      out.push(text);
      if (stopped) return { out, stopped: true };
    }
    return { out: [...out, f.flush()], stopped: false };
  };
  test("finds a stop string that spans pieces and holds its beginning back", () => {
    expect(run(["one <", "|en", "d|> two"], ["<|end|>"])).toEqual({ out: ["one ", "", ""], stopped: true });
  });
  test("lets go what turned out not to be one", () => {
    expect(run(["a <", "b", "<|e"], ["<|end|>"])).toEqual({ out: ["a ", "<b", "", "<|e"], stopped: false });
  });
  test("stops before the one of several that is complete first", () => {
    expect(run(["abcdef"], ["ef", "cd", "de"])).toEqual({ out: ["ab"], stopped: true });
    expect(run(["bac"], ["bac", "a"])).toEqual({ out: ["b"], stopped: true });
  });
  test("sees a stop string behind a false start of itself", () => {
    expect(run([..."aaab"], ["aab"])).toEqual({ out: ["", "", "a", ""], stopped: true });
  });
  test("gives the same as reading letter by letter, for random cuts", () => {
    const r = new Random(11);
    for (let round = 0; round < 300; round++) {
      const text = Array.from({ length: 12 }, () => "abc"[r.below(3)]).join("");
      const stops = Array.from(
        { length: 1 + r.below(2) },
        () => Array.from({ length: 1 + r.below(3) }, () => "abc"[r.below(3)]).join(""),
      );
      const parts: string[] = [];
      for (let i = 0; i < text.length;) parts.push(text.slice(i, i += 1 + r.below(4)));
      let at = text.length;
      for (let end = 1; end <= text.length && at === text.length; end++) {
        for (const s of stops) if (text.slice(0, end).endsWith(s)) at = Math.min(at, end - s.length);
      }
      const got = run(parts, stops);
      expect(got.out.join("")).toBe(text.slice(0, at));
      expect(got.stopped).toBe(at < text.length);
    }
  });
});

describe("AnswerText", () => {
  const write = (text: string, stops: string[]) => {
    const a = new AnswerText(bytes, [], stops);
    const out = [];
    for (const id of encode(text)) {
      const w = a.push(id, { id, logprob: -id, top: [] });
      out.push(w);
      if (w.stopped) return out;
    }
    return [...out, a.finish()];
  };
  test("hands every token out once, in order, with its log-probability", () => {
    const out = write(TEXT, ["never"]);
    expect(out.flatMap((w) => w.ids)).toEqual(encode(TEXT));
    expect(out.flatMap((w) => w.logprobs.map((l) => l.logprob))).toEqual(encode(TEXT).map((b) => -b));
    expect(out.map((w) => w.text).join("")).toBe(TEXT);
  });
  test("hands out no token of a stop string", () => {
    const out = write("yes€ STOP no", [" STOP"]);
    expect(out.map((w) => w.text).join("")).toBe("yes€");
    expect(out.flatMap((w) => w.ids)).toEqual(encode("yes€"));
  });
  test("shows a half stop string and a half character at the end", () => {
    const a = new AnswerText(bytes, [], ["STOP"]);
    const out = [...encode("ok ST"), 0xe2].map((id) => a.push(id, null));
    const last = a.finish();
    expect(out.map((w) => w.text).join("")).toBe("ok ");
    expect(last.text).toBe("ST\ufffd");
    expect([...out.flatMap((w) => w.ids), ...last.ids]).toEqual([...encode("ok ST"), 0xe2]);
  });
});
