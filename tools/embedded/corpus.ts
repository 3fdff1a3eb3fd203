/**
 * Prints documents of the corpus, one a line as JSON strings: `deno run tools/embedded/corpus.ts [documents] [seed]`.
 * The same numbers give the same text on every runtime.
 * @module
 */
import process from "node:process";
import { Random } from "../../src/core/philox.ts";
import { document } from "./stories.ts";

/** Endless documents from a seed. */
export function* documents(seed: number): Generator<string> {
  const random = new Random(seed, 1);
  while (true) yield document(random);
}

if (import.meta.main) {
  const [count, seed] = process.argv.slice(2).map(Number);
  let n = 0;
  for (const text of documents(seed || 1)) {
    if (n++ >= (count || 10)) break;
    console.log(JSON.stringify(text));
  }
}
