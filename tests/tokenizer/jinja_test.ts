/** Templates mean what they mean in Python: small ones, each of one thing, rendered by jinja2 (make_jinja_snippets.py). */
import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { ConfigError, DataError } from "../../src/core/errors.ts";
import { ChatRenderer, formatDate } from "../../src/tokenizer/template.ts";

interface Golden {
  variables: Record<string, unknown>;
  snippets: [text: string, python: string | null][];
}
const golden = JSON.parse(readFileSync(new URL("jinja_snippets.json", import.meta.url), "utf8")) as Golden;
const { messages, tools, add_generation_prompt: addPrompt, ...given } = golden.variables as never as {
  messages: never[];
  tools: never[];
  add_generation_prompt: boolean;
};
const WHEN = new Date(2024, 6, 26, 9, 5);
const variables = { ...given, strftime_now: (f: string) => formatDate(f, WHEN) };

/** What of Jinja is refused here; no template of shared/chat-templates has it. By a word of the snippet. */
const REFUSED = [
  ...["1e3", "1e16", "1e-5", "1.5e-7", "0x1F", "1_000", "(1,)", "()", "< 3", "> 2 >", "'a' < 'b'"],
  ...["divisibleby", "in('abc')", "eq(", "lt(", "sameas", "greaterthan", "loop.cycle", "raw", "with x", "joiner"],
  ...["wordcount", "truncate", "center", "round", "'%s", "%j", "dict(", "batch", "groupby", "xmlattr", "encode"],
  ...["partition", "rsplit", "swapcase", "zfill", "ljust", "urlencode", "striptags", "s|reverse"],
];

describe("a template renders as in Python or is refused with a typed error", () => {
  test.each(golden.snippets)("%s", (text, python) => {
    const render = () =>
      new ChatRenderer({ main: text }, {}, "model").render(messages, { addPrompt, tools, variables });
    if (python !== null && !REFUSED.some((word) => text.includes(word))) return expect(render()).toBe(python);
    try {
      expect(render()).toBe(python);
    } catch (e) {
      expect(e instanceof ConfigError || e instanceof DataError, String(e)).toBe(true);
    }
  });
});
