/** Rendering and masks: what is trained, where BOS and EOS stand, and that nothing is masked by guess. */
import { existsSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import { DataError } from "../../src/core/errors.ts";
import { alpacaPrompt, type Example, openDataset, prepare } from "../../src/data/mod.ts";
import { maskText } from "../../src/data/mask.ts";
import { chooseRendering, renderExample, type Rendering } from "../../src/data/render.ts";
import { loadTokenizer, type Message, type Tokenizer, withTemplate } from "../../src/tokenizer/mod.ts";
import { cannotUnpack, unpack } from "../golden/tokenizer_cases.ts";
import { BOS, EOS, IM_END, shown, tinyTokenizer } from "./tiny.ts";

const SHARED = fileURLToPath(new URL("../../../shared/", import.meta.url));
const tiny = tinyTokenizer();
const user = (content: string): Message => ({ role: "user", content });
const assistant = (content: string): Message => ({ role: "assistant", content });
const chat = (...messages: Message[]): Example => ({ kind: "chat", messages });

type Renderable = Parameters<typeof renderExample>[0];
function render(t: Tokenizer, e: Example, how: Rendering, trainOn: "answers" | "last" | "all" = "answers") {
  return maskText(t, renderExample(e as Renderable, how, t, trainOn));
}

describe("the Alpaca template", () => {
  // tatsu-lab/stanford_alpaca, train.py, PROMPT_DICT, written out.
  const withInput =
    "Below is an instruction that describes a task, paired with an input that provides further context. " +
    "Write a response that appropriately completes the request.\n\n" +
    "### Instruction:\nDo\n\n### Input:\nthis\n\n### Response:";
  const without = "Below is an instruction that describes a task. " +
    "Write a response that appropriately completes the request.\n\n### Instruction:\nDo\n\n### Response:";
  test("is Stanford's to the letter, with and without input", () => {
    expect([alpacaPrompt("Do", "this"), alpacaPrompt("Do", "")]).toEqual([withInput, without]);
  });
  test("trains the answer and an EOS after it, once", () => {
    const e: Example = { kind: "instruction", instruction: "Do", input: "", output: "Done" };
    expect(shown(tiny, render(tiny, e, "alpaca"))).toBe(`${without}[Done</s>]`);
    expect(shown(tiny, render(tiny, { ...e, output: "Done</s>" }, "alpaca"))).toBe(`${without}[Done</s>]`);
    // LLaMA-Factory's alpaca template: the opening once, an end after each answer.
    const two = { ...e, history: [["Do", "A"]] as [string, string][] };
    const rest = "\n\n### Instruction:\nDo\n\n### Response:";
    expect(shown(tiny, render(tiny, two, "alpaca"))).toBe(`${without}[A</s>]${rest}[Done</s>]`);
    expect(shown(tiny, render(tiny, two, "alpaca", "last"))).toBe(`${without}A</s>${rest}[Done</s>]`);
  });
  test("trains the prompt too when asked, but never the first token", () => {
    const row = render(tiny, { kind: "instruction", instruction: "Do", input: "", output: "D" }, "alpaca", "all");
    expect(shown(tiny, row)).toBe(`B[${without.slice(1)}D</s>]`);
  });
});

describe("BOS", () => {
  const adds = tinyTokenizer({ "tokenizer.ggml.add_bos_token": true });
  const withBos = tinyTokenizer({
    "tokenizer.ggml.add_bos_token": true,
    "tokenizer.chat_template": "{{ bos_token }}{% for m in messages %}{{ m.content }}|{% endfor %}",
  });
  const count = (ids: Int32Array) => ids.filter((id) => id === BOS).length;
  test("stands in front once where the tokenizer adds it, in plain text and in chats, and is not trained", () => {
    for (
      const row of [
        render(adds, { kind: "text", text: "ab" }, "plain"),
        render(adds, chat(user("q"), assistant("a")), "chat"),
      ]
    ) {
      expect([row.ids[0], count(row.ids), row.weights[0]]).toEqual([BOS, 1, 0]);
    }
  });
  test("stands once where the template writes it", () => {
    expect(count(render(withBos, chat(user("q"), assistant("a")), "chat", "all").ids)).toBe(1);
  });
  test("is absent where the tokenizer does not add it", () => {
    expect(count(render(tiny, { kind: "text", text: "ab" }, "plain").ids)).toBe(0);
  });
});

describe("a chat", () => {
  const two = chat(user("q"), assistant("a"), user("r"), assistant("b"));
  const text = "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n";
  const more = "<|im_start|>user\nr<|im_end|>\n<|im_start|>assistant\n";
  test("trains all answers with their ends, or the last, or everything", () => {
    expect(shown(tiny, render(tiny, two, "chat"))).toBe(`${text}[a<|im_end|>\n]${more}[b<|im_end|>\n]`);
    expect(shown(tiny, render(tiny, two, "chat", "last"))).toBe(`${text}a<|im_end|>\n${more}[b<|im_end|>\n]`);
    expect(shown(tiny, render(tiny, two, "chat", "all"))).toBe(
      `<|im_start|>[${(text + "a<|im_end|>\n" + more).slice(12)}b<|im_end|>\n]`,
    );
  });
  test("does not train turns of weight 0, unless every token is trained", () => {
    const weighed = chat(user("q"), { ...assistant("a"), weight: 0 }, user("r"), assistant("b"));
    expect(shown(tiny, render(tiny, weighed, "chat"))).toBe(`${text}a<|im_end|>\n${more}[b<|im_end|>\n]`);
    const none = chat(user("q"), { ...assistant("a"), weight: 0 });
    expect(shown(tiny, render(tiny, none, "chat"))).toBe(`${text}a<|im_end|>\n`);
  });
  test("gets an EOS where the template writes none, and none after a user's turn", () => {
    const bare = withTemplate(tiny, "{% for m in messages %}{{ m.role[0] }}:{{ m.content }}\n{% endfor %}");
    const prompting = withTemplate(tiny, bare.template + "{% if add_generation_prompt %}a:{% endif %}");
    expect(shown(prompting, render(prompting, chat(user("q"), assistant("x")), "chat"))).toBe("u:q\na:[x\n</s>]");
    const open = render(prompting, chat(user("q"), assistant("x"), user("r")), "chat");
    expect(shown(prompting, open)).toBe("u:q\na:[x\n]u:r\n");
  });
  test("whose earlier turns lose their thoughts is found by content", () => {
    const thoughtful = withTemplate(
      tiny,
      "{% for m in messages %}<|im_start|>{{ m.role }}\n" +
        "{% if m.role == 'assistant' and loop.last %}<think></think>{% endif %}{{ m.content | trim }}<|im_end|>\n{% endfor %}" +
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    );
    const row = render(thoughtful, chat(user("q"), assistant(" a "), user("r"), assistant("b")), "chat");
    expect(shown(thoughtful, row)).toBe(`${text}[a<|im_end|>]\n${more}[<think></think>b<|im_end|>\n]`);
  });
  test("whose turns cannot be found is refused, and can be trained whole", () => {
    const backwards = withTemplate(tiny, "{% for m in messages | reverse %}{{ m.content | upper }}{% endfor %}");
    expect(() => render(backwards, two, "chat")).toThrow(/Cannot find turn 2 of a chat/);
    expect(shown(backwards, render(backwards, two, "chat", "all"))).toBe("B[RAQ</s>]");
  });
  test("with an answer that begins inside a token trains that token", () => {
    const merging = tinyTokenizer({ "tokenizer.ggml.pre": "qwen2" }, ["Ċ Ċ"]);
    const row = render(merging, chat(user("q"), assistant("\nab")), "chat");
    expect(row.split).toBe(1);
    expect(shown(merging, row)).toBe(`${text.slice(0, -1)}[\n\nab<|im_end|>\n]`);
  });
  test("writes functions as text where the template knows none, and leaves them to one that does", () => {
    const call = { type: "function", function: { name: "f", arguments: { x: 1 } } };
    const tools = [{ type: "function", function: { name: "f", description: "d" } }];
    const turns = [
      user("q"),
      { role: "assistant", content: "", tool_calls: [call] },
      { role: "tool", content: "7" },
      assistant("b"),
    ];
    const out = shown(tiny, render(tiny, { kind: "chat", messages: turns, tools }, "chat"));
    expect(out).toContain('<tools>\n{"type": "function", "function": {"name": "f", "description": "d"}}\n</tools>');
    expect(out).toContain('assistant\n[<tool_call>\n{"name": "f", "arguments": {"x": 1}}\n</tool_call><|im_end|>\n]');
    expect(out).toContain("user\n<tool_response>\n7\n</tool_response><|im_end|>");
    const knowing = withTemplate(tiny, "{{ tools | tojson }}{% for m in messages %}{{ m | tojson }}{% endfor %}");
    const text = shown(knowing, render(knowing, { kind: "chat", messages: turns, tools }, "chat", "all"));
    expect(text).not.toContain("<tool_call>");
    expect(text).toContain('"arguments": {"x": 1}');
  });
});

describe("the rendering", () => {
  const none = tinyTokenizer({ "tokenizer.chat_template": undefined });
  test("is the chat template for instructions where there is one, else Alpaca's; completions and texts stay as they are", () => {
    const auto = (kind: Example["kind"], t = tiny) => chooseRendering(kind, "auto", t);
    expect([auto("instruction"), auto("instruction", none), auto("chat"), auto("completion"), auto("text")]).toEqual(
      ["chat", "alpaca", "chat", "plain", "plain"],
    );
  });
  test("that cannot be is refused with the way out", () => {
    expect(() => chooseRendering("chat", "auto", none)).toThrow("has no chat template; give one");
    expect(() => chooseRendering("chat", "alpaca", tiny)).toThrow("has no turns");
    expect(() => chooseRendering("text", "chat", tiny)).toThrow(DataError);
  });
  test("of a completion trains what follows the prompt", () => {
    expect(shown(tiny, render(tiny, { kind: "completion", prompt: "p", completion: "c" }, "plain"))).toBe("p[c</s>]");
  });
});

const why = existsSync(SHARED) ? cannotUnpack() : "shared is absent";
describe.skipIf(why)(`against goldens${why ? ` (${why})` : ""}`, () => {
  test("alpaca rows in SmolLM2's template have the ids and the labels transformers gives", async () => {
    const path = `${SHARED}golden-real/`, bytes = readFileSync(`${path}golden.safetensors`);
    const length = Number(bytes.readBigUInt64LE(0)), header = JSON.parse(bytes.subarray(8, 8 + length).toString());
    const column = (name: string) => {
      const [from, to] = header[name].data_offsets;
      return Array.from(
        new BigInt64Array(new Uint8Array(bytes.subarray(8 + length + from, 8 + length + to)).buffer),
        Number,
      );
    };
    const ids = column("ids"), labels = column("labels"), mask = column("attention_mask"), width = header.ids.shape[2];
    const tokenizer = loadTokenizer(`${SHARED}models/SmolLM2-135M-Instruct.Q4_1.gguf`);
    const rows = ids.length / width;
    const d = await openDataset(`${SHARED}data/alpaca_en_demo.json`, { limit: rows });
    const prepared = await prepare(d, tokenizer, { maxLength: width });
    expect(prepared.rows.length).toBe(rows);
    for (let r = 0; r < rows; r++) {
      const { ids: got, weights } = prepared.rows.at(r), at = r * width;
      const n = mask.slice(at, at + width).reduce((a, b) => a + b);
      expect(Array.from(got)).toEqual(ids.slice(at, at + n));
      expect(Array.from(weights, (w, i) => w ? got[i] : -100)).toEqual(labels.slice(at, at + n));
    }
  });

  test("real templates of the families mark every answer and its end, and nothing else", () => {
    const files = unpack(`${SHARED}vocab`);
    const template = (name: string) => readFileSync(`${SHARED}chat-templates/${name}.jinja`, "utf8");
    try {
      for (
        const [vocab, name] of [
          ...[["llama-bpe", "meta-llama-Llama-3.1-8B-Instruct"], ["qwen2", "Qwen-Qwen3-0.6B"]],
          ...[["qwen2", "Qwen-Qwen2.5-7B-Instruct"], ["phi-3", "microsoft-Phi-3.5-mini-instruct"]],
        ] as [string, string][]
      ) {
        const t = withTemplate(loadTokenizer(files.find(`ggml-vocab-${vocab}.gguf`)!), template(name));
        const turns = [user("What is 2+2?"), assistant("Four, I think."), user("Sure?"), assistant("Yes: 4")];
        const trained = shown(t, render(t, chat(...turns), "chat")).match(/\[[^\]]*\]/g)!;
        expect(trained.length, name).toBe(2);
        expect(trained[0], name).toMatch(/^\[Four, I think\.<\|(eot_id|im_end|end)\|>\n?\]$/);
        // Qwen3 writes empty thoughts before the last answer.
        expect(trained[1], name).toMatch(
          /^\[(<think>\n\n<\/think>\n\n)?Yes: 4<\|(eot_id|im_end|end)\|>\n?(<\|endoftext\|>)?\]$/,
        );
      }
    } finally {
      files.close();
    }
  });
});

test("the tokenizer of these tests has the ids they name", () => {
  expect([tiny.piece(BOS), tiny.piece(EOS), tiny.piece(IM_END)]).toEqual(["<s>", "</s>", "<|im_end|>"]);
});
