/**
 * From tokens to text as it grows: characters are given out whole (a token may end inside one), and text that may be
 * the beginning of a stop string is held back until it is known not to be.
 * @module
 */
import type { Tokenizer } from "../tokenizer/types.ts";
import type { TokenLogprob } from "./types.ts";

/** How many tokens of the prompt the first token is decoded after: enough for a tokenizer that drops leading spaces. */
const CONTEXT = 5;

/** Text with the tokens it came from. */
export interface Written {
  text: string;
  ids: number[];
  logprobs: TokenLogprob[];
}

/**
 * Decodes a growing list of tokens. Each token is decoded together with those before it, because a tokenizer may write
 * a token otherwise at the start of a text; while the text ends in U+FFFD it may end inside a character and is held.
 */
export class Detokenizer {
  #ids: number[];
  /** The window decoded is ids[from..]; ids[from..read] are written already. */
  #from = 0;
  #read: number;

  readonly #tokenizer: Pick<Tokenizer, "decode">;

  constructor(tokenizer: Pick<Tokenizer, "decode">, prompt: ArrayLike<number>) {
    this.#tokenizer = tokenizer;
    this.#ids = Array.from(
      { length: Math.min(CONTEXT, prompt.length) },
      (_, i, n = Math.min(CONTEXT, prompt.length)) => prompt[prompt.length - n + i],
    );
    this.#read = this.#ids.length;
  }

  /** The text that `id` completes; empty while a character is unfinished. */
  push(id: number): string {
    this.#ids.push(id);
    const text = this.#unwritten();
    if (text === "" || text.endsWith("\ufffd")) return "";
    this.#from = this.#read;
    this.#read = this.#ids.length;
    return text;
  }

  /** What is still held, unfinished characters as U+FFFD. */
  flush(): string {
    const text = this.#unwritten();
    this.#from = this.#read = this.#ids.length;
    return text;
  }

  #unwritten(): string {
    const before = this.#tokenizer.decode(this.#ids.slice(this.#from, this.#read), { skipSpecial: true });
    return this.#tokenizer.decode(this.#ids.slice(this.#from), { skipSpecial: true }).slice(before.length);
  }
}

/**
 * Cuts a growing text before the stop string that is complete first (of two that end together, the longer), so that
 * the answer does not depend on how the text was cut into tokens.
 */
export class StopFilter {
  #held = "";
  readonly #stops: readonly string[];

  /** @param stops none empty */
  constructor(stops: readonly string[]) {
    this.#stops = stops;
  }

  /**
   * The text that is safe to give out; `stopped` when a stop string was found: then nothing more may come, and `after`
   * is what followed it.
   */
  push(text: string): { text: string; stopped: boolean; after: string } {
    const all = this.#held + text;
    const found = this.#stops.filter((s) => all.includes(s)).map((s) => ({ at: all.indexOf(s), n: s.length }));
    if (found.length > 0) {
      const first = found.reduce((a, b) => b.at + b.n < a.at + a.n || (b.at + b.n === a.at + a.n && b.n > a.n) ? b : a);
      return { text: all.slice(0, first.at), stopped: true, after: all.slice(first.at + first.n) };
    }
    const safe = all.length - Math.max(0, ...this.#stops.map((s) => overlap(all, s)));
    this.#held = all.slice(safe);
    return { text: all.slice(0, safe), stopped: false, after: "" };
  }

  /** What was held back; the answer ended before it became a stop string. */
  flush(): string {
    const text = this.#held;
    this.#held = "";
    return text;
  }
}

/** Characters at the end of `text` that begin `stop`. */
function overlap(text: string, stop: string): number {
  for (let n = Math.min(text.length, stop.length - 1); n > 0; n--) {
    if (text.endsWith(stop.slice(0, n))) return n;
  }
  return 0;
}

/** The two together, with each token handed out beside the text it belongs to. */
export class AnswerText {
  #detokenizer: Detokenizer;
  #filter: StopFilter;
  /** Tokens not yet handed out; `start` is the length of the text before them. */
  #tokens: { id: number; start: number; logprob: TokenLogprob | null }[] = [];
  /** Characters decoded, and characters handed out. */
  #decoded = 0;
  #written = 0;

  constructor(tokenizer: Pick<Tokenizer, "decode">, prompt: ArrayLike<number>, stops: readonly string[]) {
    this.#detokenizer = new Detokenizer(tokenizer, prompt);
    this.#filter = new StopFilter(stops);
  }

  /** What may be shown after this token; `stopped` when the answer is over. */
  push(id: number, logprob: TokenLogprob | null): Written & { stopped: boolean } {
    this.#tokens.push({ id, start: this.#decoded, logprob });
    return this.#write(this.#detokenizer.push(id));
  }

  /** The rest, when the answer ended for another reason than a stop string; that may still be found in it. */
  finish(): Written & { stopped: boolean } {
    const last = this.#write(this.#detokenizer.flush());
    if (last.stopped) return last;
    const text = last.text + this.#filter.flush();
    const rest = this.#tokens.splice(0);
    return {
      text,
      stopped: false,
      ids: [...last.ids, ...rest.map((t) => t.id)],
      logprobs: [...last.logprobs, ...rest.flatMap((t) => t.logprob ?? [])],
    };
  }

  #write(decoded: string): Written & { stopped: boolean } {
    this.#decoded += decoded.length;
    const { text, stopped } = this.#filter.push(decoded);
    this.#written += text.length;
    // A token goes out with its first character, or, being without text of its own, when all before it has gone out.
    const shown = (t: { start: number }) => t.start < this.#written;
    const count = this.#tokens.findIndex((t) => !shown(t));
    const out = this.#tokens.splice(0, count < 0 ? this.#tokens.length : count);
    if (stopped) this.#tokens = [];
    return { text, stopped, ids: out.map((t) => t.id), logprobs: out.flatMap((t) => t.logprob ?? []) };
  }
}
