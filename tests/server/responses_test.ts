/** /v1/responses: the object, the order of its events, items of a conversation, refusals. */
import { describe, expect, test } from "vitest";
import { type Json, site } from "./app.ts";

const path = "/v1/responses";
const call = '<tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call>';
const tools = [{ type: "function", name: "add", parameters: { type: "object" } }];

describe("a response", () => {
  test("has the reference's shape, settings and usage", async () => {
    const body = { input: "hi", instructions: "be brief", temperature: 0, metadata: { a: "b" }, store: true };
    const json: Json = await (await site((p) => `<${p}>`).post(path, body)).json();
    const text = "<system:be brief\nuser:hi>";
    expect(json).toMatchObject({ object: "response", status: "completed", error: null, incomplete_details: null });
    expect(json).toMatchObject({ model: "org/scripted", instructions: "be brief", metadata: { a: "b" }, store: false });
    expect(json.output).toEqual([{
      type: "message",
      id: expect.stringMatching(/^msg-/),
      status: "completed",
      role: "assistant",
      content: [{ type: "output_text", text, annotations: [], logprobs: [] }],
    }]);
    expect(json.usage).toEqual({
      input_tokens: text.length - 1,
      input_tokens_details: { cached_tokens: 0 },
      output_tokens: text.length + 1,
      output_tokens_details: { reasoning_tokens: 0 },
      total_tokens: 2 * text.length,
    });
  });
  test("is incomplete at the token limit", async () => {
    const json: Json =
      await (await site(() => "one two").post(path, { input: "hi", temperature: 0, max_output_tokens: 3 })).json();
    expect([json.status, json.incomplete_details, json.output[0].status]).toEqual(
      ["incomplete", { reason: "max_output_tokens" }, "incomplete"],
    );
  });
  test("holds text and calls as items of their own, in order", async () => {
    const { post } = site(() => `Well. ${call}${call}`, { tools: true });
    const { output }: Json = await (await post(path, { input: "hi", temperature: 0, tools })).json();
    expect(output.map((i: Json) => i.type)).toEqual(["message", "function_call", "function_call"]);
    expect(output[0].content[0].text).toBe("Well. ");
    expect(output[1]).toMatchObject({ name: "add", arguments: '{"a":1}', status: "completed" });
    expect(output[1].call_id).not.toBe(output[2].call_id);
  });
});

test("the items of a conversation become its messages, a call and its text one turn", async () => {
  const seen: string[] = [];
  const { post } = site((p) => (seen.push(p), "ok"), { tools: true });
  const res = await post(path, {
    input: [
      { role: "user", content: [{ type: "input_text", text: "1+1?" }] },
      {
        type: "message",
        id: "m",
        status: "completed",
        role: "assistant",
        content: [{ type: "output_text", text: "Let me see." }],
      },
      { type: "function_call", id: "f", call_id: "c1", name: "add", arguments: '{"a":1}', status: "completed" },
      { type: "function_call_output", call_id: "c1", output: "2" },
    ],
  });
  expect(res.status).toBe(200);
  const calls = '[{"id":"c1","type":"function","function":{"name":"add","arguments":{"a":1}}}]';
  expect(seen[0]).toBe(`user:1+1?\nassistant:Let me see.${calls}\ntool:2`);
});

describe("a stream", () => {
  const stream = async (script: string, o: object = {}) => {
    const res = await site(() => script, { tools: true }).post(path, {
      input: "hi",
      temperature: 0,
      stream: true,
      ...o,
    });
    const events = (await res.text()).split("\n\n").filter((e) => e !== "").map((e) => e.split("\n"));
    return events.map(([name, data]): Json => {
      const event = JSON.parse(data.replace(/^data: /, ""));
      expect(name).toBe(`event: ${event.type}`);
      return event;
    });
  };
  test("tells of each change in the reference's order, numbered without a gap", async () => {
    const events = await stream("日本");
    expect(events.map((e) => e.sequence_number)).toEqual([...events.keys()]);
    expect(events.map((e) => e.type.replace("response.", ""))).toEqual([
      "created",
      "in_progress",
      "output_item.added",
      "content_part.added",
      "output_text.delta",
      "output_text.delta",
      "output_text.done",
      "content_part.done",
      "output_item.done",
      "completed",
    ]);
    expect(events.filter((e) => e.delta).map((e) => e.delta)).toEqual(["日", "本"]);
    expect(events[0].response).toMatchObject({ status: "in_progress", output: [], usage: null });
    expect(events[2].item).toMatchObject({ status: "in_progress", content: [] });
    const last = events.at(-1).response;
    expect(last.output[0]).toEqual(events.at(-2).item);
    expect([last.output[0].content[0].text, last.usage.output_tokens, last.id]).toEqual([
      "日本",
      7,
      events[0].response.id,
    ]);
  });
  test("closes the text before a call, and says nothing of an answer without words", async () => {
    const events = await stream(`Hm${call}`, { tools });
    const types = events.map((e) => e.type.replace("response.", ""));
    expect(types.slice(types.indexOf("output_text.done"))).toEqual([
      "output_text.done",
      "content_part.done",
      "output_item.done",
      "output_item.added",
      "function_call_arguments.delta",
      "function_call_arguments.done",
      "output_item.done",
      "completed",
    ]);
    expect(events.at(-2)).toMatchObject({ output_index: 1, item: { name: "add", arguments: '{"a":1}' } });
    expect((await stream("")).at(-1).response.output[0].content[0].text).toBe("");
  });
});

test.each([
  ["input", {}],
  ["input", { input: [] }],
  ["input[0].type", { input: [{ type: "item_reference", id: "x" }] }],
  ["input[0].content[0]", { input: [{ role: "user", content: [{ type: "input_image" }] }] }],
  ["previous_response_id", { input: "x", previous_response_id: "resp_1" }],
  ["background", { input: "x", background: true }],
  ["text", { input: "x", text: { format: { type: "json_object" } } }],
  ["reasoning", { input: "x", reasoning: { effort: "low" } }],
  ["tools[0].type", { input: "x", tools: [{ type: "web_search" }] }],
  ["max_tokens", { input: "x", max_tokens: 5 }],
])("names %s when it refuses %j", async (param, body) => {
  const res = await site(() => "").post(path, body);
  expect([res.status, ((await res.json()) as Json).error.param]).toEqual([400, param]);
});
