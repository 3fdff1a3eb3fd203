/** Records as the world publishes them: calls of functions, speakers, columns. What they mean is in the named sources. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { fileURLToPath } from "node:url";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { type Example, openDataset, prepare } from "../../src/data/mod.ts";
import { withTemplate } from "../../src/tokenizer/mod.ts";
import { tinyTokenizer } from "./tiny.ts";

type Chat = Extract<Example, { kind: "chat" }>;

const root = mkdtempSync(join(tmpdir(), "shapes-"));
afterAll(() => rmSync(root, { recursive: true }));

async function first(record: Record<string, unknown>): Promise<Example> {
  for await (const { example } of (await openDataset([record])).examples()) return example;
  throw new Error("no record");
}

const user = { role: "user", content: "Weather?" }, end = { role: "assistant", content: "Sunny." };
const args = { city: "Paris" }, schema = { type: "object", properties: { city: { type: "string" } } };
const f = { name: "get_weather", description: "d", parameters: schema };
const tool = { type: "function", function: f }, named = { name: "get_weather", arguments: args };
const call = { role: "assistant", content: "", tool_calls: [{ type: "function", function: named }] };
const result = { role: "tool", content: "sunny" };
/** What every shape of this conversation comes to. */
const WANTED = { kind: "chat", messages: [user, call, result, end], tools: [tool] };

