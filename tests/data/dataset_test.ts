/** Formats: recognised from the keys of all records, read, refused with the place. */
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, describe, expect, test } from "vitest";
import { ConfigError, DataError } from "../../src/core/errors.ts";
import { type Dataset, type Example, openDataset } from "../../src/data/mod.ts";

const DATA = fileURLToPath(new URL("../../../shared/data/", import.meta.url));
const root = mkdtempSync(join(tmpdir(), "dataset-"));
afterAll(() => rmSync(root, { recursive: true }));

async function examples(d: Dataset): Promise<Example[]> {
  const out: Example[] = [];
  for await (const { example } of d.examples()) out.push(example);
  return out;
}
const user = (content: string) => ({ role: "user", content }),
  assistant = (content: string) => ({ role: "assistant", content });

describe("records are recognised and read", () => {
  const turns = [{ from: "human", value: "q" }, { from: "gpt", value: "a" }];
  const cases: [string, Record<string, unknown>, string, Example][] = [
    ["alpaca", { instruction: "i", input: "", output: "o", text: "whole" }, "alpaca", {
      ...{ kind: "instruction", instruction: "i", input: "", output: "o" },
    }],
    [
      "alpaca with system and history",
      { instruction: "i", input: "x", output: "o", system: "s", history: [["a", "b"]] },
      "alpaca",
      {
        ...{ kind: "instruction", instruction: "i", input: "x", output: "o", system: "s", history: [["a", "b"]] },
      },
    ],
    ["messages", { messages: [user("q"), assistant("a")] }, "messages", {
      kind: "chat",
      messages: [user("q"), assistant("a")],
    }],
    ["messages as JSON, as CSV has them", { messages: JSON.stringify([user("q"), assistant("a")]) }, "messages", {
      ...{ kind: "chat", messages: [user("q"), assistant("a")] },
    }],
    [
      "messages with content in parts",
      { messages: [{ role: "user", content: [{ type: "text", text: "q" }] }, assistant("a")] },
      "messages",
      {
        ...{ kind: "chat", messages: [user("q"), assistant("a")] },
      },
    ],
    ["sharegpt", { conversations: turns, system: "s" }, "sharegpt", {
      ...{ kind: "chat", messages: [{ role: "system", content: "s" }, user("q"), assistant("a")] },
    }],
    ["prompt and completion", { prompt: "p", completion: "c" }, "completion", {
      kind: "completion",
      prompt: "p",
      completion: "c",
    }],
    ["question and answer", { question: "p", answer: "c", id: 3 }, "completion", {
      kind: "instruction",
      instruction: "p",
      input: "",
      output: "c",
    }],
    [
      "completion in messages",
      { prompt: [user("p"), assistant("x"), user("q")], completion: [assistant("c")] },
      "completion",
      { kind: "chat", messages: [user("p"), { ...assistant("x"), weight: 0 }, user("q"), assistant("c")] },
    ],
    ["completion that is rated", { prompt: "p", completion: "c", label: false }, "completion", {
      ...{ kind: "completion", prompt: "p", completion: "c", wanted: false },
    }],
    [
      "weights of turns",
      { messages: [user("p"), { ...assistant("x"), weight: 0 }, user("q"), { ...assistant("c"), weight: 1 }] },
      "messages",
      { kind: "chat", messages: [user("p"), { ...assistant("x"), weight: 0 }, user("q"), assistant("c")] },
    ],
    [
      "weights of ShareGPT's turns, and one system prompt said twice",
      {
        system: "s",
        conversations: [{ from: "system", value: "s" }, { from: "human", value: "p", weight: null }, {
          ...{ from: "gpt", value: "x", train: false },
        }],
      },
      "sharegpt",
      { kind: "chat", messages: [{ role: "system", content: "s" }, user("p"), { ...assistant("x"), weight: 0 }] },
    ],
    ["text", { text: "t", meta: {} }, "text", { kind: "text", text: "t" }],
    ["preference of texts", { prompt: "p", chosen: "c", rejected: "r" }, "preference", {
      ...{ kind: "preference", prompt: [user("p")], chosen: [assistant("c")], rejected: [assistant("r")] },
    }],
    [
      "preference that repeats its prompt",
      { chosen: [user("p"), assistant("c")], rejected: [user("p"), assistant("r")] },
      "preference",
      {
        ...{ kind: "preference", prompt: [user("p")], chosen: [assistant("c")], rejected: [assistant("r")] },
      },
    ],
    [
      "preference with a prompt inside the answers too",
      { prompt: "p", chosen: [user("p"), assistant("c")], rejected: [user("p"), assistant("r")] },
      "preference",
      {
        ...{ kind: "preference", prompt: [user("p")], chosen: [assistant("c")], rejected: [assistant("r")] },
      },
    ],
  ];
  for (const [name, record, format, example] of cases) {
    test(name, async () => {
      const d = await openDataset([record]);
      expect(d.format).toBe(format);
      expect(await examples(d)).toEqual([example]);
    });
  }

  test("tools and calls come in OpenAI's shape, arguments as objects", async () => {
    const tool = { name: "f", description: "d", parameters: {} };
    const d = await openDataset([{
      conversations: [
        { from: "human", value: "q" },
        { from: "function_call", value: '{"name": "f", "arguments": "{\\"x\\": 1}"}' },
        { from: "observation", value: "42" },
        { from: "gpt", value: "a" },
      ],
      tools: JSON.stringify([tool]),
    }]);
    const [e] = await examples(d) as Extract<Example, { kind: "chat" }>[];
    expect(e!.tools).toEqual([{ type: "function", function: tool }]);
    expect(e!.messages.slice(1, 3)).toEqual([
      {
        role: "assistant",
        content: "",
        tool_calls: [{ type: "function", function: { name: "f", arguments: { x: 1 } } }],
      },
      { role: "tool", content: "42" },
    ]);
  });
});

