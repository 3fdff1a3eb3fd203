/**
 * Examples to text with the parts to train on marked: the model's chat template, the Alpaca template, or text as it is. Where a
 * template's output does not show where an answer begins or ends, the example is refused rather than masked by guess.
 * @module
 */
import { DataError } from "../core/errors.ts";
import { type Message, type Tokenizer, writeTools } from "../tokenizer/mod.ts";
import type { Example, PrepareOptions } from "./types.ts";

/** A text and the parts of it to train on, as [from, to) in UTF-16 units, in order. */
export interface Marked {
  text: string;
  spans: [number, number][];
  /** The text is a chat: its template writes BOS and the ends of turns. */
  chat: boolean;
}

/** How a record is rendered; `PrepareOptions.template` says which. */
export type Rendering = "chat" | "alpaca" | "plain";

/** What "auto" comes to for a kind of example. @throws {DataError} when the wanted template cannot be used for it */
export function chooseRendering(
  kind: Example["kind"],
  wanted: NonNullable<PrepareOptions["template"]>,
  tokenizer: Tokenizer,
): Rendering {
  const needsChat = kind === "chat" || kind === "preference";
  const refuse = (why: string) => new DataError(`Cannot render ${kind} records: ${why}`);
  if (wanted === "alpaca") {
    if (kind === "instruction" || kind === "completion") return "alpaca";
    throw refuse("the Alpaca template has no turns; use the chat template");
  }
  if (wanted === "chat" && kind === "text") throw refuse("a text has no turns; leave the template to 'auto'");
  if (kind === "text" || (kind === "completion" && wanted === "auto")) return "plain";
  if (tokenizer.template !== null) return "chat";
  if (kind === "instruction" && wanted === "auto") return "alpaca";
  throw refuse(
    `'${tokenizer.source}' has no chat template; give one (--chat_template chatml, or a Jinja file)` +
      (needsChat ? "" : ", or use --chat_template alpaca"),
  );
}

/** The prompt of Stanford Alpaca, to the letter (tatsu-lab/stanford_alpaca, train.py, PROMPT_DICT); the answer follows at once. */
export function alpacaPrompt(instruction: string, input: string): string {
  return input !== ""
    ? "Below is an instruction that describes a task, paired with an input that provides further context. " +
      "Write a response that appropriately completes the request.\n\n" +
      `### Instruction:\n${instruction}\n\n### Input:\n${input}\n\n### Response:`
    : "Below is an instruction that describes a task. " +
      "Write a response that appropriately completes the request.\n\n" +
      `### Instruction:\n${instruction}\n\n### Response:`;
}

/** Renders one example. @throws {DataError} when it cannot be rendered in this way */
export function renderExample(
  example: Exclude<Example, { kind: "preference" }>,
  rendering: Rendering,
  tokenizer: Tokenizer,
  trainOn: NonNullable<PrepareOptions["trainOn"]>,
): Marked {
  if (rendering === "chat") {
    const { messages, tools } = asChat(example);
    return renderChat(tokenizer, messages, tools, trainOn);
  }
  if (example.kind === "text") return { text: example.text, spans: [[0, example.text.length]], chat: false };
  if (example.kind === "chat") throw new DataError("Cannot render chat records without a chat template");
  if (example.kind === "instruction") return alpacaTurns(example, tokenizer, trainOn);
  const prompt = rendering === "alpaca" ? alpacaPrompt(example.prompt, "") : example.prompt,
    answer = example.completion;
  const text = prompt + answer;
  return { text, spans: [[trainOn === "all" ? 0 : prompt.length, text.length]], chat: false };
}

/**
 * An instruction in the Alpaca template after its history: the opening sentence once, and each earlier answer ended, as
 * LLaMA-Factory's alpaca template has it and `chat --chat_template alpaca` goes on.
 */
function alpacaTurns(
  example: Extract<Example, { kind: "instruction" }>,
  tokenizer: Tokenizer,
  trainOn: NonNullable<PrepareOptions["trainOn"]>,
): Marked {
  if (example.system !== undefined) {
    throw new DataError("Cannot render a system prompt with the Alpaca template; use the chat template");
  }
  const { history = [], instruction, input, output } = example, spans: [number, number][] = [];
  const turns = [
    ...history.map(([asked, answered]) => [asked, "", answered] as const),
    [instruction, input, output] as const,
  ];
  let text = "";
  turns.forEach(([asked, more, answered], i) => {
    const prompt = alpacaPrompt(asked, more), last = i === turns.length - 1;
    text += i === 0 ? prompt : prompt.slice(prompt.indexOf("### Instruction:"));
    const from = text.length;
    text += last ? answered : answered + tokenizer.piece(tokenizer.eos[0]!);
    if (trainOn === "answers" || last) spans.push([from, text.length]);
    if (!last) text += "\n\n";
  });
  return { text, spans: trainOn === "all" ? [[0, text.length]] : spans, chat: false };
}

/** An example as a chat. An instruction and its input are one message, joined by a line end, as LLaMA-Factory joins them. */
export function asChat(example: Exclude<Example, { kind: "preference" }>): { messages: Message[]; tools?: unknown[] } {
  const user = (content: string): Message => ({ role: "user", content });
  const assistant = (content: string): Message => ({ role: "assistant", content });
  switch (example.kind) {
    case "chat":
      return example;
    case "completion":
      return { messages: [user(example.prompt), assistant(example.completion)] };
    case "instruction":
      return {
        messages: [
          ...(example.system === undefined ? [] : [{ role: "system", content: example.system }]),
          ...(example.history ?? []).flatMap(([asked, answered]) => [user(asked), assistant(answered)]),
          user(example.input === "" ? example.instruction : `${example.instruction}\n${example.input}`),
          assistant(example.output),
        ],
      };
    case "text":
      throw new DataError("Cannot render a text as a chat: it has no turns");
  }
}

