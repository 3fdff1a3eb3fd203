/** What the server turns away: by status, by type, naming the field. */
import { describe, expect, test } from "vitest";
import { createApp } from "../../server/app.ts";
import type { Engine } from "../../src/infer/types.ts";
import { events, type Json, site } from "./app.ts";

const messages = [{ role: "user", content: "hi" }];
const { post, app } = site(() => "ok");
const refusal = async (body: unknown, path = "/v1/chat/completions") => {
  const res = await post(path, body);
  const { error }: Json = await res.json();
  expect(Object.keys(error).slice(0, 4)).toEqual(["message", "type", "param", "code"]);
  expect(error.code).toBe(res.status);
  return [res.status, error.param, error.message];
};

describe("a field", () => {
  test.each([
    ["temperature", -1],
    ["temperature", "hot"],
    ["top_p", 0],
    ["top_p", 1.5],
    ["top_k", 1.5],
    ["min_p", 2],
    ["presence_penalty", 3],
    ["frequency_penalty", "1"],
    ["repetition_penalty", 0],
    ["seed", 1.5],
    ["n", 0],
    ["n", 1000],
    ["max_tokens", -1],
    ["stop", [""]],
    ["stop", 5],
    ["stop", "\ud800"],
    ["logit_bias", { x: 1 }],
    ["logit_bias", { "100000": 1 }],
    ["stream", "yes"],
    ["top_logprobs", 3],
    ["messages", []],
    ["messages", "hi"],
    ["tools", [{ type: "retrieval" }]],
    ["tool_choice", "required"],
    ["response_format", { type: "json_object" }],
    ["response_format", { type: "json_schema", json_schema: { name: "x", schema: {} } }],
    ["reasoning_effort", "high"],
    ["best_of", 3],
    ["modalities", ["audio"]],
    ["functions", [{ name: "f" }]],
    ["temprature", 0.5],
    ["__proto__", 0.5],
    ["constructor", 0.5],
  ])("%s: %j is refused with 400 and its name", async (name, value) => {
    const json = JSON.stringify({ messages, [`@${name}`]: value }).replace("@", "");
    const [status, param, message] = await refusal(name === "messages" ? { messages: value } : json);
    expect(status).toBe(400);
    expect(param).toMatch(new RegExp(`^${name}`));
    expect(message).toContain(name);
  });
  test.each([
    [{ role: "user" }, "messages[0].content"],
    [{ role: "robot", content: "x" }, "messages[0].role"],
    [{ role: "user", content: [{ type: "image_url", image_url: {} }] }, "messages[0].content[0]"],
    [{ role: "user", content: "x", tool_calls: [] }, "messages[0].tool_calls"],
    [{ role: "user", content: "x", mood: 1 }, "messages[0].mood"],
    [
      { role: "assistant", tool_calls: [{ function: { name: "f", arguments: "{" } }] },
      "messages[0].tool_calls[0].function.arguments",
    ],
  ])("message %j is refused at %s", async (message, path) => {
    expect((await refusal({ messages: [message] })).slice(0, 2)).toEqual([400, path]);
  });
  test("that cannot change the answer is ignored, and null means absent", async () => {
    const res = await post("/v1/chat/completions", {
      messages,
      user: "me",
      store: true,
      metadata: { a: "b" },
      service_tier: "auto",
      response_format: { type: "text" },
      stop: null,
      temperature: null,
      seed: null,
      tools: null,
      unknown_thing: null,
      stream_options: { include_obfuscation: false },
    });
    expect(res.status).toBe(200);
  });
});

