/** /v1/chat/completions as clients rely on it: the shapes, the stream's contract, every field. */
import { describe, expect, test } from "vitest";
import { events, type Json, site } from "./app.ts";

const messages = [{ role: "user", content: "hi" }];
const answer = "Naïve 日本 👩‍👧!";
const base = { messages, temperature: 0 };
const script = () => answer;
const bytes = new TextEncoder().encode(answer).length;

describe("a whole answer", () => {
  test("has OpenAI's shape and true usage", async () => {
    const res = await site(script).post("/v1/chat/completions", { ...base, model: "org/scripted" });
    expect(res.status).toBe(200);
    const json: Json = await res.json();
    expect(json).toEqual({
      id: expect.stringMatching(/^chatcmpl-[0-9a-f]{29}$/),
      object: "chat.completion",
      created: expect.any(Number),
      model: "org/scripted",
      choices: [{
        index: 0,
        message: { role: "assistant", content: answer, refusal: null },
        logprobs: null,
        finish_reason: "stop",
      }],
      usage: {
        prompt_tokens: "user:hi".length + 1,
        completion_tokens: bytes + 1,
        total_tokens: "user:hi".length + 2 + bytes,
        prompt_tokens_details: { cached_tokens: 0 },
      },
    });
    expect(Math.abs(json.created - Date.now() / 1000)).toBeLessThan(60);
  });
  test("gives n choices, each with its own seed, the prompt counted once", async () => {
    const ask = { messages, n: 3, seed: 1, max_tokens: 12, ignore_eos: true };
    const json: Json = await (await site(script).post("/v1/chat/completions", ask)).json();
    const texts = json.choices.map((c: Json) => c.message.content);
    expect(json.choices.map((c: Json) => [c.index, c.finish_reason])).toEqual([[0, "length"], [1, "length"], [
      2,
      "length",
    ]]);
    expect(new Set(texts).size).toBe(3);
    expect([json.usage.prompt_tokens, json.usage.completion_tokens]).toEqual([8, 36]);
    const second: Json = await (await site(script).post("/v1/chat/completions", { ...ask, n: 1, seed: 2 })).json();
    expect(second.choices[0].message.content).toBe(texts[1]);
  });
  test("reports log-probabilities with the bytes of tokens that are no whole character", async () => {
    const json: Json =
      await (await site(() => "aï").post("/v1/chat/completions", { ...base, logprobs: true, top_logprobs: 2 })).json();
    const content = json.choices[0].logprobs.content;
    expect(content.map((t: Json) => [t.token, t.bytes])).toEqual([["a", [97]], ["\ufffd", [0xc3]], ["\ufffd", [0xaf]]]);
    expect(content[0].top_logprobs.map((t: Json) => t.token)).toEqual(["a", "b"]);
    expect(content[0].top_logprobs[0].logprob).toBe(content[0].logprob);
    expect(content[0].logprob - content[0].top_logprobs[1].logprob).toBeCloseTo(2, 5);
  });
  test("ends at a stop string, a token limit, and says which", async () => {
    const { post } = site(() => "one two three");
    const ask = async (o: object) => {
      const json: Json = await (await post("/v1/chat/completions", { ...base, ...o })).json();
      return [json.choices[0].message.content, json.choices[0].finish_reason];
    };
    expect(await ask({ stop: " two" })).toEqual(["one", "stop"]);
    expect(await ask({ stop: ["three", "tw"] })).toEqual(["one ", "stop"]);
    expect(await ask({ max_tokens: 3 })).toEqual(["one", "length"]);
    expect(await ask({ max_completion_tokens: 3 })).toEqual(["one", "length"]);
    expect(await ask({ stop_token_ids: [0x74] })).toEqual(["one ", "stop"]);
  });
  test("joins text parts, knows developer as system, and passes a tool's answer on", async () => {
    const seen: string[] = [];
    const { post } = site((p) => (seen.push(p), "ok"), { tools: true });
    const res = await post("/v1/chat/completions", {
      ...base,
      messages: [
        { role: "developer", content: "be brief" },
        { role: "user", content: [{ type: "text", text: "a" }, { type: "text", text: "b" }] },
        {
          role: "assistant",
          content: null,
          tool_calls: [{ id: "1", type: "function", function: { name: "f", arguments: '{"x":1}' } }],
        },
        { role: "tool", tool_call_id: "1", content: "2" },
      ],
    });
    expect(res.status).toBe(200);
    const call = '[{"id":"1","type":"function","function":{"name":"f","arguments":{"x":1}}}]';
    expect(seen[0]).toBe(`system:be brief\nuser:a\nb\nassistant:${call}\ntool:2`);
  });
});

