/**
 * A model whose answers are written beforehand, for tests of all that lies around a model. Its tokens are bytes, so
 * that most characters span several; after the byte 0x1e it says the script's answer to the text before, then EOS.
 * It keeps a cache as a real one does, and throws when it is asked to attend to a row that was never written, or with
 * other rotary frequencies.
 */
import type { Runner, Step } from "../../src/infer/queue.ts";
import type { Message, Tokenizer } from "../../src/tokenizer/types.ts";

export const EOS = 256, VOCAB = 257, ASK = "\x1e";
const utf8 = new TextEncoder();

export interface Scripted extends Runner {
  /** Tokens of every step so far, and steps that are to fail. */
  readonly steps: Step[];
  failAt: number;
  closed: boolean;
  /** Awaited before each step. */
  pause: () => Promise<void> | void;
}

/** @param script the answer to a prompt */
export function scriptedRunner(
  script: (prompt: string) => string,
  o: { slots?: number; contextLength?: number; stepTokens?: number; ropeTurn?: number } = {},
): Scripted {
  const { slots = 2, contextLength = 512, stepTokens = 64, ropeTurn = Infinity } = o;
  const cache = Array.from({ length: slots }, () => new Array<number>());
  /** Whether a row was written with the frequencies of long sequences. */
  const long = Array.from({ length: slots }, () => new Array<boolean>());
  const runner: Scripted = {
    slots,
    contextLength,
    stepTokens,
    ropeTurn,
    steps: [],
    failAt: -1,
    closed: false,
    pause: () => {},
    async forward(step) {
      await runner.pause();
      runner.steps.push(step);
      if (runner.steps.length - 1 === runner.failAt) throw new Error("Cannot run matmul: the device is gone");
      const { ids, pos, seq, rows } = step;
      if (ids.length > stepTokens) throw new Error(`Cannot run ${ids.length} tokens: a step takes ${stepTokens}`);
      const logits = new Float32Array(rows.length * VOCAB);
      ids.forEach((id, n) => {
        const rowsOf = cache[seq[n]];
        if (pos[n] >= contextLength || rowsOf.length < pos[n]) {
          throw new Error(`Cannot attend: row ${pos[n]} has a gap`);
        }
        rowsOf.splice(pos[n], Infinity, id);
        long[seq[n]].splice(pos[n], Infinity, step.length! > ropeTurn);
        if (long[seq[n]].some((x) => x !== step.length! > ropeTurn)) {
          throw new Error("Cannot attend: rows have other frequencies");
        }
        const row = rows.indexOf(n);
        if (row >= 0) logits.set(nextLogits(rowsOf, script), row * VOCAB);
      });
      return logits;
    },
    share(from, to, tokens) {
      if (cache[from].length < tokens) {
        throw new Error(`Cannot share ${tokens} rows: slot ${from} has ${cache[from].length}`);
      }
      cache[to] = cache[from].slice(0, tokens);
      long[to] = long[from].slice(0, tokens);
    },
    close: () => void (runner.closed = true),
  };
  return runner;
}

/** 0 everywhere but 4 for the scripted byte and 2 for the one after it, so that sampling has something to choose. */
function nextLogits(context: readonly number[], script: (prompt: string) => string): Float32Array {
  const at = context.lastIndexOf(0x1e);
  const prompt = new TextDecoder().decode(Uint8Array.from(context.slice(0, Math.max(0, at))));
  const answer = [...utf8.encode(script(prompt)), EOS];
  const next = answer[context.length - at - 1] ?? EOS;
  const logits = new Float32Array(VOCAB);
  logits[next] = 4;
  logits[(next + 1) % 256] = 2;
  return logits;
}

/** Bytes as tokens; the chat template writes `role:content` lines, and functions and calls only with `tools`. */
export function byteTokenizer(o: { tools?: boolean } = {}): Tokenizer {
  return {
    size: VOCAB,
    bos: null,
    eos: [EOS],
    pad: null,
    addBos: false,
    template: "{{ messages }}",
    source: "scripted",
    encode: (text) => Int32Array.from(utf8.encode(text)),
    decode: (ids) => new TextDecoder().decode(Uint8Array.from(Array.from(ids).filter((i) => i < 256))),
    piece: (id) => id === EOS ? "<eos>" : `<0x${id.toString(16).toUpperCase().padStart(2, "0")}>`,
    chat: (messages: readonly Message[], { addPrompt, tools }) => {
      const head = o.tools && tools?.length ? JSON.stringify(tools) + "\n" : "";
      const calls = (m: Message) => o.tools && m.tool_calls ? JSON.stringify(m.tool_calls) : "";
      const lines = messages.map((m) => `${m.role}:${m.content ?? ""}${calls(m)}`);
      return head + lines.join("\n") + (addPrompt ? ASK : "");
    },
  };
}

/** Ids of `prompt` with the question mark of this model behind it. */
export const ask = (prompt: string): Int32Array => Int32Array.from(utf8.encode(prompt + ASK));
