/** Runs mod.ts as a program of its own, on the runtime that runs the tests. */
import { type ChildProcess, spawn } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { instructions } from "../../tools/embedded/instructions.ts";
import { tinyModel } from "../train/tiny_model.ts";

const MOD = fileURLToPath(new URL("../../mod.ts", import.meta.url));
/** The program before its arguments. */
export const PROGRAM = [process.execPath, ...("Deno" in globalThis ? ["run", "-A", "--quiet"] : []), MOD];

/** A tiny model with twenty instructions beside it, in a folder for runs. */
export async function tinyTask() {
  const tiny = await tinyModel(), data = join(tiny.dir, "data.jsonl");
  writeFileSync(data, instructions(1).train.slice(0, 20).map((r) => JSON.stringify(r)).join("\n"));
  return {
    ...{ ...tiny, data },
    /** The command line of a short run into the folder `name`; later flags replace earlier ones. */
    train: (name: string, ...more: string[]) => [
      ...["train", "--model_name", tiny.model, "--dataset", data, "--output_dir", join(tiny.dir, name), "--samples"],
      ...["0", "--r", "4", "--num_threads", "1", "--max_steps", "60", "--report_to", "none", ...more],
    ],
    /** What that run has trained. */
    adapter: (name: string) => readFileSync(join(tiny.dir, name, "adapter_model.safetensors")),
  };
}

/** A program under way. */
export interface Program {
  readonly child: ChildProcess;
  /** What it has printed so far, notices included. */
  output(): string;
  /** Resolves when it has printed this. @throws when it ends first */
  prints(text: string | RegExp): Promise<void>;
  kill(signal: "SIGINT" | "SIGKILL"): void;
  /** Exit status; null when it was killed. */
  readonly ended: Promise<number | null>;
}

/** Starts it, in the folder `cwd` (default: this one). */
export function start(argv: readonly string[], env: Record<string, string> = {}, cwd?: string): Program {
  const child = spawn(PROGRAM[0], [...PROGRAM.slice(1), ...argv], { env: { ...process.env, ...env }, cwd });
  let text = "";
  const listeners = new Set<() => void>();
  for (const stream of [child.stdout, child.stderr]) {
    stream!.setEncoding("utf8").on("data", (part: string) => {
      text += part;
      for (const hear of listeners) hear();
    });
  }
  const ended = new Promise<number | null>((done) => child.on("close", (status) => done(status)));
  const prints = (wanted: string | RegExp) =>
    new Promise<void>((done, fail) => {
      const hear = () => {
        if (typeof wanted === "string" ? text.includes(wanted) : wanted.test(text)) done();
      };
      listeners.add(hear);
      ended.then(() => fail(new Error(`It ended without printing ${wanted}:\n${text}`)));
      hear();
    });
  // Deno's child.kill() makes the status null whatever the program then does; the process's own kill does not.
  const kill = (signal: "SIGINT" | "SIGKILL") => process.kill(child.pid!, signal);
  return { child, output: () => text, prints, kill, ended };
}
