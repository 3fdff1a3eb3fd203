/** OpenAI's own client against a listening server, on whichever runtime this suite runs; the address is this machine's. */
import { existsSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { connect } from "node:net";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createApp, serve, type Serving } from "../../server/app.ts";
import { startEngine } from "../../src/infer/worker.ts";
import type { Engine } from "../../src/infer/types.ts";
import { type Json, type Site, site } from "./app.ts";

const CLIENTS = fileURLToPath(new URL("../clients/", import.meta.url));
const MODEL = fileURLToPath(new URL("../../../shared/models/SmolLM2-135M-Instruct.Q4_1.gguf", import.meta.url));
/** What transformers answered. */
const CASE = fileURLToPath(new URL("../../../shared/golden-real/case.json", import.meta.url));
const installed = existsSync(join(CLIENTS, "node_modules/openai"));

/** The client, retries off, so that each failure is seen. */
async function clientOf(url: string, o: object = {}): Promise<Json> {
  const path = createRequire(join(CLIENTS, "package.json")).resolve("openai");
  const { default: OpenAI } = await import(pathToFileURL(path).href);
  return new OpenAI({ baseURL: `${url}/v1`, apiKey: "sesame", maxRetries: 0, ...o });
}

describe.skipIf(!installed)("the openai client (needs npm ci in tests/clients)", () => {
  let server: Serving, client: Json, one: Site;
  const call = '<tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call>';
  const script = (p: string) => p.includes("long") ? "x".repeat(400) : p.includes("sum") ? call : "Naïve 日本 👩‍👧!";
  beforeAll(async () => {
    one = site(script, { app: { apiKeys: ["sesame"] }, tools: true, contextLength: 1024 });
    server = await serve(one.app, { port: 0 });
    client = await clientOf(server.url);
  });
  afterAll(async () => {
    await server.close();
    await one.engine.close();
  });
  const ask = (content: string, o: object = {}) => ({
    model: "org/scripted",
    temperature: 0,
    messages: [{ role: "user", content }],
    ...o,
  });

  test("listens on this machine only, at a free port", () => {
    expect(server.url).toBe(`http://127.0.0.1:${server.port}`);
    expect(server.port).toBeGreaterThan(0);
  });
  test("gets a whole answer", async () => {
    const answer = await client.chat.completions.create(ask("hi"));
    expect(answer.choices[0].message.content).toBe("Naïve 日本 👩‍👧!");
    expect(answer.usage.total_tokens).toBe(answer.usage.prompt_tokens + answer.usage.completion_tokens);
  });
  test("gets a stream with usage", async () => {
    const stream = await client.chat.completions.create(
      ask("hi", { stream: true, stream_options: { include_usage: true } }),
    );
    let text = "", usage = null, finish = null;
    for await (const chunk of stream) {
      text += chunk.choices[0]?.delta?.content ?? "";
      finish = chunk.choices[0]?.finish_reason ?? finish;
      usage = chunk.usage ?? usage;
    }
    expect([text, finish]).toEqual(["Naïve 日本 👩‍👧!", "stop"]);
    expect((usage as Json).completion_tokens).toBe(new TextEncoder().encode(text).length + 1);
  });
  test("assembles the same answer from its own stream helper, calls of functions included", async () => {
    const plain = await client.chat.completions.stream(ask("hi")).finalChatCompletion();
    expect(plain.choices[0].message.content).toBe("Naïve 日本 👩‍👧!");
    const tools = [{ type: "function", function: { name: "add", parameters: { type: "object", properties: {} } } }];
    const called = await client.chat.completions.stream(ask("sum", { tools })).finalChatCompletion();
    expect(called.choices[0].finish_reason).toBe("tool_calls");
    expect(called.choices[0].message.tool_calls[0].function).toMatchObject({ name: "add", arguments: '{"a":1}' });
  });
  test("gets completions and models", async () => {
    const { choices } = await client.completions.create({
      model: "org/scripted",
      prompt: "q\x1e",
      temperature: 0,
      max_tokens: 6,
    });
    expect(choices[0].text).toBe("Naïve");
    expect((await client.models.list()).data.map((m: Json) => m.id)).toEqual(["org/scripted"]);
    expect((await client.models.retrieve("org/scripted")).owned_by).toBe("unsloth");
  });
  test("gets a response, whole and as a stream that its own helper checks event by event", async () => {
    const ask = { model: "org/scripted", input: "hi", temperature: 0 };
    expect((await client.responses.create(ask)).output_text).toBe("Naïve 日本 👩‍👧!");
    const plain = await client.responses.stream(ask).finalResponse();
    expect([plain.output_text, plain.status]).toEqual(["Naïve 日本 👩‍👧!", "completed"]);
    const tools = [{ type: "function", name: "add", parameters: { type: "object", properties: {} }, strict: false }];
    const called = await client.responses.stream({ ...ask, input: "sum", tools }).finalResponse();
    expect(called.output).toMatchObject([{
      type: "function_call",
      name: "add",
      arguments: '{"a":1}',
      status: "completed",
    }]);
  });
  test("throws its own errors, with our sentence and the field at fault", async () => {
    const failure = async (p: Promise<unknown>): Promise<Json> => await p.then(() => null, (e) => e);
    const bad = await failure(client.chat.completions.create(ask("hi", { temperature: -1 })));
    expect([bad.constructor.name, bad.status, bad.param, bad.type]).toEqual([
      "BadRequestError",
      400,
      "temperature",
      "invalid_request_error",
    ]);
    expect(bad.message).toContain("Cannot take 'temperature': it must be a number, at least 0, not -1");
    const missing = await failure(client.chat.completions.create(ask("hi", { model: "other" })));
    expect(missing.constructor.name).toBe("NotFoundError");
    const stranger = await clientOf(server.url, { apiKey: "wrong" });
    expect((await failure(stranger.models.list())).constructor.name).toBe("AuthenticationError");
  });
  /** Asks for a long answer, lets `leave` go away in its midst, and sees the work end. */
  async function leaves(start: () => Promise<() => unknown>): Promise<void> {
    one.runner.pause = () => new Promise((r) => setTimeout(r, 5));
    const before = one.runner.steps.length, leave = await start();
    await expect.poll(() => one.runner.steps.length, { timeout: 10_000 }).toBeGreaterThan(before + 2);
    leave();
    await expect.poll(() => one.engine.stats().running, { timeout: 10_000 }).toBe(0);
    expect(one.runner.steps.length).toBeLessThan(before + 400);
    one.runner.pause = () => {};
  }
  test("stops the work when it leaves a stream", async () => {
    await leaves(async () => {
      const stream = await client.chat.completions.create(ask("long", { stream: true }));
      return () => stream.controller.abort();
    });
  });
  // On Deno the openai package's own abort of a whole answer closes its connection only later, so here it is fetch's.
  test("an aborted fetch, and a connection that is cut, stop the work of a whole answer and of a stream", async () => {
    const headers = { "content-type": "application/json", authorization: "Bearer sesame" };
    await leaves(() => {
      const abort = new AbortController(), body = JSON.stringify(ask("long"));
      const init = { method: "POST", headers, body, signal: abort.signal };
      fetch(`${server.url}/v1/chat/completions`, init).catch(() => {});
      return Promise.resolve(() => abort.abort());
    });
    for (const stream of [false, true]) {
      await leaves(() => {
        const body = JSON.stringify(ask("long", { stream })), socket = connect(server.port, "127.0.0.1");
        const lines = Object.entries({ ...headers, host: "x", "content-length": body.length });
        socket.write(
          `POST /v1/chat/completions HTTP/1.1\r\n${lines.map(([k, v]) => `${k}: ${v}\r\n`).join("")}\r\n${body}`,
        );
        return Promise.resolve(() => socket.destroy());
      });
    }
  });
});

