#!/usr/bin/env bun
/**
 * Fine-tune a language model and serve it, from TypeScript. As a library: `loadPretrained`, `trainModel`, `saveGguf`
 * and their types; run as a program: the command line (`unsloth train`, `chat`, `serve`, `export`, `inspect`, `doctor`).
 * This is the only place that names the backends.
 * @module
 */
import process from "node:process";
import { pathToFileURL } from "node:url";
import type { Candidate } from "./ffi/select.ts";
import { openBlockCodec } from "./wasm/blocks.ts";
import { candidate as wasm } from "./wasm/mod.ts";

/** Version of this package. */
export const VERSION = "0.1.0";

/** Backends in the order in which `auto` tries them. */
export const BACKENDS: readonly Candidate[] = [wasm];

/** How this program is called where it runs, for the commands it proposes. */
function programName(): string {
  const here = import.meta.url === new URL("mod.ts", pathToFileURL(`${process.cwd()}/`)).href;
  const { deno, bun } = process.versions as Record<string, string | undefined>;
  if (bun) return "bun x unsloth";
  if (deno) return `deno run -A ${here ? "mod.ts" : import.meta.url.replace(/^https:.*/, "jsr:@unsloth/unsloth")}`;
  return here ? "node mod.ts" : "unsloth";
}

if (import.meta.main) {
  const { runCli } = await import("./src/cli/mod.ts");
  process.exitCode = await runCli({
    argv: process.argv.slice(2),
    candidates: BACKENDS,
    openCodec: openBlockCodec,
    packageUrl: new URL("./", import.meta.url),
    version: VERSION,
    program: programName(),
  });
}
