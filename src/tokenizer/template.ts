/**
 * Chat templates: Jinja through @huggingface/jinja, with the variables and functions that transformers gives a template
 * (transformers/utils/chat_template_utils.py). The library's own `strftime_now` names months in the machine's language, so the
 * global names are set here.
 * @module
 */
import { Environment, Template } from "@huggingface/jinja";
import { ConfigError, DataError } from "../core/errors.ts";
import { markNumbers } from "./mark_numbers.ts";
import { PythonInterpreter } from "./python_interpreter.ts";
import type { ChatOptions, Message } from "./types.ts";

/** Texts of the special tokens a template may name; absent ones are undefined in the template, as in transformers. */
export type SpecialTexts = Readonly<Partial<Record<"bos_token" | "eos_token" | "pad_token" | "unk_token", string>>>;

/** A model's templates: the one it uses, and the one it prefers beside tools, where it has two. */
export interface TemplateSources {
  readonly main: string;
  readonly tools?: string;
}

/** Renders chats; templates are parsed at their first use. */
export class ChatRenderer {
  #parsed = new Map<string, Template>();

  readonly sources: TemplateSources | null;
  private readonly specials: SpecialTexts;
  private readonly source: string;

  constructor(sources: TemplateSources | null, specials: SpecialTexts, source: string) {
    this.sources = sources;
    this.specials = specials;
    this.source = source;
  }

  #parse(text: string): Template {
    let parsed = this.#parsed.get(text);
    if (!parsed) {
      try {
        // As Python reads files and jinja2 its source: every line end is a line feed. A byte-order mark is no text.
        parsed = new Template(text.replace(/^\ufeff/, "").replace(/\r\n?/g, "\n"));
      } catch (e) {
        throw new ConfigError(`Cannot read the chat template of '${this.source}': ${sentence(e)}`);
      }
      this.#parsed.set(text, parsed);
    }
    return parsed;
  }

  /** @throws {DataError} without a template, or when it refuses the messages; {ConfigError} when it does not parse */
  render(messages: readonly Message[], o: ChatOptions): string {
    if (!this.sources) {
      throw new DataError(
        `Cannot render a chat: '${this.source}' has no chat template; give one, or use the Alpaca template`,
      );
    }
    const tools = o.tools?.length ? o.tools : null;
    const template = this.#parse(tools && this.sources.tools || this.sources.main);
    const variables = { messages, tools, documents: null, add_generation_prompt: o.addPrompt };
    const env = new Environment(globals());
    const given = markNumbers({ ...this.specials, ...variables, ...o.variables });
    for (const [name, value] of Object.entries(given.value)) env.set(name, value);
    try {
      return given.restore(String(new PythonInterpreter(env).run(template.parsed).value));
    } catch (e) {
      throw new DataError(`Cannot render a chat with the template of '${this.source}': ${sentence(e)}`);
    }
  }
}

/** What every template may call. */
function globals(): Environment {
  const env = new Environment();
  for (const [name, value] of [["true", true], ["false", false], ["none", null]] as const) {
    env.set(name, value);
    env.set(name[0]!.toUpperCase() + name.slice(1), value);
  }
  env.set("range", range);
  env.set("strftime_now", (format: string) => formatDate(format, new Date()));
  env.set("raise_exception", (message: string) => {
    throw new Error(message);
  });
  return env;
}

/** Python's range. */
function range(start: number, stop?: number | null, step: number | null = 1): number[] {
  const [from, to] = typeof stop === "number" ? [start, stop] : [0, start], by = step ?? 1;
  if (by === 0) throw new RangeError("range() with step 0");
  return Array.from({ length: Math.max(0, Math.ceil((to - from) / by)) }, (_, i) => from + i * by);
}

const DAYS = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const MONTHS = ["January", "February", "March", "April", "May", "June", "July"]
  .concat(["August", "September", "October", "November", "December"]);

/** The parts of Python's strftime that templates use, in English. @throws {RangeError} for any other */
export function formatDate(format: string, date: Date): string {
  const two = (n: number) => String(n).padStart(2, "0");
  const parts: Record<string, string> = {
    Y: String(date.getFullYear()),
    y: two(date.getFullYear() % 100),
    m: two(date.getMonth() + 1),
    d: two(date.getDate()),
    B: MONTHS[date.getMonth()]!,
    b: MONTHS[date.getMonth()]!.slice(0, 3),
    A: DAYS[date.getDay()]!,
    a: DAYS[date.getDay()]!.slice(0, 3),
    H: two(date.getHours()),
    M: two(date.getMinutes()),
    S: two(date.getSeconds()),
    "-d": String(date.getDate()),
    "-m": String(date.getMonth() + 1),
    "%": "%",
  };
  return format.replace(/%(-?.)/g, (_, name: string) => {
    const part = parts[name];
    if (part === undefined) throw new RangeError(`strftime_now does not know %${name}`);
    return part;
  });
}

function sentence(e: unknown): string {
  return (e instanceof Error ? e.message : String(e)).replace(/\.$/, "");
}
