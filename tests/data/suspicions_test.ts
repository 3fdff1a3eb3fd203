/** What can be trained but is probably not meant is told, with how many records have it. */
import { expect, test } from "vitest";
import { openDataset, prepare, type PrepareOptions } from "../../src/data/mod.ts";
import { withTemplate } from "../../src/tokenizer/mod.ts";
import { tinyTokenizer } from "./tiny.ts";

const tiny = tinyTokenizer();
async function warnings(rows: unknown[], o: Partial<PrepareOptions> = {}, t = tiny): Promise<string[]> {
  const { notes } = await prepare(await openDataset(rows), t, { maxLength: 200, ...o });
  return notes.filter((n) => n.startsWith("[WARNING]"));
}
const pair = (instruction: string, output: string) => ({ instruction, output });
const chat = (...messages: unknown[]) => ({ messages });
const user = { role: "user", content: "q" }, assistant = (content: string) => ({ role: "assistant", content });

test("clean records raise no warning; a call without words is no empty answer", async () => {
  expect(await warnings([pair("q", "a 👍"), pair("", "b")])).toEqual([]);
  const call = { role: "assistant", content: null, tool_calls: [{ function: { name: "f", arguments: {} } }] };
  expect(await warnings([chat(user, call, { role: "tool", content: "1" }, assistant("a"))])).toEqual([]);
});

test("empty answers, unless they are not trained", async () => {
  const empty = "[WARNING] 2 records have an empty answer, which teaches the model to say nothing";
  expect(await warnings([pair("q", ""), pair("q", " \n"), pair("q", "a")])).toEqual([empty]);
  expect(await warnings([chat(user, { ...assistant(""), weight: 0 }, user, assistant("a"))])).toEqual([]);
});

test("control tokens inside texts, which are welcome in records of text alone", async () => {
  expect(await warnings([pair("say </s>", "a")])).toEqual([
    "[WARNING] 1 record has <s> or </s> or <|im_end|> in the text, where it acts as a control token",
  ]);
  expect(await warnings([{ text: "<|im_start|>user q<|im_end|>" }])).toEqual([]);
});

test("characters that were lost on the way", async () => {
  const lost = "[WARNING] 1 record has characters that were lost before they came here (U+FFFD or half of a pair)";
  expect(await warnings([pair("caf\ufffd", "a")])).toEqual([lost]);
  expect(await warnings([pair("q", "a \ud83d b")])).toEqual([lost]);
});

test("roles that templates do not know", async () => {
  expect(await warnings([chat({ role: "usr", content: "q" }, assistant("a"))])).toEqual([
    "[WARNING] 1 record has a turn of the role 'usr', which chat templates seldom know",
  ]);
});

test("turns that the template leaves out or changes", async () => {
  const plain =
    "{% for m in messages %}{% if m.role != 'system' %}{{ m.role }}:{{ m.content | trim | upper if m.role == 'user' " +
    "else m.content }}{% endif %}{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}";
  const rows = [chat({ role: "system", content: "Be brief." }, { role: "user", content: "Q " }, assistant("a"))];
  expect(await warnings(rows, {}, withTemplate(tiny, plain))).toEqual([
    "[WARNING] 1 record has a turn of the role 'system' whose text the chat template leaves out or changes",
  ]);
  expect(await warnings([pair("q", "a")], {}, withTemplate(tiny, plain))).toEqual([
    "[WARNING] 1 record has a turn of the role 'user' whose text the chat template leaves out or changes",
  ]);
});

test("marks of the template that are no tokens", async () => {
  const other = withTemplate(
    tiny,
    "{% for m in messages %}<|turn|>{{ m.role }}:{{ m.content }}{% endfor %}" +
      "{% if add_generation_prompt %}<|turn|>assistant:{% endif %}",
  );
  expect((await warnings([pair("q", "<|mine|>")], {}, other))[0]).toMatch(/writes <\|turn\|>, which this tokenizer/);
});

test("a text of white space alone is dropped", async () => {
  const { counts } = await prepare(await openDataset([{ text: " \n " }, { text: "abc" }]), tiny, { maxLength: 64 });
  expect([counts.rows, counts.dropped]).toEqual([1, 1]);
});
