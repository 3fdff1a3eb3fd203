/** Answers to a few prompts of the data, before and after training, from the model as it lies on the device. @module */
import type { Row, Rows } from "../data/mod.ts";
import { createEngine } from "../infer/engine.ts";
import { DecoderRunner } from "../infer/runner.ts";
import { PLAIN } from "../infer/sample.ts";
import type { Model } from "../models/mod.ts";
import type { Tokenizer } from "../tokenizer/mod.ts";
import type { Terminal } from "./terminal.ts";

/** Tokens of a sample at most. */
const LONGEST = 64;

/** Longest prompt that is answered: longer ones would make the cache larger than the run. */
const PROMPT = 512;

/** A prompt of the data and the answer it has there. */
export interface SamplePrompt {
  readonly ids: Int32Array;
  readonly text: string;
  readonly wanted: string;
}

/** An answer; `ended` says whether the model stopped by itself. */
export interface Sample {
  readonly text: string;
  readonly ended: boolean;
}

/** The first `n` rows that begin with something untrained, cut before their first trained token. */
export function samplePrompts(rows: Rows, tokenizer: Tokenizer, n: number): SamplePrompt[] {
  const out: SamplePrompt[] = [];
  for (let i = 0; i < rows.length && out.length < n; i++) {
    const row = rows.at(i), cut = promptLength(row);
    if (cut < 2 || cut > PROMPT) continue;
    const end = row.weights.indexOf(0, cut), wanted = row.ids.subarray(cut, end < 0 ? row.ids.length : end);
    const ids = row.ids.slice(0, cut);
    out.push({ ids, text: tokenizer.decode(ids), wanted: tokenizer.decode(wanted, { skipSpecial: true }) });
  }
  return out;
}

function promptLength(row: Row): number {
  const first = row.weights.indexOf(1);
  // A row that is trained from its start has no prompt of its own: its first tokens serve.
  return first > 1 ? first : Math.min(16, row.ids.length >> 1);
}

/** The likeliest answer to each prompt. */
export async function answerSamples(
  model: Model,
  tokenizer: Tokenizer,
  prompts: readonly SamplePrompt[],
  signal: AbortSignal,
): Promise<Sample[]> {
  if (prompts.length === 0) return [];
  const longest = Math.max(...prompts.map((p) => p.ids.length));
  const contextLength = Math.min(model.config.maxPos, longest + LONGEST);
  const runner = new DecoderRunner(model, { slots: 1, contextLength, stepTokens: 128 });
  const engine = createEngine({ model: "samples", tokenizer, runner, eos: model.config.eos, waiting: prompts.length });
  const out: Sample[] = [];
  try {
    for (const { ids } of prompts) {
      let text = "", ended = false;
      const maxTokens = Math.max(1, Math.min(LONGEST, contextLength - ids.length));
      const sample = { ...PLAIN, temperature: 0 };
      for await (const piece of engine.generate({ ids, maxTokens, stop: [], sample, logprobs: null, signal })) {
        text += piece.text;
        ended ||= piece.finish === "stop";
      }
      out.push({ text, ended });
    }
  } finally {
    await engine.close();
  }
  return out;
}

/** Prints each prompt with its two answers. */
export function showSamples(
  prompts: readonly SamplePrompt[],
  before: readonly Sample[],
  after: readonly Sample[],
  terminal: Terminal,
): void {
  const told = ({ text, ended }: Sample) => text.trim() + (ended ? "" : terminal.paint("dim", " … (does not end)"));
  prompts.forEach((p, i) => {
    if (!before[i] || !after[i]) return;
    terminal.out("");
    terminal.out(terminal.paint("bold", p.text.trimEnd()));
    terminal.out(`${terminal.paint("yellow", "before")}  ${indent(told(before[i]))}`);
    terminal.out(`${terminal.paint("green", "after")}   ${indent(told(after[i]))}`);
  });
}

function indent(text: string): string {
  return text.replaceAll("\n", "\n        ");
}
