/** A chat as ids, the same for training and for serving. @module */
import { ConfigError } from "../core/errors.ts";
import { HuggingFaceTokenizer } from "./hugging_face.ts";
import { writeTools } from "./tools.ts";
import type { ChatOptions, Message, Tokenizer } from "./types.ts";

/**
 * Renders a chat and encodes it; functions are written as text where the template does not know them. BOS stands at most once: templates that write it are encoded as they are; where the tokenizer
 * adds it and the template does not write it, it is put in front.
 * @throws {DataError} when there is no template or it refuses the messages
 */
export function encodeChat(tokenizer: Tokenizer, messages: readonly Message[], o: ChatOptions): Int32Array {
  const written = writeTools(tokenizer, messages, o.tools);
  return encodeRendered(tokenizer, tokenizer.chat(written.messages, { ...o, tools: written.tools }));
}

/** Ids of a text that may or may not begin with BOS, with BOS at most once. */
export function encodeRendered(tokenizer: Tokenizer, text: string): Int32Array {
  const ids = tokenizer.encode(text);
  if (!tokenizer.addBos || ids[0] === tokenizer.bos) return ids;
  const out = new Int32Array(ids.length + 1);
  out[0] = tokenizer.bos!;
  out.set(ids, 1);
  return out;
}

/** ChatML, for models that have no template of their own. Source: the template of Qwen2.5 without its system prompt. */
export const CHATML: string = "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + " +
  "message['content'] + '<|im_end|>' + '\n' }}{% endfor %}" +
  "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

/**
 * The tokenizer with another chat template: "chatml" or Jinja source.
 * @throws {ConfigError} for a tokenizer that is not one of this room
 */
export function withTemplate(tokenizer: Tokenizer, template: string): Tokenizer {
  if (!(tokenizer instanceof HuggingFaceTokenizer)) {
    throw new ConfigError(
      `Cannot change the chat template of '${tokenizer.source}': it was not loaded by loadTokenizer`,
    );
  }
  return tokenizer.withTemplate(template === "chatml" ? CHATML : template);
}
