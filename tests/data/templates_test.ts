/** Every real chat template: the mask covers all answers and nothing else, calls of functions too, or the chat is refused. */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { ConfigError, DataError } from "../../src/core/errors.ts";
import { renderChat } from "../../src/data/render.ts";
import { type Message, withTemplate } from "../../src/tokenizer/mod.ts";
import { tinyTokenizer } from "./tiny.ts";

const TEMPLATES = new URL("../../../shared/chat-templates/", import.meta.url);
const absent = existsSync(TEMPLATES) ? "" : " (shared/chat-templates is absent)";

const user = (content: string): Message => ({ role: "user", content });
const assistant = (content: string): Message => ({ role: "assistant", content });
const parameters = {
  type: "object",
  properties: { city: { type: "string", description: "City" } },
  required: ["city"],
};
const weather = { type: "function", function: { name: "get_weather", description: "d", parameters } };
const call = { id: "call00001", type: "function", function: { name: "get_weather", arguments: { city: "ZURICH" } } };
const result = { role: "tool", name: "get_weather", tool_call_id: "call00001", content: "RESULT" };

/** Chats, and words of their trained turns in order; every other word in capitals must stay outside. */
const CHATS: Record<string, { messages: Message[]; tools?: unknown[]; trained: string[] }> = {
  turns: {
    messages: [user("FIRST"), assistant("ANSWER ONE"), user("SECOND"), assistant("ANSWER TWO")],
    trained: ["ANSWER ONE", "ANSWER TWO"],
  },
  tools: {
    messages: [
      ...[user("FIRST"), { ...assistant(""), tool_calls: [call] }, result, assistant("ANSWER TWO")],
      ...[user("SECOND"), assistant("ANSWER THREE")],
    ],
    tools: [weather],
    trained: ["ZURICH", "ANSWER TWO", "ANSWER THREE"],
  },
};

/** Templates that write earlier turns so differently that their extent cannot be told; training on all tokens is the way out. */
const UNFOUND = [
  ...[
    "Cohere2MoE",
    "CohereForAI-c4ai-command-r7b-12-2024-tool_use",
    "MiniMax-M2",
  ],
  ...["deepseek-ai-DeepSeek-V3.2", "google-gemma-4-31B-it"],
];

describe.skipIf(absent !== "")(`the loss mask of real chat templates${absent}`, () => {
  const unfound = new Set<string>();
  const names = absent
    ? []
    : readdirSync(TEMPLATES).filter((n) => n.endsWith(".jinja")).map((n) => n.slice(0, -6)).sort();
  test.each(names)("%s", (name) => {
    const source = readFileSync(new URL(`${name}.jinja`, TEMPLATES), "utf8");
    for (const { messages, tools, trained } of Object.values(CHATS)) {
      let spans: string[];
      try {
        const marked = renderChat(withTemplate(tinyTokenizer(), source), messages, tools, "answers");
        spans = marked.spans.map(([from, to]) => marked.text.slice(from, to));
      } catch (e) {
        expect(e instanceof DataError || e instanceof ConfigError, String(e)).toBe(true);
        if (String(e).includes("Cannot find turn")) unfound.add(name);
        continue;
      }
      expect(spans.length).toBe(trained.length);
      spans.forEach((span, i) => expect(span).toContain(trained[i]));
      expect(spans.join("")).not.toMatch(/FIRST|SECOND|RESULT/);
    }
  });
  test("is found but for those that are known", () => expect([...unfound]).toEqual(UNFOUND));
});
