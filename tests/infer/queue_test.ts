/** The queue over a scripted model: batching, caching, stopping, aborting, failing, refusing. */
import { describe, expect, test } from "vitest";
import { SlotTable } from "../../src/infer/cache.ts";
import { ContextLengthError, QueueFullError } from "../../src/infer/errors.ts";
import { RequestQueue } from "../../src/infer/queue.ts";
import { PLAIN } from "../../src/infer/sample.ts";
import type { GenerateRequest, Piece } from "../../src/infer/types.ts";
import { ask, byteTokenizer, EOS, type Scripted, scriptedRunner } from "./scripted.ts";

const request = (prompt: string, o: Partial<GenerateRequest> = {}): GenerateRequest => ({
  ids: ask(prompt),
  maxTokens: 400,
  stop: [],
  sample: { ...PLAIN, temperature: 0 },
  logprobs: null,
  ...o,
});
const queueOver = (runner: Scripted, limit = 8) =>
  new RequestQueue(runner, { tokenizer: byteTokenizer(), eos: [EOS], limit });
const all = async (pieces: AsyncIterable<Piece>) => {
  const list: Piece[] = [];
  for await (const p of pieces) list.push(p);
  return { list, text: list.map((p) => p.text).join(""), last: list[list.length - 1] };
};
const answers = (prompt: string) => `<${prompt}> naïve 日本 👩‍👧`;

