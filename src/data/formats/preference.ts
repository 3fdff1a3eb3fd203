/** A chosen and a rejected answer to the same prompt: texts, messages or ShareGPT turns. @module */
import { DataError } from "../../core/errors.ts";
import type { Message } from "../../tokenizer/types.ts";
import { type Format, kindOf, listOf, optionalText, systemOf, toolsOf, withSystem } from "./format.ts";
import { readTurns } from "./turns.ts";

export const preference: Format = {
  name: "preference",
  columns: ["chosen", "rejected", "prompt", "conversations", "instruction", "input", "system", "tools"],
  detect: (keys) => keys.has("chosen") && keys.has("rejected"),
  read(record) {
    const tools = toolsOf(record);
    const chosen = answerOf(record.chosen, "chosen"), rejected = answerOf(record.rejected, "rejected");
    const prompt = promptOf(record);
    // Without a prompt of its own, both answers are whole conversations that begin alike.
    const shared = prompt ? 0 : sharedLength(chosen, rejected);
    if (!prompt && shared === 0) {
      throw new DataError("it has no prompt, and 'chosen' and 'rejected' do not begin alike");
    }
    const whole = prompt ?? chosen.slice(0, shared);
    return {
      kind: "preference",
      prompt: whole,
      chosen: withoutPrompt(chosen, whole),
      rejected: withoutPrompt(rejected, whole),
      ...(tools ? { tools } : {}),
    };
  },
};

function answerOf(value: unknown, column: string): Message[] {
  if (typeof value === "string") return [{ role: "assistant", content: value }];
  const list = Array.isArray(value) ? value : [value];
  if (list.length === 0 || list.some((v) => typeof v !== "object" || v === null)) {
    throw new DataError(`its '${column}' is ${kindOf(value)} and should be a text, a message or a list of messages`);
  }
  return readTurns(list);
}

function promptOf(record: Readonly<Record<string, unknown>>): Message[] | undefined {
  const system = systemOf(record);
  if (record.conversations !== undefined) return withSystem(system, readTurns(listOf(record, "conversations")));
  if (Array.isArray(record.prompt)) return withSystem(system, readTurns(listOf(record, "prompt")));
  const asked = optionalText(record, "prompt") ?? optionalText(record, "instruction");
  if (asked === undefined) return undefined;
  const input = "instruction" in record ? optionalText(record, "input") : undefined;
  return withSystem(system, [{ role: "user", content: input === undefined ? asked : `${asked}\n${input}` }]);
}

const same = (a: Message, b: Message) => JSON.stringify(a) === JSON.stringify(b);

/** Messages both begin with. */
function sharedLength(a: Message[], b: Message[]): number {
  let n = 0;
  while (n < Math.min(a.length, b.length) - 1 && same(a[n]!, b[n]!)) n++;
  return n;
}

/** The answer alone where it repeats the prompt, as several sets have it. @throws when nothing of the assistant's is left */
function withoutPrompt(answer: Message[], prompt: Message[]): Message[] {
  const repeats = prompt.length < answer.length && prompt.every((m, i) => same(m, answer[i]!));
  const left = repeats ? answer.slice(prompt.length) : answer;
  if (!left.some((m) => m.role === "assistant")) throw new DataError("an answer has no message of the assistant's");
  return left;
}
