/** The engine in a worker on a real model: transformers' greedy answers, aborts, refusals, and a thread that stays free. */
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { ConfigError, MemoryError } from "../../src/core/errors.ts";
import { ContextLengthError, QueueFullError } from "../../src/infer/errors.ts";
import { PLAIN } from "../../src/infer/sample.ts";
import type { Engine, GenerateRequest, Piece } from "../../src/infer/types.ts";
import { startEngine } from "../../src/infer/worker.ts";
import { readGolden, REAL, SHARED } from "./golden.ts";

const MODEL = join(SHARED, "models/SmolLM2-135M-Instruct.Q4_1.gguf");
const PROGRAM = new URL("../../engine_worker.ts", import.meta.url);
const backend = { backend: "wasm", threads: 2 };

const all = async (pieces: AsyncIterable<Piece>) => {
  const list: Piece[] = [];
  for await (const p of pieces) list.push(p);
  return { text: list.map((p) => p.text).join(""), ids: list.flatMap((p) => p.ids), last: list[list.length - 1] };
};

describe.skipIf(!existsSync(MODEL))("a worker engine with SmolLM2 (needs ../shared/models)", () => {
  let engine: Engine;
  const notes: string[] = [];
  beforeAll(async () => {
    const options = { modelPath: MODEL, contextLength: 256, slots: 2, waiting: 1, backend };
    engine = await startEngine(PROGRAM, options, { note: (s) => void notes.push(s) });
  });
  afterAll(() => engine?.close());

  const request = (ids: Int32Array, o: Partial<GenerateRequest> = {}): GenerateRequest => ({
    ids,
    maxTokens: 24,
    stop: [],
    sample: { ...PLAIN, temperature: 0 },
    logprobs: null,
    ...o,
  });

  test("renders prompts and answers them in company as transformers does alone", async () => {
    const golden = readGolden(REAL), { prompts } = JSON.parse(readFileSync(join(REAL, "case.json"), "utf8"));
    const content = Object.keys(prompts);
    const answers = await Promise.all([0, 3].map(async (i) => {
      const ids = engine.prompt([{ role: "user", content: content[i] }]);
      expect([...ids]).toEqual([...golden.ints(`prompt${i}.ids`)]);
      const margin = golden.floats(`prompt${i}.base.margin`).findIndex((m) => m < 0.01);
      const want = [...golden.ints(`prompt${i}.base.greedy`)].slice(0, margin < 0 ? 24 : Math.min(24, margin));
      const { ids: got, last } = await all(engine.generate(request(ids)));
      // transformers goes on after EOS; here the answer is over, and EOS is not part of it.
      const end = want.findIndex((id) => engine.tokenizer.eos.includes(id));
      expect(got.slice(0, want.length)).toEqual(end < 0 ? want : want.slice(0, end));
      expect(last.finish).toBe(end < 0 ? "length" : "stop");
      return want.length;
    }));
    expect(Math.min(...answers)).toBeGreaterThan(5);
    expect(notes.some((n) => n.startsWith("Backend wasm"))).toBe(true);
  });
  test("leaves this thread free while it computes, and stops within a few tokens of an abort", async () => {
    const abort = new AbortController();
    let turns = 0, last: Piece | null = null;
    const timer = setInterval(() => turns++, 1);
    const ids = engine.prompt([{ role: "user", content: "Tell me a long story about the sea." }]);
    for await (const p of engine.generate(request(ids, { maxTokens: 200, signal: abort.signal }))) {
      last = p;
      if (turns > 20) abort.abort();
    }
    clearInterval(timer);
    expect(turns).toBeGreaterThan(20);
    expect(last!.finish).toBe("aborted");
    expect(last!.usage!.completionTokens).toBeLessThan(150);
    expect(engine.stats()).toEqual({ running: 0, waiting: 0, limit: 3 });
  });
  test("refuses in this thread what the queue would refuse", async () => {
    const ids = Int32Array.of(1, 2, 3), three = [0, 1, 2].map(() => engine.generate(request(ids, { maxTokens: 1 })));
    expect(engine.stats()).toEqual({ running: 2, waiting: 1, limit: 3 });
    expect(() => engine.generate(request(ids))).toThrow(QueueFullError);
    await Promise.all(three.map(all));
    expect(() => engine.generate(request(new Int32Array(256)))).toThrow(ContextLengthError);
    expect((await all(engine.generate(request(ids, { maxTokens: 1 })))).last.usage!.completionTokens).toBe(1);
  });
  test("tells what fails while loading, in its own class", async () => {
    await expect(startEngine(PROGRAM, { modelPath: "/nowhere", backend })).rejects.toThrow(ConfigError);
    const huge = { modelPath: MODEL, contextLength: 8192, slots: 200, backend };
    await expect(startEngine(PROGRAM, huge)).rejects.toThrow(MemoryError);
  });
  test("takes nothing once it is closed", async () => {
    const other = await startEngine(PROGRAM, { modelPath: MODEL, contextLength: 64, slots: 1, backend });
    const running = all(other.generate(request(Int32Array.of(5, 6), { maxTokens: 60, ignoreEos: true })));
    await other.close();
    expect((await running).last.finish).toBe("aborted");
    expect(() => other.generate(request(Int32Array.of(1)))).toThrow("closed");
  });
});