describe("RequestQueue", () => {
  test("answers with whole characters, counts tokens, and ends at EOS", async () => {
    const { list, text, last } = await all(queueOver(scriptedRunner(answers)).submit(request("hi")));
    expect(text).toBe(answers("hi"));
    for (const p of list) expect(p.text).not.toContain("\ufffd");
    expect(last.finish).toBe("stop");
    const bytes = new TextEncoder().encode(text);
    expect(last.usage).toEqual({ promptTokens: 3, completionTokens: bytes.length + 1, cachedTokens: 0 });
    expect(list.flatMap((p) => p.ids)).toEqual([...bytes]);
    expect(list.slice(0, -1).every((p) => p.finish === undefined && p.usage === undefined)).toBe(true);
  });
  test("answers several requests as it would each alone, in shared steps", async () => {
    const prompts = ["a", "bb", "a longer prompt than a step takes at once, so that it is read in several", "d", "e"];
    const runner = scriptedRunner(answers, { slots: 3, stepTokens: 16 });
    const queue = queueOver(runner);
    const got = await Promise.all(prompts.map((p) => all(queue.submit(request(p)))));
    expect(got.map((g) => g.text)).toEqual(prompts.map(answers));
    expect(runner.steps.some((s) => s.rows.length === 3)).toBe(true);
    // A prompt being read does not stop the others' answers.
    expect(runner.steps.some((s) => s.rows.length === 2 && s.ids.length === 16)).toBe(true);
    const total = got.reduce((n, g) => n + g.last.usage!.promptTokens + g.last.usage!.completionTokens - 1, 0);
    expect(runner.steps.reduce((n, s) => n + s.ids.length, 0)).toBe(total);
  });
  test("a sequence that grows past the rope's turn is read again, beside short ones, and shares no rows with them", async () => {
    const runner = scriptedRunner(answers, { slots: 3, stepTokens: 16, ropeTurn: 24 }), queue = queueOver(runner);
    const prompts = ["a", "grows while the others run", "a", "longer than the turn from its start, surely", "a?"];
    const got = await Promise.all(prompts.map((p) => all(queue.submit(request(p)))));
    expect(got.map((g) => g.text)).toEqual(prompts.map(answers));
    // Each answer of "a" begins short and ends long: its first tokens are computed twice.
    const firsts = runner.steps.flatMap((s) => [...s.pos].filter((p) => p === 0));
    expect(firsts.length).toBeGreaterThanOrEqual(prompts.length + 3);
    const again = await all(queue.submit(request("a", { maxTokens: 3 })));
    expect(again.text).toBe(answers("a").slice(0, 3));
    const ends = await all(queue.submit(request("longer than the turn from its start, surely")));
    expect(ends.last.usage!.cachedTokens).toBeGreaterThan(24);
  });
  test("computes only what the cache does not hold already", async () => {
    const runner = scriptedRunner(answers, { slots: 1 });
    const queue = queueOver(runner);
    await all(queue.submit(request("shared start, first")));
    const before = runner.steps.length;
    const { text, last } = await all(queue.submit(request("shared start, second")));
    expect(text).toBe(answers("shared start, second"));
    expect(last.usage!.cachedTokens).toBe("shared start, ".length);
    expect(runner.steps[before].ids.length).toBe("second".length + 1);
    const again = await all(queue.submit(request("shared start, second")));
    expect([again.text, again.last.usage!.cachedTokens]).toEqual([text, "shared start, second".length]);
  });
  test("reads a beginning that several requests share once, and copies it", async () => {
    const runner = scriptedRunner(answers, { slots: 3, stepTokens: 20 });
    const queue = queueOver(runner);
    const start = "the same long instructions for every one of these requests: ";
    const got = await Promise.all(["a", "b", "c"].map((p) => all(queue.submit(request(start + p)))));
    expect(got.map((g) => g.text)).toEqual(["a", "b", "c"].map((p) => answers(start + p)));
    expect(got.map((g) => g.last.usage!.cachedTokens)).toEqual([0, start.length, start.length]);
    expect(runner.steps.some((s) => s.rows.length === 3)).toBe(true);
    const read = runner.steps.reduce((n, s) => n + s.ids.length, 0);
    const answered = got.reduce((n, g) => n + g.last.usage!.completionTokens - 1, 0);
    expect(read).toBe(start.length + 3 * 2 + answered);
  });
  test("draws the same answer for the same seed whoever runs beside it", async () => {
    const sampled = (seed: number) => request("q", { sample: { ...PLAIN, seed }, ignoreEos: true, maxTokens: 30 });
    const alone = await all(queueOver(scriptedRunner(answers)).submit(sampled(5)));
    const queue = queueOver(scriptedRunner(answers));
    const [other, beside] = await Promise.all([all(queue.submit(sampled(6))), all(queue.submit(sampled(5)))]);
    expect(beside.list.flatMap((p) => p.ids)).toEqual(alone.list.flatMap((p) => p.ids));
    expect(other.list.flatMap((p) => p.ids)).not.toEqual(alone.list.flatMap((p) => p.ids));
  });
  test("stops at a stop string, a stop id, the token limit and the context's end", async () => {
    const queue = queueOver(scriptedRunner(() => "one two three", { contextLength: 10 }));
    const finish = async (o: Partial<GenerateRequest>) => {
      const { text, last } = await all(queue.submit(request("q", o)));
      return [text, last.finish, last.usage!.completionTokens];
    };
    expect(await finish({ stop: ["two"] })).toEqual(["one ", "stop", 7]);
    expect(await finish({ stopIds: [0x20] })).toEqual(["one", "stop", 4]);
    expect(await finish({ maxTokens: 5 })).toEqual(["one t", "length", 5]);
    expect(await finish({ maxTokens: 5, stop: [" to"] })).toEqual(["one t", "length", 5]);
    expect(await finish({})).toEqual(["one two ", "length", 8]);
    expect(await finish({ maxTokens: 0 })).toEqual(["", "length", 0]);
  });
  test("reports the log-probability of every token, from the raw logits", async () => {
    const queue = queueOver(scriptedRunner(() => "€a"));
    const sample = { ...PLAIN, temperature: 0, logitBias: new Map([[7, 1]]) };
    const { list } = await all(queue.submit(request("q", { logprobs: 2, sample })));
    const lp = list.flatMap((p) => p.logprobs!);
    expect(lp.map((l) => l.id)).toEqual([...new TextEncoder().encode("€a")]);
    const z = Math.log(Math.exp(4) + Math.exp(2) + 255);
    for (const l of lp) {
      expect(l.logprob).toBeCloseTo(4 - z, 5);
      expect(l.top.map((t) => t.logprob)).toEqual([l.logprob, expect.closeTo(2 - z, 5)]);
    }
  });
  test("an aborted request ends at once and its work stops", async () => {
    const runner = scriptedRunner(() => "x".repeat(300));
    const queue = queueOver(runner);
    const abort = new AbortController();
    const pieces = queue.submit(request("q", { signal: abort.signal }))[Symbol.asyncIterator]();
    await pieces.next();
    abort.abort();
    const rest = await all({ [Symbol.asyncIterator]: () => pieces });
    expect(rest.last.finish).toBe("aborted");
    const steps = runner.steps.length;
    expect(steps).toBeLessThan(10);
    expect((await all(queue.submit(request("next", { maxTokens: 2 })))).text).toBe("xx");
    expect(runner.steps.length).toBe(steps + 2);
    expect(queue.stats()).toEqual({ running: 0, waiting: 0, limit: 8 });
  });
  test("leaving the loop stops the work as an abort does", async () => {
    const runner = scriptedRunner(() => "x".repeat(300));
    const queue = queueOver(runner);
    for await (const _ of queue.submit(request("q"))) break;
    await all(queue.submit(request("next", { maxTokens: 1 })));
    expect(runner.steps.length).toBeLessThan(10);
    expect(queue.stats().running).toBe(0);
  });
  test("a waiting or already aborted request is never computed", async () => {
    const runner = scriptedRunner(answers, { slots: 1 });
    const queue = queueOver(runner);
    const abort = new AbortController();
    const first = all(queue.submit(request("a")));
    const waiting = all(queue.submit(request("b", { signal: abort.signal })));
    abort.abort();
    const late = all(queue.submit(request("c", { signal: abort.signal })));
    expect((await waiting).last.finish).toBe("aborted");
    expect((await late).last.usage!.completionTokens).toBe(0);
    expect((await first).text).toBe(answers("a"));
    expect(runner.steps.flatMap((s) => [...s.ids])).not.toContain("b".charCodeAt(0));
  });
  test("refuses over its limit, an overlong prompt and an empty one, at once", async () => {
    const queue = queueOver(scriptedRunner(answers, { contextLength: 20 }), 2);
    const running = [queue.submit(request("a")), queue.submit(request("b"))];
    expect(() => queue.submit(request("c"))).toThrow(QueueFullError);
    expect(() => queue.submit(request("x".repeat(20)))).toThrow(ContextLengthError);
    expect(() => queue.submit(request("", { ids: new Int32Array() }))).toThrow("empty prompt");
    await Promise.all(running.map(all));
    expect((await all(queue.submit(request("c")))).last.finish).toBe("length");
  });
  test("a failing step fails the requests in it and no later one, and its cache is not trusted", async () => {
    const runner = scriptedRunner(answers, { slots: 1 });
    runner.failAt = 2;
    const queue = queueOver(runner);
    await expect(all(queue.submit(request("same")))).rejects.toThrow("the device is gone");
    const { text, last } = await all(queue.submit(request("same")));
    expect([text, last.usage!.cachedTokens]).toEqual([answers("same"), 0]);
  });
  test("logits that are not finite fail their own request only", async () => {
    const runner = scriptedRunner(answers);
    const forward = runner.forward;
    runner.forward = async (step) => {
      const logits = await forward(step);
      step.rows.forEach((n, r) => step.seq[n] === 0 && logits.fill(NaN, r * 257, r * 257 + 257));
      return logits;
    };
    const queue = queueOver(runner);
    const bad = all(queue.submit(request("a"))), good = all(queue.submit(request("b")));
    await expect(bad).rejects.toThrow("not finite");
    expect((await good).text).toBe(answers("b"));
  });
  test("close() aborts what runs, closes the runner, and takes nothing more", async () => {
    const runner = scriptedRunner(() => "x".repeat(300), { slots: 1 });
    const queue = queueOver(runner);
    const got = Promise.all([all(queue.submit(request("a"))), all(queue.submit(request("b")))]);
    await queue.close();
    expect((await got).map((g) => g.last.finish)).toEqual(["aborted", "aborted"]);
    expect(runner.closed).toBe(true);
    expect(() => queue.submit(request("c"))).toThrow("closed");
  });
});

describe("SlotTable", () => {
  const ids = (...n: number[]) => Int32Array.from(n);
  test("finds the slot with the longest shared beginning, of equals the one unused longest", () => {
    const t = new SlotTable(2);
    t.lend(0);
    t.lend(1);
    expect(t.find(ids(4))).toBeNull();
    t.release(1, ids(3, 4, 5));
    t.release(0, ids(1, 2, 3));
    expect(t.find(ids(1, 2, 9))).toEqual({ slot: 0, cached: 2 });
    t.release(0, ids(1, 2, 9));
    expect(t.find(ids(7))).toEqual({ slot: 1, cached: 0 });
    t.lend(1);
    expect([t.lent, t.find(ids(7))]).toEqual([1, { slot: 0, cached: 0 }]);
  });
  test("leaves the last token of a prompt it knows wholly", () => {
    const t = new SlotTable(1);
    t.release(0, ids(1, 2, 3, 4));
    expect(t.find(ids(1, 2, 3))).toEqual({ slot: 0, cached: 2 });
  });
});
