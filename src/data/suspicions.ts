/**
 * What is probably not meant though it can be trained: counted while rows are made and told before the first step, since
 * nobody sees it in the first example.
 * @module
 */
import type { Message, Tokenizer } from "../tokenizer/mod.ts";
import { asChat } from "./render.ts";
import type { Example } from "./types.ts";

/** Roles that chat templates know. */
const ROLES: ReadonlySet<string> = new Set(
  ["system", "developer", "user", "assistant", "tool", "function", "ipython", "environment"],
);

/** Counts of suspicious records. */
export class Suspicions {
  #empty = 0;
  #control = 0;
  #lost = 0;
  #glued = 0;
  #odd = new Map<string, number>();
  #unwritten = new Map<string, number>();
  #changed = new Map<string, number>();
  #spelled: string[] = [];
  #probed = false;

  readonly #tokenizer: Tokenizer;
  readonly #ends: readonly string[];

  constructor(tokenizer: Tokenizer) {
    this.#tokenizer = tokenizer;
    const ids = [tokenizer.bos, tokenizer.pad, ...tokenizer.eos].filter((id) => id !== null);
    this.#ends = [...new Set(ids.map((id) => tokenizer.piece(id)))].filter((piece) => piece !== "");
  }

  /** Looks at a record; `rendered` is what its chat template made of it. */
  look(example: Exclude<Example, { kind: "preference" }>, rendered: string | null): void {
    const { asked, answered } = textsOf(example), all = [...asked, ...answered];
    if (answered.some((text) => text.trim() === "")) this.#empty++;
    // A text may bring its own marks of turns: it is trained as it is.
    if (example.kind !== "text" && all.some((text) => this.#ends.some((end) => text.includes(end)))) this.#control++;
    if (all.some((text) => text.includes("\ufffd") || !isWellFormed(text))) this.#lost++;
    if (example.kind === "chat") {
      const odd = new Set(example.messages.map((m) => m.role).filter((role) => !ROLES.has(role)));
      for (const role of odd) this.#odd.set(role, (this.#odd.get(role) ?? 0) + 1);
      const unwritten = new Set(example.messages.flatMap(moreIn));
      for (const key of unwritten) this.#unwritten.set(key, (this.#unwritten.get(key) ?? 0) + 1);
    }
    if (rendered !== null) {
      const changed = new Set(asChat(example).messages.filter((m) => !isWritten(m, rendered)).map((m) => m.role));
      for (const role of changed) this.#changed.set(role, (this.#changed.get(role) ?? 0) + 1);
    }
    if (example.kind === "completion" && rendered === null && isGlued(example)) this.#glued++;
    if (rendered !== null && !this.#probed) this.#probe(rendered, all);
  }

  /** Marks such as <|im_start|> that the template writes and the vocabulary has not. */
  #probe(rendered: string, texts: readonly string[]): void {
    this.#probed = true;
    const marks = new Set(rendered.match(/<\|[^|<>\s]+\|>/g) ?? []);
    this.#spelled = [...marks].filter((m) =>
      !texts.some((text) => text.includes(m)) && this.#tokenizer.encode(m).length > 1
    );
  }

  /** What was found, as sentences. */
  notes(): string[] {
    const warn = (n: number, what: string) =>
      n ? [`[WARNING] ${n} ${n === 1 ? "record has" : "records have"} ${what}`] : [];
    const template = this.#tokenizer.template ?? "";
    const unwritten = [...this.#unwritten].filter(([key]) => !template.includes(key));
    const spelled = this.#spelled.length
      ? [
        `[WARNING] The chat template writes ${this.#spelled.join(", ")}, which this tokenizer has no token for: ` +
        "they are spelled out in several tokens",
      ]
      : [];
    return [
      ...spelled,
      ...warn(this.#empty, "an empty answer, which teaches the model to say nothing"),
      ...warn(this.#control, `${this.#ends.join(" or ")} in the text, where it acts as a control token`),
      ...warn(this.#lost, "characters that were lost before they came here (U+FFFD or half of a pair)"),
      ...[...this.#odd].flatMap(([role, n]) =>
        warn(n, `a turn of the role '${role}', which chat templates seldom know`)
      ),
      ...unwritten.flatMap(([key, n]) =>
        warn(n, `'${key}' in turns, which the chat template does not write: the model never sees it`)
      ),
      ...[...this.#changed].flatMap(([role, n]) =>
        warn(n, `a turn of the role '${role}' whose text the chat template leaves out or changes`)
      ),
      ...warn(this.#glued, "a completion that follows its prompt without a space or a line end"),
    ];
  }
}

/** The texts of a record. Calls of functions are no empty answers; turns of weight 0 are not trained. */
function textsOf(example: Exclude<Example, { kind: "preference" }>): { asked: string[]; answered: string[] } {
  switch (example.kind) {
    case "chat": {
      const isAnswer = (m: Message) => m.role === "assistant" && m.weight !== 0 && !m.tool_calls?.length;
      const texts = (list: readonly Message[]) => list.map((m) => m.content ?? "");
      return {
        asked: texts(example.messages.filter((m) => !isAnswer(m))),
        answered: texts(example.messages.filter(isAnswer)),
      };
    }
    case "instruction":
      return { asked: [example.instruction, example.input, example.system ?? ""], answered: [example.output] };
    case "completion":
      return { asked: [example.prompt], answered: [example.completion] };
    case "text":
      return { asked: [example.text], answered: [] };
  }
}

/** Whether a turn's text stands in the chat; what functions give back is often written otherwise. */
function isWritten({ role, content }: Message, rendered: string): boolean {
  return role === "tool" || rendered.includes((content ?? "").trim());
}

/** What a turn says besides what every template writes; the names of functions that gave a result are seldom written. */
function moreIn({ role, content: _, tool_calls: __, tool_call_id: ___, weight: ____, ...rest }: Message): string[] {
  return Object.keys(rest).filter((key) => rest[key] !== "" && !(key === "name" && role === "tool"));
}

/** Scripts that put no space between words. */
const UNSPACED = "(?![\\p{Script=Han}\\p{Script=Hiragana}\\p{Script=Katakana}\\p{Script=Thai}])";
const WORD_ENDS = new RegExp(`(${UNSPACED}[\\p{L}\\p{N}]|[.?!])$`, "u");
const WORD_BEGINS = new RegExp(`^${UNSPACED}[\\p{L}\\p{N}]`, "u");

/** Whether two words meet. */
function isGlued({ prompt, completion }: { prompt: string; completion: string }): boolean {
  return WORD_ENDS.test(prompt) && WORD_BEGINS.test(completion);
}

/** Whether every surrogate has its other half. */
function isWellFormed(text: string): boolean {
  return !/[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/.test(text);
}