/** Renders a chat and finds the assistant's turns in it. @throws {DataError} when they cannot be found with certainty */
export function renderChat(
  tokenizer: Tokenizer,
  messages: readonly Message[],
  tools: readonly unknown[] | undefined,
  trainOn: NonNullable<PrepareOptions["trainOn"]>,
): Marked {
  const written = writeTools(tokenizer, messages, tools);
  const chat = (list: readonly Message[], addPrompt: boolean) =>
    tokenizer.chat(list, { addPrompt, tools: written.tools });
  const turns = written.messages, text = chat(turns, false);
  if (trainOn === "all") return { text, spans: [[0, text.length]], chat: true };
  const answers = turns.map((m, i) => m.role === "assistant" ? i : -1).filter((i) => i >= 0);
  if (answers.length === 0) throw new DataError("Cannot train on a chat without an assistant's turn");
  const wanted = (trainOn === "last" ? answers.slice(-1) : answers).filter((i) => turns[i]!.weight !== 0);
  const spans = wanted.map((i) =>
    spanByPrefix(chat, turns, i, text) ?? spanByContent(chat, turns, i, text, tokenizer) ??
      spanByCall(chat, turns, i, text, tokenizer)
  );
  spans.forEach((span, n) => {
    if (span && (n === 0 || spans[n - 1]![1] <= span[0])) return;
    throw new DataError(
      `Cannot find turn ${wanted[n]! + 1} of a chat in what the template of '${tokenizer.source}' makes of it; ` +
        "train on every token (--train_on_inputs), or give another chat template",
    );
  });
  return { text, spans: spans as [number, number][], chat: true };
}

type Chat = (messages: readonly Message[], addPrompt: boolean) => string;

/** A turn is what the chat up to it has beyond the chat before it with the words that open an answer. */
function spanByPrefix(chat: Chat, turns: readonly Message[], i: number, text: string): [number, number] | null {
  const last = i === turns.length - 1;
  let before: string, upTo: string;
  try {
    before = chat(turns.slice(0, i), true);
    upTo = last ? text : chat(turns.slice(0, i + 1), false);
  } catch (e) {
    // Some templates refuse a chat that stops here; then the other way is tried.
    if (e instanceof DataError) return null;
    throw e;
  }
  if (!upTo.startsWith(before) || !text.startsWith(upTo)) return null;
  return [before.length, upTo.length];
}

/** Unlikely in any text, and nothing a template would trim or escape. */
const MARK = "\u2983answer\u2984";

/**
 * For templates that render a turn otherwise once more follows (by dropping its thoughts, say): the turn's content
 * and its calls are exchanged for a mark, and what stands around the mark must stand around them. The end that follows is trained too.
 */
function spanByContent(
  chat: Chat,
  turns: readonly Message[],
  i: number,
  text: string,
  tokenizer: Tokenizer,
): [number, number] | null {
  let marked: string;
  try {
    // Calls go with the content: both stand between what opens a turn and what ends it.
    const { tool_calls: _, ...plain } = turns[i]!;
    marked = chat(turns.map((m, n) => n === i ? { ...plain, content: MARK } : m), false);
  } catch (e) {
    if (e instanceof DataError) return null;
    throw e;
  }
  const at = marked.indexOf(MARK), tail = marked.slice(at + MARK.length);
  if (at < 0 || tail.includes(MARK) || !text.startsWith(marked.slice(0, at)) || !text.endsWith(tail)) return null;
  let to = text.length - tail.length;
  if (to < at) return null;
  const end = tokenizer.eos.map((id) => tokenizer.piece(id)).find((p) => p !== "" && tail.startsWith(p));
  if (end) to += end.length;
  return [at, to];
}

/**
 * For templates that move the list of functions as the chat goes on and want results after calls (Mistral's): where the turn
 * begins shows a chat that goes on with a mark instead of the calls; where the calls end, the same chat with calls of another
 * name. The end of the text that follows them is trained too, and must stand before anything of the next turn.
 */
function spanByCall(
  chat: Chat,
  turns: readonly Message[],
  i: number,
  text: string,
  tokenizer: Tokenizer,
): [number, number] | null {
  const calls = turns[i]!.tool_calls as { function: { name: string } }[] | undefined;
  if (!calls?.length || i === turns.length - 1) return null;
  const changed = (n: number, change: Partial<Message>) => turns.map((m, at) => at === n ? { ...m, ...change } : m);
  const named = calls.map((c) => ({ ...c, function: { ...c.function, name: MARK } }));
  let cut: string, other: string, next: string;
  try {
    cut = chat([...turns.slice(0, i), { role: "assistant", content: MARK }, { role: "user", content: MARK }], false);
    other = chat(changed(i, { tool_calls: named }), false);
    next = chat(changed(i + 1, { content: MARK }), false);
  } catch (e) {
    if (e instanceof DataError) return null;
    throw e;
  }
  const from = cut.indexOf(MARK);
  let same = 0;
  while (same < other.length && other.at(-1 - same) === text.at(-1 - same)) same++;
  const called = text.length - same;
  if (from < 0 || !text.startsWith(cut.slice(0, from)) || called <= from) return null;
  const ends = tokenizer.eos.map((id) => tokenizer.piece(id)).filter((p) => p !== "");
  const stops = ends.map((p) => text.indexOf(p, called) + p.length).filter((at) => at > called);
  const to = Math.min(...stops), begins = next.indexOf(MARK);
  return stops.length && begins >= to && next.slice(0, to) === text.slice(0, to) ? [from, to] : null;
}