describe("the format", () => {
  test("needs its keys in every record", async () => {
    const rows = [{ instruction: "i", output: "o" }, { instruction: "i" }];
    await expect(openDataset(rows)).rejects.toThrow("output (in 1 of 2)");
  });
  test("that is not recognised is refused with the columns there are", async () => {
    await expect(openDataset([{ foo: 1, bar: 2 }])).rejects.toThrow(
      /have foo, bar and the formats are .*map the columns, for example --columns instruction=foo/,
    );
    await expect(openDataset([{}])).rejects.toThrow("give records that have columns");
    await expect(openDataset([{ text: "a" }, { messages: [] }])).rejects.toThrow("the records are of several kinds");
    await expect(openDataset([{ input_ids: [1], labels: [1] }])).rejects.toThrow("tokenised already");
  });
  test("can be told, and is refused when it does not fit", async () => {
    const rows = [{ instruction: "i", output: "o", text: "t" }];
    expect((await openDataset(rows, { format: "text" })).format).toBe("text");
    await expect(openDataset(rows, { format: "sharegpt" })).rejects.toThrow("Cannot read 'rows in memory' as sharegpt");
  });
  test("is found under other column names when they are mapped", async () => {
    const d = await openDataset([{ q: "i", a: "o" }], { columns: { instruction: "q", output: "a" } });
    expect(await examples(d)).toEqual([{ kind: "instruction", instruction: "i", input: "", output: "o" }]);
    expect(d.notes.join("\n")).toContain("instruction from q, output from a");
    await expect(openDataset([{ q: 1 }], { columns: { instruction: "x" } })).rejects.toThrow("has the columns q");
    await expect(openDataset([{ q: 1 }], { columns: { bogus: "q" } })).rejects.toThrow(ConfigError);
  });
});

describe("broken records", () => {
  const path = join(root, "rows.jsonl");
  writeFileSync(path, '{"text":"a"}\n\n{"text":"b"}\n{"text":\n{"text":7}\n{"text":["c"]}\n');
  test("are refused with file and line", async () => {
    const e = await openDataset(path).catch((e) => e);
    expect(e).toBeInstanceOf(DataError);
    expect([e.file, e.line]).toEqual([path, 2]);
    expect(e.message).toMatch(/line 2: the line is empty; .*--skip_bad_rows/);
  });
  test("are left out and counted when asked, those of the format too", async () => {
    const d = await openDataset(path, { skipBadRows: true });
    expect((await examples(d)).map((e) => e.kind === "text" && e.text)).toEqual(["a", "b", "7"]);
    expect([d.records, d.badRows]).toEqual([4, 3]);
    await examples(d);
    expect(d.badRows).toBe(3);
  });
  const cases: [string, Record<string, unknown>, string][] = [
    ["a message without a role", { messages: [{ content: "x" }] }, "a message has no role"],
    ["a chat without an answer", { messages: [user("q")] }, "no message has the role 'assistant': its roles are user"],
    ["an image", { messages: [{ role: "user", content: [{ type: "image" }] }] }, "a part of type 'image'"],
    ["an unknown speaker", { conversations: [{ from: "bard?", value: "x" }] }, "from 'bard?'"],
    ["a call that is not JSON", { conversations: [{ from: "function_call", value: "f(x)" }] }, "not JSON"],
    ["a null answer", { instruction: "i", output: null }, "its 'output' is null and should be a text"],
    ["an empty list", { messages: [] }, "its 'messages' is empty"],
    ["tools that are no list", { messages: [assistant("a")], tools: "{}" }, "its 'tools' is an object"],
    ["two system prompts", { system: "a", conversations: [{ from: "system", value: "b" }] }, "'system' says one thing"],
    ["half a weight", { messages: [{ ...assistant("a"), weight: 0.5 }] }, "a message's weight is 0.5"],
    ["preferences without a prompt", { chosen: "a", rejected: "b" }, "it has no prompt"],
  ];
  for (const [name, record, words] of cases) {
    test(`${name}: the sentence says so`, async () => {
      const d = await openDataset([record]);
      await expect(examples(d)).rejects.toThrow(words);
    });
  }
});

describe("a dataset", () => {
  test("without records is refused", async () => {
    await expect(openDataset([])).rejects.toThrow("holds no record");
  });
  test("stops at its limit", async () => {
    const d = await openDataset([{ text: "a" }, { text: "b" }, { text: "c" }], { limit: 2 });
    expect([d.records, (await examples(d)).length]).toEqual([2, 2]);
  });
  test("says which placeholders wait, and fills them in", async () => {
    const rows = [{ instruction: "hi", output: "I am {{name}} by {{ author }}" }];
    const d = await openDataset(rows);
    expect(d.notes.join("\n")).toContain("{{name}}, {{author}}");
    const filled = await openDataset(rows, { fill: { name: "Ada", author: "us" } });
    expect(filled.notes.join("\n")).not.toContain("{{");
    expect(await examples(filled)).toMatchObject([{ output: "I am Ada by us" }]);
  });
  test.skipIf(!existsSync(DATA))(
    "of shared/data is recognised, every record of it (skipped where shared is absent)",
    async () => {
      const known = {
        alpaca_en_demo: ["alpaca", 999],
        glaive_toolcall_en_demo: ["sharegpt", 300],
        dpo_en_demo: ["preference", 300],
      };
      for (const [name, [format, records]] of Object.entries({ ...known, identity: ["alpaca", 91] })) {
        const d = await openDataset(join(DATA, `${name}.json`));
        expect([d.format, d.records, (await examples(d)).length]).toEqual([format, records, records]);
      }
    },
  );
});