describe("a call of a function is the same in every shape it is published in", () => {
  const json = JSON.stringify;
  const shapes: [string, Record<string, unknown>][] = [
    ["OpenAI's, arguments as JSON, content null", {
      messages: [
        user,
        {
          role: "assistant",
          content: null,
          tool_calls: [{ type: "function", function: { name: f.name, arguments: json(args) } }],
        },
        result,
        end,
      ],
      tools: [tool],
    }],
    ["OpenAI's before 2024: function_call, role function, functions", {
      messages: [
        user,
        { role: "assistant", content: null, function_call: { name: f.name, arguments: json(args) } },
        { role: "function", content: "sunny" },
        end,
      ],
      functions: [f],
    }],
    ["the calls and the tools as JSON, as CSV and Hub datasets have them", {
      messages: [user, { ...call, tool_calls: json(call.tool_calls) }, result, end],
      tools: [json(tool)],
    }],
    ["calls beside columns that are null, as Parquet files have them", {
      messages: [
        { ...user, tool_calls: null, name: null, tool_call_id: null },
        { ...call, function_call: null },
        { ...result, tool_calls: null },
        end,
      ],
      tools: [tool],
    }],
    ["LLaMA-Factory's ShareGPT", {
      conversations: [
        { from: "human", value: "Weather?" },
        { from: "function_call", value: json(named) },
        { from: "observation", value: "sunny" },
        { from: "gpt", value: "Sunny." },
      ],
      tools: json([f]),
    }],
    ["ms-swift's tool_call and tool_response", {
      messages: [user, { role: "tool_call", content: json(named) }, { role: "tool_response", content: "sunny" }, end],
      tools: json([tool]),
    }],
    ["Llama 3's parameters", {
      messages: [user, { role: "tool_call", content: json({ name: f.name, parameters: args }) }, result, end],
      tools: [tool],
    }],
    ["Anthropic's parts and input_schema", {
      messages: [
        user,
        { role: "assistant", content: [{ type: "tool_use", name: f.name, input: args }] },
        { role: "user", content: [{ type: "tool_result", content: [{ type: "text", text: "sunny" }] }] },
        end,
      ],
      tools: [{ name: f.name, description: "d", input_schema: schema }],
    }],
    ["a flat tool, as OpenAI's Responses API has it", {
      messages: [user, call, result, end],
      tools: [{ type: "function", ...f }],
    }],
  ];
  test.each(shapes)("%s", async (_, record) => expect(await first(record)).toEqual(WANTED));

  test("what Parquet's shared columns lack is absent, not null", async () => {
    // As make_parquet.py makes it.
    const d = await openDataset(fileURLToPath(new URL("fixtures/calls.parquet", import.meta.url)));
    for await (const { example } of d.examples()) {
      const { messages, tools } = example as Chat;
      expect(messages[0]).toEqual({ role: "user", content: "Weather and time?" });
      const [weather, time] = messages[1]!.tool_calls as { function: { arguments: unknown } }[];
      expect([weather!.function.arguments, time!.function.arguments]).toEqual([{ city: "Paris", days: 2 }, {
        zone: "CET",
      }]);
      expect(messages.slice(2)).toEqual([{ role: "tool", content: "sunny", tool_call_id: "weather_1" }, end]);
      expect((tools![0] as typeof tool).function.parameters).toEqual({
        ...{ type: "object", properties: { city: { type: "string" } } },
      });
    }
  });
  test("calls in turns that follow each other were made at once", async () => {
    const turn = { role: "tool_call", content: json(named) };
    const { messages } = await first({ messages: [user, turn, turn, result, result, end] }) as Chat;
    expect(messages[1]!.tool_calls).toHaveLength(2);
    expect(messages.map((m) => m.role)).toEqual(["user", "assistant", "tool", "tool", "assistant"]);
  });
  test("a result that is no text is its JSON", async () => {
    const { messages } = await first({ messages: [user, call, { role: "tool", content: { t: [1, 2] } }, end] }) as Chat;
    expect(messages[2]!.content).toBe('{"t": [1, 2]}');
  });
  test("arguments keep numbers that JavaScript would change, and so do the texts of a file", async () => {
    const path = join(root, "numbers.jsonl");
    writeFileSync(path, '{"instruction": 1.0, "output": 12345678901234567890}');
    const d = await openDataset(path);
    for await (const { example } of d.examples()) {
      expect(example).toMatchObject({ instruction: "1.0", output: "12345678901234567890" });
    }
    const turn = {
      role: "tool_call",
      content: '{"name": "f", "arguments": "{\\"id\\": 9007199254740993, \\"x\\": 2.0}"}',
    };
    const { rows } = await prepare(await openDataset([{ messages: [user, turn], tools: [tool] }]), tinyTokenizer(), {
      maxLength: 2048,
    });
    expect(tinyTokenizer().decode(rows.at(0).ids)).toContain('"arguments": {"id": 9007199254740993, "x": 2.0}');
  });
  test("arguments of records in memory may be bigints", async () => {
    const turn = { ...call, tool_calls: [{ function: { name: "f", arguments: { id: 2n ** 64n } } }] };
    const knows = withTemplate(
      tinyTokenizer(),
      "{{ tools | tojson }}{% for m in messages %}{{ m | tojson }}{% endfor %}",
    );
    const rows = [{ messages: [user, turn], tools: [tool] }];
    for (const tokenizer of [tinyTokenizer(), knows]) {
      const made = await prepare(await openDataset(rows), tokenizer, { maxLength: 4096, trainOn: "all" });
      expect(tokenizer.decode(made.rows.at(0).ids)).toContain('{"id": 18446744073709551616}');
    }
  });
  test("arguments under an unknown name are refused, not dropped", async () => {
    const turn = { role: "tool_call", content: json({ name: "f", args: { x: 1 } }) };
    await expect(first({ messages: [user, turn, end] })).rejects.toThrow("a call of 'f' has 'args' and no arguments");
  });
});

describe("speakers", () => {
  test("are known in any case and in either shape", async () => {
    const wanted = [{ role: "user", content: "q" }, { role: "assistant", content: "a" }];
    for (
      const record of [
        { conversations: [{ from: "Human", value: "q" }, { from: "GPT", value: "a" }] },
        { conversation: [{ from: "user", value: "q" }, { from: "bot", value: "a" }] },
        { messages: [{ from: "human", value: "q" }, { from: "gpt", value: "a" }] },
        { messages: [{ role: "human", content: "q" }, { role: "model", content: ["a"] }] },
      ]
    ) expect((await first(record) as Chat).messages).toEqual(wanted);
  });
  test("a system prompt in its column opens messages too", async () => {
    const { messages } = await first({ system: "s", messages: [user, end] }) as Chat;
    expect(messages[0]).toEqual({ role: "system", content: "s" });
  });
});

