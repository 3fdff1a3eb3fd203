/**
 * An Ollama Modelfile for an exported GGUF: the chat template in Go's form, stops, sampling defaults. The model's Jinja
 * template is asked to render a few chats, the pieces around the messages are read off, and the result is held against
 * further chats; a template that is more than pieces is left out, and said so.
 * Source: Ollama docs/modelfile.md and template/template.go (`.Messages`, `.Role`, `.Content`, `.System`, `.Prompt`).
 * @module
 */
import { ConfigError, DataError } from "../core/errors.ts";
import type { Message, Tokenizer } from "../tokenizer/mod.ts";

/** What stands before and after the messages of each role. */
interface Pieces {
  /** Before a chat that has no system message: a default one, or nothing. */
  readonly preface: string;
  readonly system: readonly [string, string];
  readonly user: readonly [string, string];
  readonly assistant: readonly [string, string];
  /** What makes the model answer. */
  readonly prompt: string;
  /** The system message stands inside the first user's turn (gemma). */
  readonly folded: boolean;
}

const user = (content: string): Message => ({ role: "user", content });
const assistant = (content: string): Message => ({ role: "assistant", content });
const system = (content: string): Message => ({ role: "system", content });

/** Texts no template has, to find the messages by. */
const [U1, A1, U2, S1] = ["QxUserOneQx", "QxAnswerQx", "QxUserTwoQx", "QxSystemQx"];

/** `text` cut at the marks, in order; null when one is missing. */
function cut(text: string, ...marks: string[]): string[] | null {
  const parts: string[] = [];
  let rest = text;
  for (const mark of marks) {
    const at = rest.indexOf(mark);
    if (at < 0) return null;
    parts.push(rest.slice(0, at));
    rest = rest.slice(at + mark.length);
  }
  return [...parts, rest];
}

const without = (text: string, start: string): string | null =>
  text.startsWith(start) ? text.slice(start.length) : null;

function commonEnd(a: string, b: string): string {
  let n = 0;
  while (n < a.length && n < b.length && a[a.length - 1 - n] === b[b.length - 1 - n]) n++;
  return a.slice(a.length - n);
}

type Render = (messages: Message[], addPrompt: boolean) => string;

/** Reads the pieces off some renderings; null when they do not fit together. */
function readPieces(render: Render): Pieces | null {
  const turns = cut(render([user(U1), assistant(A1), user(U2)], true), U1, A1, U2);
  const open = cut(render([user(U1)], false), U1);
  if (!turns || !open) return null;
  const [head, afterUser, afterAnswer, tail] = turns as [string, string, string, string];
  const userEnd = open[1]!;
  const userStart = commonEnd(head, afterAnswer);
  const answerStart = without(afterUser, userEnd), prompt = without(tail, userEnd);
  if (answerStart === null || prompt === null) return null;
  const pieces = {
    preface: head.slice(0, head.length - userStart.length),
    user: [userStart, userEnd] as const,
    assistant: [answerStart, afterAnswer.slice(0, afterAnswer.length - userStart.length)] as const,
    prompt,
  };
  const told = renderOrNull(render, [system(S1), user(U1)]);
  const split = told === null ? null : cut(told, S1, U1);
  if (!split) return { ...pieces, system: ["", ""], folded: false };
  const [before, between] = split as [string, string, string];
  if (between.endsWith(userStart) && userStart !== "") {
    return { ...pieces, system: [before, between.slice(0, between.length - userStart.length)], folded: false };
  }
  const inside = without(before, userStart);
  return inside === null ? null : { ...pieces, system: [inside, between], folded: true };
}

/** null where the template refuses the messages, as some do a system message. */
function renderOrNull(render: Render, messages: Message[]): string | null {
  try {
    return render(messages, true);
  } catch (e) {
    if (e instanceof DataError) return null;
    throw e;
  }
}

/** null for a template that cannot render even plain chats. */
function piecesOrNull(render: Render): Pieces | null {
  try {
    return readPieces(render);
  } catch (e) {
    if (e instanceof DataError || e instanceof ConfigError) return null;
    throw e;
  }
}

/** What Ollama makes of the pieces. */
function renderPieces(p: Pieces, messages: readonly Message[]): string {
  const told = messages[0]?.role === "system" ? messages[0].content! : null;
  let out = told === null ? p.preface : p.folded ? "" : p.system[0] + told + p.system[1];
  let first = true;
  for (const m of messages) {
    if (m.role === "user") {
      const inside = p.folded && told !== null && first ? p.system[0] + told + p.system[1] : "";
      out += p.user[0] + inside + m.content + p.user[1];
      first = false;
    } else if (m.role === "assistant") out += p.assistant[0] + m.content + p.assistant[1];
  }
  return out + p.prompt;
}

