/** Chat templates: real ones against Python's jinja2 (make_chat_renderings.py), and what a template is given. */
import { createHash } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { ConfigError, DataError } from "../../src/core/errors.ts";
import { parseJson } from "../../src/core/json.ts";
import { ChatRenderer, formatDate } from "../../src/tokenizer/template.ts";
import type { Message } from "../../src/tokenizer/mod.ts";

const TEMPLATES = new URL("../../../shared/chat-templates/", import.meta.url);

interface Golden {
  specials: Record<string, string>;
  cases: Record<string, { messages: Message[]; tools: unknown[] | null; add_generation_prompt: boolean }>;
  templates: Record<string, Record<string, string | null>>;
}
const golden = JSON.parse(readFileSync(new URL("chat_renderings.json", import.meta.url), "utf8")) as Golden;

/** The moment make_chat_renderings.py fixes. */
const WHEN = new Date(2024, 6, 26, 9, 5);

const absent = existsSync(TEMPLATES) ? "" : " (shared/chat-templates is absent)";
describe.skipIf(absent !== "")(
  `every real chat template renders as in Python${absent}`,
  () => {
    for (const [name, hashes] of Object.entries(golden.templates)) {
      test(name, () => {
        const renderer = new ChatRenderer(
          { main: readFileSync(new URL(`${name}.jinja`, TEMPLATES), "utf8") },
          golden.specials,
          name,
        );
        for (const [label, c] of Object.entries(golden.cases)) {
          let text: string;
          try {
            text = renderer.render(c.messages, {
              addPrompt: c.add_generation_prompt,
              tools: c.tools ?? undefined,
              variables: { strftime_now: (f: string) => formatDate(f, WHEN) },
            });
          } catch (e) {
            expect(e instanceof DataError || e instanceof ConfigError, String(e)).toBe(true);
            // Only what Python refuses too.
            expect(hashes[label], `${label}: ${e}`).toBe(null);
            continue;
          }
          // Where Python itself fails there is nothing to compare with.
          if (hashes[label] === null) continue;
          expect(createHash("sha256").update(text).digest("hex").slice(0, 16), `${label}: ${text}`).toBe(hashes[label]);
        }
      });
    }
  },
);

describe("a template", () => {
  const render = (main: string, o = {}, messages: Message[] = [{ role: "user", content: "hi" }]) =>
    new ChatRenderer({ main, tools: "with tools" }, { bos_token: "<s>" }, "model").render(messages, {
      addPrompt: true,
      ...o,
    });
  test("that raises an exception gives a DataError with its sentence", () => {
    expect(() => render("{{ raise_exception('System role not supported') }}")).toThrow(
      new DataError("Cannot render a chat with the template of 'model': System role not supported"),
    );
  });
  test("that does not parse gives a ConfigError", () => expect(() => render("{% if %}")).toThrow(ConfigError));
  test("for tools is taken when there are tools, and only then", () => {
    expect(render("plain", { tools: [{ type: "function" }] })).toBe("with tools");
    expect(render("plain", { tools: [] })).toBe("plain");
  });
  test("sees special tokens, absent ones as undefined, and given variables", () => {
    expect(render("{{ bos_token }}{{ eos_token is defined }}{{ thinking }}", { variables: { thinking: "no" } })).toBe(
      "<s>Falseno",
    );
  });
  test("has Python's range", () => {
    expect(render("{% for i in range(5, 0, -2) %}{{ i }}{% endfor %}{% for i in range(2) %}{{ i }}{% endfor %}")).toBe(
      "53101",
    );
  });
  test("has line feeds for line ends, wherever its file was saved", () => {
    const unix = "{% for m in messages %}\n{{ m.role }}:\n  {{ m.content }}\n{% endfor %}\nend\n";
    expect(render("\ufeff" + unix.replaceAll("\n", "\r\n"))).toBe(render(unix));
    expect(render(unix)).toBe("user:\n  hi\nend"); // jinja2 3.1, trim_blocks and lstrip_blocks
  });
  test("gets dates in English", () => {
    expect(formatDate("%d %b %Y, %B %A %-d %H:%M:%S%%", WHEN)).toBe("26 Jul 2024, July Friday 26 09:05:00%");
    expect(() => formatDate("%Q", WHEN)).toThrow("%Q");
  });
  test("writes numbers as Python does, where JavaScript has others", () => {
    const value = parseJson('{"id": 12345678901234567890, "x": 1.0, "y": [1e-7], "n": 3, "s": "2718281828400001"}');
    const variables = { value };
    expect(render("{{ value | tojson }} {{ value.id }} {{ value.x is number }}", { variables })).toBe(
      '{"id": 12345678901234567890, "x": 1.0, "y": [1e-07], "n": 3, "s": "2718281828400001"} 12345678901234567890 True',
    );
  });
  test("is missing: the message says what to do", () => {
    expect(() => new ChatRenderer(null, {}, "m").render([], { addPrompt: true })).toThrow("has no chat template");
  });
});
