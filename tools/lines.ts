/**
 * Lines of code by folder, the median, and the ten longest files: `deno run -A tools/lines.ts`. What is generated, data, or
 * another program's is not counted.
 */
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";

const CODE = /\.(ts|mjs|c|h|cpp|cu|cuh|inc|metal|rs|py|sh)$/;
/** Written by a program, and so no one's to read. */
const MADE = /\.wasm\.ts$|^ffi\/unsloth_ops\.h$|prebuilt|wasm\/rust\/pkg|fixtures/;

const files = execFileSync("git", ["ls-files"], { encoding: "utf8" }).trim().split("\n")
  .filter((f) => CODE.test(f) && !MADE.test(f))
  .map((name) => ({ name, lines: readFileSync(name, "utf8").split("\n").length - 1 }));

const folder = (name: string): string => /^(src\/[^/]+|[^/]+)\//.exec(name)?.[1] ?? ".";
const median = (x: readonly number[]): number => x.toSorted((a, b) => a - b)[x.length >> 1];
const row = (...cells: (string | number)[]): void => console.log(`| ${cells.join(" | ")} |`);

row("folder", "files", "lines", "median");
row("---", "---", "---", "---");
for (const name of [...new Set(files.map((f) => folder(f.name)))].sort()) {
  const lines = files.filter((f) => folder(f.name) === name).map((f) => f.lines);
  row(name, lines.length, lines.reduce((a, b) => a + b, 0), median(lines));
}
const all = files.map((f) => f.lines);
row("**all**", all.length, all.reduce((a, b) => a + b, 0), median(all));
console.log("");
row("longest", "lines");
row("---", "---");
for (const f of files.toSorted((a, b) => b.lines - a.lines).slice(0, 10)) row(f.name, f.lines);
