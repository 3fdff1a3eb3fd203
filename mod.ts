#!/usr/bin/env bun
/**
 * Fine-tune a language model and serve it, from TypeScript. As a library: `loadPretrained`, `trainModel`, `saveGguf`
 * and their types; run as a program: the command line (`unsloth train`, `chat`, `serve`, `export`, `inspect`, `doctor`).
 * This is the only place that names the backends.
 * @module
 */
import process from "node:process";
import type { Candidate } from "./ffi/select.ts";
import { candidate as wasm } from "./wasm/mod.ts";

/** Version of this package. */
export const VERSION = "0.1.0";

/** Backends in the order in which `auto` tries them. */
export const BACKENDS: readonly Candidate[] = [wasm];

if (import.meta.main) {
  const { runCli } = await import("./src/cli/mod.ts");
  process.exitCode = await runCli({
    argv: process.argv.slice(2),
    candidates: BACKENDS,
    packageUrl: new URL("./", import.meta.url),
    version: VERSION,
  });
}