describe("a stream", () => {
  const stream = async (o: object = {}, s = script, more = {}) =>
    await events(await site(s, more).post("/v1/chat/completions", { ...base, stream: true, ...o }));

  test("begins with the role, ends with the reason and [DONE], under one id", async () => {
    const res = await site(script).post("/v1/chat/completions", { ...base, stream: true });
    expect(res.headers.get("content-type")).toBe("text/event-stream; charset=utf-8");
    const list = await events(res);
    expect(list.pop()).toBe("[DONE]");
    const chunks: Json[] = list.map((e) => JSON.parse(e));
    expect(new Set(chunks.map((c) => `${c.id} ${c.created} ${c.model} ${c.object}`)).size).toBe(1);
    expect(chunks[0].choices).toEqual([
      { index: 0, delta: { role: "assistant", content: null }, logprobs: null, finish_reason: null },
    ]);
    const middle = chunks.slice(1, -1);
    for (const c of middle) {
      expect(Object.keys(c.choices[0].delta)).toEqual(["content"]);
      expect(c.choices[0].finish_reason).toBeNull();
      expect(c.choices[0].delta.content).not.toContain("\ufffd");
      expect(c).not.toHaveProperty("usage");
    }
    expect(middle.map((c) => c.choices[0].delta.content).join("")).toBe(answer);
    expect(middle.length).toBe([...answer].length);
    expect(chunks.at(-1).choices).toEqual([{ index: 0, delta: {}, logprobs: null, finish_reason: "stop" }]);
  });
  test("sends the usage in a chunk without choices when asked to", async () => {
    const list = await stream({ stream_options: { include_usage: true } });
    const chunks: Json[] = list.slice(0, -1).map((e) => JSON.parse(e));
    const last = chunks.pop();
    expect(last.choices).toEqual([]);
    expect(last.usage).toEqual({
      prompt_tokens: 8,
      completion_tokens: bytes + 1,
      total_tokens: bytes + 9,
      prompt_tokens_details: { cached_tokens: 0 },
    });
    for (const c of chunks) expect(c.usage).toBeNull();
    expect(list.at(-1)).toBe("[DONE]");
  });
  test("gives no part of a stop string that spans tokens", async () => {
    const chunks: Json[] = (await stream({ stop: "日本" })).slice(0, -1).map((e) => JSON.parse(e));
    expect(chunks.slice(1, -1).map((c) => c.choices[0].delta.content).join("")).toBe("Naïve ");
    expect(chunks.at(-1).choices[0].finish_reason).toBe("stop");
  });
  test("interleaves n choices, each whole", async () => {
    const chunks: Json[] = (await stream({ n: 2 })).slice(0, -1).map((e) => JSON.parse(e));
    for (const index of [0, 1]) {
      const own = chunks.filter((c) => c.choices[0].index === index).map((c) => c.choices[0]);
      expect(own[0].delta.role).toBe("assistant");
      expect(own.map((c) => c.delta.content ?? "").join("")).toBe(answer);
      expect(own.filter((c) => c.finish_reason === "stop").length).toBe(1);
    }
  });
  test("carries the log-probabilities of each chunk's tokens", async () => {
    const chunks: Json[] = (await stream({ logprobs: true })).slice(0, -1).map((e) => JSON.parse(e));
    const tokens = chunks.flatMap((c) => c.choices[0].logprobs?.content ?? []);
    expect(tokens.flatMap((t: Json) => t.bytes)).toEqual([...new TextEncoder().encode(answer)]);
  });
  test("tells of a failure in a last event", async () => {
    const one = site(script);
    one.runner.failAt = 3;
    const list = await events(await one.post("/v1/chat/completions", { ...base, stream: true }));
    expect(JSON.parse(list.at(-1)!).error).toEqual({
      message: "Cannot run matmul: the device is gone",
      type: "server_error",
      param: null,
      code: 500,
    });
    expect((await one.post("/v1/chat/completions", base)).status).toBe(200);
  });
  test("shows that it lives while a prompt is read", async () => {
    const one = site(script, { app: { pingSeconds: 0.02 } });
    one.runner.pause = () => new Promise((r) => setTimeout(r, one.runner.steps.length === 0 ? 120 : 0));
    const text = await (await one.post("/v1/chat/completions", { ...base, stream: true })).text();
    expect(text).toContain(": still working\n\n");
    expect(text).toContain("data: [DONE]\n\n");
  });
});