/** Chats the pieces must render as the template does. */
const CHATS: readonly (readonly Message[])[] = [
  [user("Hi there.")],
  [user("One?"), assistant("1."), user("Two?"), assistant("2."), user("Three?")],
  [system("Be brief."), user("Hi there.")],
  [system("Be brief."), user("One?"), assistant("1."), user("Two?")],
];

/** Text for a Go template: what would open an action is written as a string of one. */
const literal = (text: string): string => text.replaceAll("{{", '{{ "{{" }}');

/** The pieces as a Go template over `.Messages`. */
function goTemplate(p: Pieces): string {
  const [u, a, s] = [p.user, p.assistant, p.system].map((pair) => pair.map(literal));
  const hasSystem = '(and .Messages (eq (index .Messages 0).Role "system"))';
  const preface = p.preface ? `{{- if not ${hasSystem} }}${literal(p.preface)}{{ end }}` : "";
  const told = p.folded
    ? `{{ if and $.System $first }}${s![0]}{{ $.System }}${s![1]}{{ end }}{{ $first = false }}`
    : "";
  const systemTurn = p.folded || !(s![0] || s![1])
    ? ""
    : `{{- if eq .Role "system" }}${s![0]}{{ .Content }}${s![1]}{{ end }}`;
  return `${p.folded ? "{{- $first := true }}" : ""}${preface}{{- range .Messages }}${systemTurn}` +
    `{{- if eq .Role "user" }}${u![0]}${told}{{ .Content }}${u![1]}{{ end }}` +
    `{{- if eq .Role "assistant" }}${a![0]}{{ .Content }}${a![1]}{{ end }}{{- end }}${literal(p.prompt)}`;
}

/**
 * The model's chat template in Go's form, without the BOS that Ollama puts there itself.
 * @returns null when the model has no template, or one that is more than pieces around messages
 */
export function ollamaTemplate(tokenizer: Tokenizer): string | null {
  // A template that asks for the date would have today's written into the file for good.
  if (!tokenizer.template || tokenizer.template.includes("strftime_now")) return null;
  const bos = tokenizer.addBos && tokenizer.bos !== null ? tokenizer.piece(tokenizer.bos) : "";
  const render: Render = (messages, addPrompt) => {
    const text = tokenizer.chat(messages, { addPrompt });
    return bos && text.startsWith(bos) ? text.slice(bos.length) : text;
  };
  const pieces = piecesOrNull(render);
  if (!pieces) return null;
  for (const messages of CHATS) {
    const wish = renderOrNull(render, [...messages]);
    if (wish !== null && wish !== renderPieces(pieces, messages)) return null;
  }
  return goTemplate(pieces);
}

/** Ollama's names of sampling defaults, by those of GGUF metadata. */
const PARAMETERS: Readonly<Record<string, string>> = {
  "general.sampling.temp": "temperature",
  "general.sampling.top_k": "top_k",
  "general.sampling.top_p": "top_p",
  "general.sampling.min_p": "min_p",
  "general.sampling.penalty_repeat": "repeat_penalty",
};

/** A Modelfile's text, and whether its template could be written. */
export interface Modelfile {
  readonly text: string;
  readonly template: boolean;
}

/**
 * Writes the Modelfile of a GGUF.
 * @param file the GGUF's name, in the Modelfile's folder
 * @param meta the GGUF's metadata, for sampling defaults
 */
export function modelfileOf(file: string, tokenizer: Tokenizer, meta: ReadonlyMap<string, unknown>): Modelfile {
  const template = ollamaTemplate(tokenizer);
  const lines = [`FROM ./${file}`];
  if (template !== null) lines.push(`TEMPLATE """${template}"""`);
  for (const id of tokenizer.eos) lines.push(`PARAMETER stop ${JSON.stringify(tokenizer.piece(id))}`);
  for (const [key, name] of Object.entries(PARAMETERS)) {
    const value = meta.get(key);
    if (typeof value === "number") lines.push(`PARAMETER ${name} ${Number(value.toPrecision(7))}`);
  }
  return { text: lines.join("\n") + "\n", template: template !== null };
}
