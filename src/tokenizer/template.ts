/**
 * Chat templates: Jinja through @huggingface/jinja, with the variables and functions that transformers gives a template.
 * @module
 */
import { Template } from "@huggingface/jinja";
import { ConfigError, DataError } from "../core/errors.ts";
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

  constructor(
    readonly sources: TemplateSources | null,
    private readonly specials: SpecialTexts,
    private readonly source: string,
  ) {}

  #parse(text: string): Template {
    let parsed = this.#parsed.get(text);
    if (!parsed) {
      try {
        parsed = new Template(text);
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
    try {
      return template.render({
        ...this.specials,
        ...o.variables,
        messages,
        tools,
        documents: null,
        add_generation_prompt: o.addPrompt,
      });
    } catch (e) {
      throw new DataError(`Cannot render a chat with the template of '${this.source}': ${sentence(e)}`);
    }
  }
}

function sentence(e: unknown): string {
  return (e instanceof Error ? e.message : String(e)).replace(/\.$/, "");
}