describe.skipIf(!installed || !existsSync(MODEL))(
  "the openai client with SmolLM2 in a worker (needs tests/clients and ../shared/models)",
  () => {
    let server: Serving, client: Json, engine: Engine;
    beforeAll(async () => {
      engine = await startEngine(new URL("../../engine_worker.ts", import.meta.url), {
        modelPath: MODEL,
        contextLength: 256,
        slots: 2,
        backend: { backend: "wasm", threads: 2 },
      });
      server = await serve(createApp(engine), { port: 0 });
      client = await clientOf(server.url);
    });
    afterAll(async () => {
      await server?.close();
      await engine?.close();
    });

    test("two questions at once are answered as each alone, while /health answers", async () => {
      const ask = (content: string, o: object = {}) =>
        client.chat.completions.create({
          model: engine.model,
          messages: [{ role: "user", content }],
          temperature: 0,
          max_tokens: 16,
          ...o,
        });
      const both = Promise.all([ask("What is the capital of France?"), ask("Give three tips for staying healthy.")]);
      expect((await fetch(`${server.url}/health`)).status).toBe(200);
      const [france, tips] = (await both).map((a: Json) => a.choices[0].message.content);
      expect(france).toBe("The capital of France is Paris.");
      const { prompts } = JSON.parse(readFileSync(CASE, "utf8")),
        { base } = prompts["Give three tips for staying healthy."];
      expect(base.startsWith(tips)).toBe(true);
      expect(tips.length).toBeGreaterThan(30);
      expect((await ask("What is the capital of France?")).choices[0].message.content).toBe(france);
      let streamed = "";
      for await (const c of await ask("Give three tips for staying healthy.", { stream: true })) {
        streamed += c.choices[0]?.delta?.content ?? "";
      }
      expect(streamed).toBe(tips);
    });
    test("the same seed gives the same words", async () => {
      const ask = async (seed: number) =>
        (await client.chat.completions.create({
          model: engine.model,
          messages: [{ role: "user", content: "Invent a name." }],
          temperature: 1.2,
          top_p: 0.9,
          seed,
          max_tokens: 12,
        })).choices[0].message.content;
      const [a, b, c] = [await ask(1), await ask(1), await ask(2)];
      expect(a).toBe(b);
      expect(c).not.toBe(a);
    });
  },
);
