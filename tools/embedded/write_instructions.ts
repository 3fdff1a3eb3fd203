/**
 * Writes models/embedded/instructions.jsonl and held_out.jsonl: `deno run -A tools/embedded/write_instructions.ts`.
 * A test holds the files and the generator together.
 * @module
 */
import { writeFileSync } from "node:fs";
import { instructions } from "./instructions.ts";

/** Seed of the committed files. */
export const SEED = 1;

/** Both files by name. */
export function instructionFiles(): Record<string, string> {
  const { train, heldOut } = instructions(SEED),
    lines = (rows: unknown[]) => rows.map((r) => JSON.stringify(r) + "\n").join("");
  return { "instructions.jsonl": lines(train), "held_out.jsonl": lines(heldOut) };
}

if (import.meta.main) {
  for (const [name, text] of Object.entries(instructionFiles())) {
    writeFileSync(new URL(`../../models/embedded/${name}`, import.meta.url), text);
  }
}