describe("a client that leaves", () => {
  const long = () => "x".repeat(400);
  const idle = async (one: ReturnType<typeof site>) => {
    await expect.poll(() => one.engine.stats().running, { timeout: 5000 }).toBe(0);
    return one.runner.steps.length;
  };
  test("stops the work of a stream by closing it", async () => {
    const one = site(long);
    const res = await one.post("/v1/chat/completions", { ...base, stream: true });
    const reader = res.body!.getReader();
    await reader.read();
    await reader.read();
    await reader.cancel();
    expect(await idle(one)).toBeLessThan(50);
  });
  test("stops the work of a whole answer by aborting the request, all choices at once", async () => {
    const one = site(long);
    const abort = new AbortController();
    one.runner.pause = () => one.runner.steps.length === 5 ? abort.abort() : undefined;
    const res = await one.post("/v1/chat/completions", { ...base, n: 3 }, { signal: abort.signal });
    expect(res.status).toBe(503);
    expect(await idle(one)).toBe(6);
    expect(one.engine.stats().waiting).toBe(0);
  });
});

describe("tools", () => {
  const tools = [{ type: "function", function: { name: "add", parameters: { type: "object" } } }];
  const call = '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>';
  test("numbers of a call stay what was written, by the model and by the client", async () => {
    const seen: string[] = [], args = '{"id":12345678901234567890,"x":1.0}';
    const { post } = site((p) => (seen.push(p), `<tool_call>{"name": "add", "arguments": ${args}}</tool_call>`), {
      tools: true,
    });
    const earlier = { role: "assistant", tool_calls: [{ function: { name: "add", arguments: args } }] };
    const messages = [{ role: "user", content: "a" }, earlier, { role: "tool", content: "2" }];
    const json: Json = await (await post("/v1/chat/completions", { ...base, messages, tools })).json();
    expect(json.choices[0].message.tool_calls[0].function.arguments).toBe(args);
    expect(seen[0]).toContain('"id":12345678901234567890,"x":1.0');
  });
  test("reach the template, and a call in the answer becomes tool_calls", async () => {
    const seen: string[] = [];
    const { post } = site((p) => (seen.push(p), `${call}\n${call}`), { tools: true });
    const json: Json = await (await post("/v1/chat/completions", { ...base, tools })).json();
    expect(seen[0]).toContain('"name":"add"');
    const one = {
      id: expect.stringMatching(/^call-/),
      type: "function",
      function: { name: "add", arguments: '{"a":1}' },
    };
    expect(json.choices[0].message).toEqual({
      role: "assistant",
      content: null,
      refusal: null,
      tool_calls: [one, one],
    });
    expect(json.choices[0].finish_reason).toBe("tool_calls");
  });
  test("stream as deltas with index, id and name, and no text of the call", async () => {
    const { post } = site(() => `Let me see. ${call}`, { tools: true });
    const list = await events(await post("/v1/chat/completions", { ...base, tools, stream: true }));
    const deltas: Json[] = list.slice(1, -1).map((e) => JSON.parse(e).choices[0].delta);
    expect(deltas.map((d) => d.content ?? "").join("")).toBe("Let me see. ");
    expect(deltas.flatMap((d) => d.tool_calls ?? [])).toEqual([
      { index: 0, id: expect.any(String), type: "function", function: { name: "add", arguments: '{"a":1}' } },
    ]);
    expect(JSON.parse(list.at(-2)!).choices[0].finish_reason).toBe("tool_calls");
  });
  test("leave what only looks like a call as text, and an unfinished one is read at the end", async () => {
    const text = async (s: string) => {
      const json: Json = await (await site(() => s, { tools: true }).post("/v1/chat/completions", { ...base, tools }))
        .json();
      return [json.choices[0].message.content, json.choices[0].finish_reason];
    };
    expect(await text("a <tool_call>no</tool_call> <tool")).toEqual(["a <tool_call>no</tool_call> <tool", "stop"]);
    expect(await text('<tool_call>{"name":"add"}')).toEqual([null, "tool_calls"]);
  });
  test("are written as text where the template has no place for them, and left out when tool_choice is none", async () => {
    const seen: string[] = [];
    const { post } = site((p) => (seen.push(p), call), { contextLength: 2048 });
    const ask = async (o: object) =>
      ((await (await post("/v1/chat/completions", { ...base, tools, ...o })).json()) as Json).choices[0];
    expect((await ask({})).message.tool_calls[0].function.name).toBe("add");
    expect(seen.at(-1)).toContain('"name": "add"');
    expect((await ask({ tool_choice: "none" })).message.content).toBe(call);
    expect(seen.at(-1)).toBe("user:hi");
  });
});