describe("a request", () => {
  test("without JSON, or with a list, is refused", async () => {
    expect((await refusal("{"))[0]).toBe(400);
    expect((await refusal(""))[0]).toBe(400);
    expect((await refusal([]))[0]).toBe(400);
  });
  test("for another model gets 404 and the right name", async () => {
    const [status, param, message] = await refusal({ messages, model: "gpt-9" });
    expect([status, param]).toEqual([404, "model"]);
    expect(message).toContain("org/scripted");
  });
  test("longer than the context gets 400 with both numbers", async () => {
    const one = site(() => "ok", { contextLength: 16 });
    const res = await one.post("/v1/chat/completions", { messages: [{ role: "user", content: "x".repeat(30) }] });
    const { error }: Json = await res.json();
    expect([res.status, error.type, error.n_prompt_tokens, error.n_ctx]).toEqual([
      400,
      "exceed_context_size_error",
      36,
      16,
    ]);
  });
  test("over the queue's limit gets 503 at once, and none of its choices runs", async () => {
    const one = site(() => "x".repeat(200), { slots: 1, waiting: 1 });
    const first = one.post("/v1/chat/completions", { messages, stream: true });
    expect((await first).status).toBe(200);
    const many = await one.post("/v1/chat/completions", { messages, n: 2 });
    expect([many.status, many.headers.get("retry-after"), ((await many.json()) as Json).error.type])
      .toEqual([503, "1", "unavailable_error"]);
    const { running, waiting } = one.engine.stats();
    expect(running + waiting).toBe(1);
    expect((await events(await first)).at(-1)).toBe("[DONE]");
  });
  test("larger than the limit of the body gets 413", async () => {
    const one = site(() => "ok", { app: { bodyLimit: 100 } });
    const res = await one.post("/v1/chat/completions", { messages: [{ role: "user", content: "x".repeat(200) }] });
    expect([res.status, ((await res.json()) as Json).error.type]).toEqual([413, "invalid_request_error"]);
  });
  test("to an unknown path gets 404", async () => {
    const res = await app.request("/v1/embeddings", { method: "POST", body: "{}" });
    expect([res.status, ((await res.json()) as Json).error.type]).toEqual([404, "not_found_error"]);
  });
});

describe("while the model loads", () => {
  test("requests get 503, then answers; a failed load is told", async () => {
    const loaded = Promise.withResolvers<Engine>();
    const loading = createApp(loaded.promise);
    const health = await loading.request("/health");
    expect([health.status, ((await health.json()) as Json).error.type]).toEqual([503, "unavailable_error"]);
    loaded.resolve(site(() => "ok").engine);
    await loaded.promise;
    expect((await loading.request("/health")).status).toBe(200);
    const broken = createApp(Promise.reject(new Error("Cannot read 'x.gguf': it is cut short")));
    await new Promise((r) => setTimeout(r));
    const res = await broken.request("/v1/models");
    expect([res.status, ((await res.json()) as Json).error.message]).toEqual([
      500,
      "Cannot read 'x.gguf': it is cut short",
    ]);
  });
});

describe("access", () => {
  const guarded = site(() => "ok", { app: { apiKeys: ["sesame", "second"] } });
  const status = async (path: string, headers: Record<string, string>) =>
    (await guarded.app.request(path, { headers })).status;
  test("needs one of the keys everywhere but at /health", async () => {
    expect(await status("/v1/models", {})).toBe(401);
    expect(await status("/v1/models", { authorization: "Bearer wrong" })).toBe(401);
    expect(await status("/v1/models", { authorization: "Bearer sesame" })).toBe(200);
    expect(await status("/v1/models", { "x-api-key": "second" })).toBe(200);
    expect(await status("/metrics", {})).toBe(401);
    expect(await status("/health", {})).toBe(200);
    const res = await guarded.post("/tokenize", { content: "x" });
    expect([res.status, ((await res.json()) as Json).error.type]).toEqual([401, "authentication_error"]);
  });
  test("is for pages of this machine only, unless others are named", async () => {
    const ask = (a: typeof app, origin: string) => a.request("/v1/models", { headers: { origin } });
    const local = await ask(app, "http://localhost:3000");
    expect([local.status, local.headers.get("access-control-allow-origin")]).toEqual([200, "http://localhost:3000"]);
    for (const origin of ["https://evil.example", "http://localhost.evil.example", "null"]) {
      const res = await ask(app, origin);
      expect([res.status, res.headers.get("access-control-allow-origin")]).toEqual([403, null]);
    }
    const named = site(() => "ok", { app: { cors: ["https://chat.example"] } }).app;
    expect([(await ask(named, "https://chat.example")).status, (await ask(named, "http://localhost")).status])
      .toEqual([200, 403]);
    expect((await ask(site(() => "ok", { app: { cors: "*" } }).app, "https://any.example")).status).toBe(200);
  });
  test("answers a preflight without a key", async () => {
    const res = await guarded.app.request("/v1/chat/completions", {
      method: "OPTIONS",
      headers: {
        origin: "http://localhost:3000",
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type",
      },
    });
    expect(res.status).toBe(204);
    expect(res.headers.get("access-control-allow-headers")).toBe("authorization,content-type");
  });
});
