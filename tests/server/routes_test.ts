/** The endpoints beside the chat's. */
import { describe, expect, test } from "vitest";
import { events, type Json, site } from "./app.ts";

describe("/v1/completions", () => {
  // After the byte 0x1e the scripted model answers.
  const prompt = "say\x1e";
  const ask = async (o: object, script: (p: string) => string = (p) => `<${p}>`) =>
    (await (await site(script).post("/v1/completions", { prompt, temperature: 0, ...o })).json()) as Json;
  test("continues a text, 16 tokens unless told", async () => {
    const json = await ask({}, () => "0123456789abcdefghij");
    expect(json).toMatchObject({ object: "text_completion", model: "org/scripted", usage: { completion_tokens: 16 } });
    expect(json.id).toMatch(/^cmpl-/);
    expect(json.choices).toEqual([{ index: 0, text: "0123456789abcdef", logprobs: null, finish_reason: "length" }]);
  });
  test("takes tokens, several prompts, n and echo", async () => {
    expect((await ask({ prompt: [115, 0x1e] })).choices[0].text).toBe("<s>");
    expect((await ask({ prompt: [[115, 0x1e], [116, 0x1e]] })).choices.map((c: Json) => c.text)).toEqual([
      "<s>",
      "<t>",
    ]);
    const json = await ask({ prompt: ["a\x1e", "bb\x1e"], n: 2, echo: true });
    expect(json.choices.map((c: Json) => c.text)).toEqual(["a\x1e<a>", "a\x1e<a>", "bb\x1e<bb>", "bb\x1e<bb>"]);
    expect(json.usage.prompt_tokens).toBe(5);
  });
  test("gives log-probabilities with offsets", async () => {
    const { logprobs } = (await ask({ logprobs: 2 }, () => "abc")).choices[0];
    expect(logprobs.tokens).toEqual(["a", "b", "c"]);
    expect(logprobs.text_offset).toEqual([0, 1, 2]);
    expect(Object.keys(logprobs.top_logprobs[0])).toEqual(["a", "b"]);
    expect(logprobs.top_logprobs[1].b).toBe(logprobs.token_logprobs[1]);
  });
  test("streams text and usage, then [DONE]", async () => {
    const res = await site(() => "日本").post("/v1/completions", {
      prompt,
      temperature: 0,
      stream: true,
      stream_options: { include_usage: true },
    });
    const list = await events(res);
    expect(list.pop()).toBe("[DONE]");
    const chunks: Json[] = list.map((e) => JSON.parse(e));
    expect(chunks.pop()).toMatchObject({ choices: [], usage: { prompt_tokens: 4, completion_tokens: 7 } });
    expect(chunks.map((c) => c.choices[0].text)).toEqual(["日", "本", ""]);
    expect(chunks.map((c) => c.choices[0].finish_reason)).toEqual([null, null, "stop"]);
  });
  test.each([
    ["prompt", {}],
    ["prompt", { prompt: [] }],
    ["prompt", { prompt: [9999] }],
    ["prompt[1]", { prompt: ["a", 5] }],
    ["suffix", { prompt, suffix: "end" }],
    ["echo", { prompt, echo: true, logprobs: 1 }],
    ["messages", { prompt, messages: [] }],
  ])("names %s when it refuses %j", async (param, body) => {
    const res = await site(() => "").post("/v1/completions", body);
    expect([res.status, ((await res.json()) as Json).error.param]).toEqual([400, param]);
  });
});

test("/v1/models lists the one model and finds it by its id, slashes included", async () => {
  const { app } = site(() => "ok");
  const { data, object }: Json = await (await app.request("/v1/models")).json();
  expect(object).toBe("list");
  expect(data).toEqual([
    expect.objectContaining({ id: "org/scripted", object: "model", owned_by: "unsloth", max_model_len: 512 }),
  ]);
  expect(await (await app.request("/v1/models/org/scripted")).json()).toEqual(data[0]);
  expect((await app.request("/v1/models/other")).status).toBe(404);
});

test("/health tells what runs", async () => {
  const res = await site(() => "ok").app.request("/health");
  expect(await res.json()).toEqual({ status: "ok", running: 0, waiting: 0, limit: 10 });
});

test("/tokenize and /detokenize are each other's reverse, pieces and chats included", async () => {
  const { post } = site(() => "ok");
  const json = async (path: string, body: object) => (await (await post(path, body)).json()) as Json;
  const { tokens, count } = await json("/tokenize", { content: "ï!" });
  expect([tokens, count]).toEqual([[0xc3, 0xaf, 0x21], 3]);
  expect(await json("/detokenize", { tokens })).toEqual({ content: "ï!" });
  expect((await json("/tokenize", { content: "!", with_pieces: true })).tokens).toEqual([{ id: 33, piece: "<0x21>" }]);
  const chat = await json("/tokenize", { messages: [{ role: "user", content: "hi" }] });
  expect((await json("/detokenize", { tokens: chat.tokens })).content).toBe("user:hi\x1e");
  expect((await post("/tokenize", {})).status).toBe(400);
  expect((await post("/detokenize", { tokens: [1e6] })).status).toBe(400);
});

test("/metrics counts what was answered, under llama-server's names", async () => {
  const { app, post } = site(() => "four");
  const ask = { messages: [{ role: "user", content: "hi" }], temperature: 0 };
  await post("/v1/chat/completions", ask);
  await post("/v1/chat/completions", ask);
  const res = await app.request("/metrics");
  expect(res.headers.get("content-type")).toBe("text/plain; version=0.0.4; charset=utf-8");
  const text = await res.text();
  const value = (name: string) => Number(new RegExp(`^llamacpp:${name} (.+)$`, "m").exec(text)?.[1]);
  // Prompt of 8 tokens twice, the second time all but the last from the cache; answers of 4 bytes and EOS.
  expect(["prompt_tokens_total", "prompt_tokens_cached_total", "tokens_predicted_total", "n_tokens_max"].map(value))
    .toEqual([9, 7, 10, 13]);
  expect(value("requests_processing")).toBe(0);
  for (const line of text.trim().split("\n")) {
    expect(line).toMatch(/^(# (HELP|TYPE) llamacpp:\w+ .+|llamacpp:\w+ [\d.e+-]+)$/);
  }
});
