/** Runs the command line inside the test, with its output gathered. */
import { runCli } from "../../src/cli/mod.ts";
import type { Terminal } from "../../src/cli/terminal.ts";
import type { Candidate } from "../../ffi/select.ts";
import { openBlockCodec } from "../../wasm/blocks.ts";
import { candidate } from "../../wasm/mod.ts";

/** What a command printed and how it ended. */
export interface Outcome {
  readonly status: number;
  /** Lines of the result. */
  readonly out: readonly string[];
  /** Notices and errors. */
  readonly notes: readonly string[];
  readonly statusLines: readonly string[];
}

/** Runs one command on one thread of wasm. `signal` stands for Ctrl-C. */
export async function cli(
  argv: readonly string[],
  o: { signal?: AbortSignal; tty?: boolean; onLine?: (line: string) => void } = {},
): Promise<Outcome> {
  const out: string[] = [], notes: string[] = [], statusLines: string[] = [];
  let open = "";
  const terminal: Terminal = {
    tty: o.tty ?? false,
    columns: 100,
    out: (line) => {
      out.push(line);
      o.onLine?.(line);
    },
    write: (text) => {
      const lines = (open + text).split("\n");
      open = lines.pop()!;
      out.push(...lines);
    },
    note: (line) => notes.push(line),
    status: (line) => statusLines.push(line),
    paint: (_, text) => text,
  };
  const wasm: Candidate = { name: "wasm", open: (o) => candidate.open({ ...o, threads: 1 }) };
  const status = await runCli({
    argv,
    candidates: [wasm],
    openCodec: openBlockCodec,
    packageUrl: new URL("../../", import.meta.url),
    version: "0",
    program: "unsloth",
    terminal,
    signal: o.signal ?? new AbortController().signal,
  });
  return { status, out, notes, statusLines };
}
