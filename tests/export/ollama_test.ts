/** Modelfiles: a small interpreter of the Go templates we write renders chats as the model's own Jinja template does. */
import { describe, expect, test } from "vitest";
import { modelfileOf, ollamaTemplate } from "../../src/export/ollama.ts";
import { type Message, type Tokenizer, tokenizerFromJson, withTemplate } from "../../src/tokenizer/mod.ts";
import { TEMPLATE, tinyTokenizer } from "./tiny_folder.ts";

const config = { bos_token: "<s>", eos_token: "</s>", add_bos_token: true };
const tokenizer = tokenizerFromJson(
  { tokenizer: tinyTokenizer(), config: { ...config, chat_template: TEMPLATE } },
  "tiny",
);

const CHATML =
  "{% for m in messages %}{% if loop.first and m['role'] != 'system' %}<|im_start|>system\nBe kind.<|im_end|>\n" +
  "{% endif %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}" +
  "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";
const GEMMA =
  "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set first = messages[0]['content'] + '\n\n' %}" +
  "{% set rest = messages[1:] %}{% else %}{% set first = '' %}{% set rest = messages %}{% endif %}{% for m in rest %}" +
  "<start_of_turn>{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n{{ (first if loop.first else '') + m['content'] }}" +
  "<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}";
const LLAMA2 = "{% for m in messages %}{% if m['role'] == 'user' %}[INST] {{ m['content'] }} [/INST]" +
  "{% elif m['role'] == 'assistant' %} {{ m['content'] }}</s>{% else %}{{ raise_exception('no') }}{% endif %}{% endfor %}";

/**
 * What Go's text/template does with the actions used in Modelfiles here: range over .Messages, if, eq, not, and, fields,
 * a flag that is set once, strings, trimming. Anything else throws, so that a new action cannot go untested.
 */
function renderGo(source: string, messages: readonly Message[]): string {
  const tokens: string[] = [];
  for (const part of source.split(/(\{\{.*?\}\})/s)) {
    if (part.startsWith("{{-") && tokens.length) tokens.push(tokens.pop()!.trimEnd());
    tokens.push(part);
  }
  const system = messages.find((m) => m.role === "system")?.content ?? "";
  let first = true, at = 0;
  const truth = (action: string, m?: Message): boolean => {
    const is = /^(?:if )?eq \.Role "(\w+)"$/.exec(action);
    if (is) return m!.role === is[1];
    if (action === 'if not (and .Messages (eq (index .Messages 0).Role "system"))') {
      return messages[0]?.role !== "system";
    }
    if (action === "if and $.System $first") return system !== "" && first;
    throw new Error(`this test knows no '${action}'`);
  };
  const block = (m: Message | undefined, live: boolean): string => {
    let out = "";
    for (; at < tokens.length; at++) {
      const action = /^\{\{-? ?(.*?) ?\}\}$/s.exec(tokens[at]!)?.[1];
      if (action === undefined) out += live ? tokens[at] : "";
      else if (action === "end") return out;
      else if (action.startsWith("if ")) {
        at++;
        out += block(m, live && truth(action, m));
      } else if (action === "range .Messages") {
        const start = at + 1;
        for (const each of messages) {
          at = start;
          out += block(each, live);
        }
      } else if (action === ".Content") out += live ? m!.content : "";
      else if (action === "$.System") out += live ? system : "";
      else if (action === "$first := true") first = true;
      else if (action === "$first = false") first = live ? false : first;
      else if (/^"\{\{"$/.test(action)) out += live ? "{{" : "";
      else throw new Error(`this test knows no '${action}'`);
    }
    return out;
  };
  return block(undefined, true);
}

const CHATS: Message[][] = [
  [{ role: "user", content: "A question" }],
  [{ role: "user", content: "One" }, { role: "assistant", content: "1" }, { role: "user", content: "Two {{ x }}" }],
  [{ role: "system", content: "Rules" }, { role: "user", content: "One" }, { role: "assistant", content: "1" }, {
    role: "user",
    content: "Two",
  }],
];

describe("ollamaTemplate()", () => {
  const cases: [string, string][] = [["turns", TEMPLATE], ["a default system message", CHATML], [
    "a folded one",
    GEMMA,
  ]];
  test.each(cases)("renders %s as Jinja does, without the BOS that Ollama adds", (_name, template) => {
    const own = withTemplate(tokenizer, template), go = ollamaTemplate(own)!;
    for (const messages of CHATS) {
      const wish = own.chat(messages, { addPrompt: true }).replace(/^<s>/, "");
      expect(renderGo(go, messages)).toBe(wish);
    }
  });

  test("keeps a template that refuses system messages, for chats without one", () => {
    const own = withTemplate(tokenizer, LLAMA2);
    expect(renderGo(ollamaTemplate(own)!, CHATS[1]!)).toBe(own.chat(CHATS[1]!, { addPrompt: true }));
  });

  test("gives none where a template is more than pieces around messages, or asks for the date", () => {
    const counting = "{% for m in messages %}{{ loop.index }} {{ m['content'] }}\n{% endfor %}";
    const dated = TEMPLATE + "{{ strftime_now('%d %b %Y') }}";
    const shortened = "{% for m in messages %}<|turn|>{{ m['content'][:3] }}{% endfor %}";
    for (const t of [counting, dated, shortened]) expect(ollamaTemplate(withTemplate(tokenizer, t))).toBe(null);
    const bare: Tokenizer = tokenizerFromJson({ tokenizer: tinyTokenizer(), config }, "tiny");
    expect(ollamaTemplate(bare)).toBe(null);
  });
});

test("modelfileOf() names the file, the stops and the sampling defaults", () => {
  const meta = new Map<string, unknown>([["general.sampling.temp", Math.fround(0.6)], ["general.sampling.top_k", 20]]);
  const { text, template } = modelfileOf("tiny.Q8_0.gguf", tokenizer, meta);
  expect(template).toBe(true);
  expect(text).toMatch(/^FROM \.\/tiny\.Q8_0\.gguf\nTEMPLATE """/);
  expect(text.split("\n").slice(-4)).toEqual([
    'PARAMETER stop "</s>"',
    "PARAMETER temperature 0.6",
    "PARAMETER top_k 20",
    "",
  ]);
});
