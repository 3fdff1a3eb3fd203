/** Runs mod.ts as a program of its own, on the runtime that runs the tests. */
import { type ChildProcess, spawn } from "node:child_process";
import process from "node:process";
import { fileURLToPath } from "node:url";

const MOD = fileURLToPath(new URL("../../mod.ts", import.meta.url));
const RUNTIME = "Deno" in globalThis ? ["run", "-A", "--quiet"] : [];

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
  const child = spawn(process.execPath, [...RUNTIME, MOD, ...argv], { env: { ...process.env, ...env }, cwd });
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
