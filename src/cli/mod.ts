/**
 * The command line: finds the command, reads its settings, runs it. The only folder that reads flags, prints, or decides
 * how the process ends.
 * @module
 */
import process from "node:process";
import type { Candidate } from "../../ffi/select.ts";
import type { BlockCodec } from "../core/block_codec.ts";
import { ConfigError } from "../core/errors.ts";
import { parseArgs } from "./args.ts";
import type { CliContext, RunCommand } from "./context.ts";
import { commandHelp, generalHelp } from "./help.ts";
import { nearest } from "./nearest.ts";
import type { Command } from "./option.ts";
import { COMMANDS } from "./presets.ts";
import { refuse } from "./refuse.ts";
import { resolve } from "./settings.ts";
import { processTerminal, type Terminal } from "./terminal.ts";

/** Each command's code is loaded when it is called, so that help and `doctor` start at once. */
const RUN: Readonly<Record<Command, () => Promise<RunCommand>>> = {
  train: async () => (await import("./commands/train.ts")).run,
  chat: async () => (await import("./commands/chat.ts")).run,
  serve: async () => (await import("./commands/serve.ts")).run,
  export: async () => (await import("./commands/export.ts")).run,
  inspect: async () => (await import("./commands/inspect.ts")).run,
  doctor: async () => (await import("./commands/doctor.ts")).run,
};

/** What the main module hands over. */
export interface CliOptions {
  /** Arguments without the runtime and the script. */
  readonly argv: readonly string[];
  readonly candidates: readonly Candidate[];
  /** Opens the encoder of GGUF's block formats. */
  readonly openCodec: () => Promise<BlockCodec>;
  readonly packageUrl: URL;
  readonly version: string;
  /** How the user calls us, for help and proposed commands. */
  readonly program: string;
  /** Default: the process's own. */
  readonly terminal?: Terminal;
  readonly signal?: AbortSignal;
}

/**
 * Runs one command.
 * @returns the exit status: 0 done, 1 failed, 2 not understood, 130 interrupted
 */
export async function runCli(o: CliOptions): Promise<number> {
  const terminal = o.terminal ?? processTerminal(), { program } = o;
  const [word, ...rest] = o.argv;
  if (word === undefined || word === "-h" || word === "--help" || word === "help") {
    terminal.out(generalHelp(program));
    return word === undefined ? 2 : 0;
  }
  if (word === "--version" || word === "-V") {
    terminal.out(o.version);
    return 0;
  }
  try {
    const command = findCommand(word), args = parseArgs(command, rest);
    if (args.help) {
      terminal.out(commandHelp(program, command, terminal.columns));
      return 0;
    }
    const settings = resolve(command, args);
    refuse(settings);
    const run = await RUN[command]();
    const { candidates, openCodec, packageUrl } = o, signal = o.signal ?? interruptSignal();
    const context: CliContext = { program, terminal, candidates, openCodec, packageUrl, signal };
    return await run(settings, context);
  } catch (e) {
    return report(e, terminal);
  }
}

function findCommand(word: string): Command {
  if (word in COMMANDS) return word as Command;
  const close = nearest(word, Object.keys(COMMANDS));
  const hint = close ? `did you mean ${close}?` : `there are ${Object.keys(COMMANDS).join(", ")}`;
  throw new ConfigError(`Unknown command ${word}: ${hint}`);
}

/** Errors of ours are sentences; anything else is a fault of this program and shows where it happened. */
function report(e: unknown, terminal: Terminal): number {
  terminal.status("");
  const error = e instanceof Error ? e : new Error(String(e));
  if (error.name === "AbortError") {
    terminal.note("Interrupted");
    return 130;
  }
  const ours = /^(Config|Format|Data|Memory|Backend|Shape|ContextLength|QueueFull)Error$/.test(error.name);
  const system = typeof (error as { code?: unknown }).code === "string";
  const text = ours || system ? error.message : error.stack ?? error.message;
  terminal.note(`${terminal.paint("red", "Error:")} ${text}`);
  return error.name === "ConfigError" ? 2 : 1;
}

/** The first SIGINT asks for a clean end, the second does not wait for it. */
function interruptSignal(): AbortSignal {
  const controller = new AbortController();
  const onInterrupt = () => {
    if (controller.signal.aborted) process.exit(130);
    controller.abort();
  };
  process.on("SIGINT", onInterrupt);
  process.on("SIGTERM", onInterrupt);
  return controller.signal;
}
