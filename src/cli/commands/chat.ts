/** `chat`: a conversation in the terminal, or one question with --prompt. @module */
import process from "node:process";
import { createInterface } from "node:readline/promises";
import { ConfigError } from "../../core/errors.ts";
import { ContextLengthError } from "../../infer/errors.ts";
import { PLAIN } from "../../infer/sample.ts";
import type { Engine, SampleOptions } from "../../infer/types.ts";
import type { Message } from "../../tokenizer/types.ts";
import type { Config } from "../config.ts";
import type { CliContext } from "../context.ts";
import { openSettingsEngine } from "../engine.ts";
import type { Settings } from "../settings.ts";
import type { Terminal } from "../terminal.ts";

/** Runs the command. */
export async function run(settings: Settings, context: CliContext): Promise<number> {
  const { config } = settings, { terminal, signal } = context;
  const engine = await openSettingsEngine(settings, context, { slots: 1, waiting: 0 });
  try {
    const system: Message[] = config.system === null ? [] : [{ role: "system", content: config.system }];
    if (system.length) checkSystem(engine, system);
    if (config.prompt !== null) {
      await answer(engine, [...system, { role: "user", content: config.prompt }], config, terminal, signal);
      return 0;
    }
    await converse(engine, system, config, context);
    return 0;
  } finally {
    await engine.close();
  }
}

/** @throws {ConfigError} when the template leaves system messages out */
function checkSystem(engine: Engine, system: readonly Message[]): void {
  const asked: Message = { role: "user", content: "?" };
  const [without, wanted] = [[asked], [...system, asked]].map((messages) => engine.prompt(messages));
  if (without.length !== wanted.length || without.some((id, i) => id !== wanted[i])) return;
  throw new ConfigError(`Cannot use --system: the chat template of ${engine.model} does not write system messages`);
}

async function converse(
  engine: Engine,
  system: readonly Message[],
  config: Config,
  context: CliContext,
): Promise<void> {
  const { terminal, signal } = context;
  let messages: Message[] = [...system];
  terminal.note(`${engine.model}; /clear starts anew, an empty line or Ctrl-D ends`);
  for await (const line of questions(terminal, signal)) {
    if (line === "/clear") {
      messages = [...system];
      continue;
    }
    const asked: Message[] = [...messages, { role: "user", content: line }];
    try {
      const text = await answer(engine, asked, config, terminal, signal);
      messages = [...asked, { role: "assistant", content: text }];
    } catch (e) {
      if (!(e instanceof ContextLengthError)) throw e;
      terminal.note(`${e.message}; /clear starts anew`);
    }
  }
}

/** Lines typed, or piped in. */
async function* questions(terminal: Terminal, signal: AbortSignal): AsyncGenerator<string> {
  const screen = process.stdin.isTTY === true;
  const input = createInterface({ input: process.stdin, ...(screen ? { output: process.stdout } : {}) });
  const stop = () => input.close();
  signal.addEventListener("abort", stop, { once: true });
  input.on("SIGINT", stop);
  try {
    if (screen) {
      input.setPrompt(terminal.paint("bold", "> "));
      input.prompt();
    }
    for await (const line of input) {
      if (line.trim() === "") return;
      yield line.trim();
      if (screen) input.prompt();
    }
  } finally {
    input.close();
    signal.removeEventListener("abort", stop);
  }
}

/** Prints the answer as it comes. */
async function answer(
  engine: Engine,
  messages: readonly Message[],
  config: Config,
  terminal: Terminal,
  signal: AbortSignal,
): Promise<string> {
  const ids = engine.prompt(messages);
  const maxTokens = Math.max(1, Math.min(config.max_tokens, engine.contextLength - ids.length));
  let text = "", cut = false;
  for await (
    const piece of engine.generate({ ids, maxTokens, stop: [], sample: sampling(config), logprobs: null, signal })
  ) {
    const shown = text === "" ? piece.text.trimStart() : piece.text;
    terminal.write(shown);
    text += shown;
    cut ||= piece.finish === "length";
  }
  terminal.write("\n");
  if (cut) terminal.note(`The answer was cut after ${maxTokens} tokens`);
  return text;
}

function sampling(c: Config): SampleOptions {
  return {
    ...PLAIN,
    temperature: c.temperature,
    topK: c.top_k,
    topP: c.top_p,
    minP: c.min_p,
    repetitionPenalty: c.repetition_penalty,
    seed: c.seed,
  };
}