describe("a question and its answer are an instruction", () => {
  const asked = (instruction: string, input: string, output: string, more = {}) => ({
    ...{ kind: "instruction", instruction, input, output },
    ...more,
  });
  test.each([
    ["Dolly's", { instruction: "i", context: "c", response: "r", category: "qa" }, asked("i", "c", "r")],
    ["OpenOrca's", { id: 1, system_prompt: "s", question: "q", response: "r" }, asked("q", "", "r", { system: "s" })],
    ["with a context", { question: "q", context: "c", answer: "r" }, asked("q", "c", "r")],
  ])("%s", async (_, record, wanted) => expect(await first(record)).toEqual(wanted));

  test("a prompt with a system prompt is refused with the way out", async () => {
    await expect(first({ system: "s", prompt: "p", completion: "c" })).rejects.toThrow(
      "--columns instruction=prompt output=completion",
    );
  });
  test.each([["True", true], ["false", false], [1, true], [0, false], ["1", true]])(
    "the label %s is a rating, as CSV files have it",
    async (label, wanted) => expect(await first({ prompt: "p", completion: "c", label })).toMatchObject({ wanted }),
  );
});

describe("columns", () => {
  test("that nobody reads are named", async () => {
    const d = await openDataset([{ instruction: "i", inputs: "lost", output: "o", id: 1 }]);
    expect(d.notes).toContain("Columns not used: inputs, id");
    const none = await openDataset([{ instruction: "i", output: "o", input: "" }]);
    expect(none.notes.join()).not.toContain("not used");
  });
  test("are mapped from inside objects and lists", async () => {
    const columns = { instruction: "meta.q", output: "answers.text.0" };
    const d = await openDataset([{ meta: { q: "i" }, answers: { text: ["o"] } }], { columns });
    for await (const { example } of d.examples()) expect(example).toMatchObject({ instruction: "i", output: "o" });
    await expect(openDataset([{ meta: {} }], { columns })).rejects.toThrow("Cannot map 'meta.q'");
  });
  test("of turns under an unknown name: the refusal says how to map them", async () => {
    await expect(openDataset([{ dialog: [user, end] }])).rejects.toThrow("--columns messages=dialog");
  });
});

describe("what a template cannot say of a record", () => {
  const tokenizer = tinyTokenizer(), bad = { messages: [{ role: "system", content: "NO" }, user, end] };
  const path = join(root, "chats.jsonl");
  writeFileSync(path, [{ messages: [user, end] }, bad].map((r) => JSON.stringify(r)).join("\n"));
  const strict = withTemplate(
    tokenizer,
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}" +
      "{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}",
  );
  test("is refused with file and line", async () => {
    await expect(prepare(await openDataset(path), strict, { maxLength: 64 })).rejects.toThrow(
      /chats\.jsonl' line 2: .*no system; mend it, or leave such records out with --skip_bad_rows/,
    );
  });
  test("is counted with skip_bad_rows", async () => {
    const { counts } = await prepare(await openDataset(path, { skipBadRows: true }), strict, { maxLength: 64 });
    expect([counts.rows, counts.badRows]).toEqual([1, 1]);
  });
  test("is told where a key of a turn is never written", async () => {
    const thought = { ...end, reasoning_content: "because" };
    const { notes } = await prepare(await openDataset([{ messages: [user, thought] }]), tokenizer, { maxLength: 64 });
    expect(notes.join("\n")).toMatch(/1 record has 'reasoning_content' in turns/);
  });
  test("is told where a completion is glued to its prompt, and that no template is used", async () => {
    const { notes } = await prepare(await openDataset([{ prompt: "What?", completion: "That" }]), tokenizer, {
      maxLength: 64,
    });
    expect(notes.join("\n")).toMatch(/joined as they stand[^]*1 record has a completion that follows its prompt/);
  });
});
