/** Who may import whom: the table of docs/architecture.md, held against the import lines of every source file. */
import { readdirSync, readFileSync, statSync } from "node:fs";
import { dirname, join, posix, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));

/** Rooms a room may import directly; what those may import is allowed too. */
const MAY: Record<string, readonly string[]> = {
  core: [],
  nn: ["core"],
  formats: ["core"],
  tokenizer: ["core", "formats"],
  models: ["nn", "formats"],
  data: ["tokenizer"],
  train: ["models", "data"],
  infer: ["models", "tokenizer"],
  export: ["models", "infer", "formats"],
  hub: ["core"],
  ffi: ["core"],
  wasm: ["ffi"],
  cuda: ["ffi"],
  metal: ["ffi"],
  cli: ["train", "infer", "export", "hub", "ffi", "server"],
  server: ["train", "infer", "export", "hub", "ffi"],
};
/** Files at the root that may import everything: they name the backends. */
const TOP = ["mod.ts", "engine_worker.ts"];

function allowed(room: string): Set<string> {
  const seen = new Set([room]);
  const visit = (r: string) => {
    for (const next of MAY[r]) {
      if (!seen.has(next)) {
        seen.add(next);
        visit(next);
      }
    }
  };
  visit(room);
  return seen;
}

function roomOf(path: string): string {
  const parts = path.split("/");
  return parts[0] === "src" ? parts[1] : parts.length > 1 ? parts[0] : path;
}

function* sources(dir: string): Iterable<string> {
  for (const name of readdirSync(dir)) {
    const path = join(dir, name);
    if (statSync(path).isDirectory()) {
      if (!["node_modules", "assembly", "rust", "kernels", "sim", "host"].includes(name)) yield* sources(path);
    } else if (name.endsWith(".ts")) yield path;
  }
}

function importsOf(file: string): string[] {
  const text = readFileSync(file, "utf8");
  const found = [...text.matchAll(/(?:from|import)\s*\(?\s*["'](\.{1,2}\/[^"']+)["']/g)].map((m) => m[1]);
  return found.map((spec) => posix.join(dirname(relative(ROOT, file)), spec));
}

const FOLDERS = ["src", "ffi", "wasm", "cuda", "metal", "server"];
const files = FOLDERS.flatMap((d) => [...sources(join(ROOT, d))]);

test("the layering table names every room that exists", () => {
  const rooms = new Set(files.map((f) => roomOf(relative(ROOT, f))));
  for (const room of rooms) expect(Object.keys(MAY), room).toContain(room);
});

test("no file imports a room that its own may not", () => {
  const wrong: string[] = [];
  for (const file of files) {
    const path = relative(ROOT, file), may = allowed(roomOf(path));
    for (const target of importsOf(file)) {
      if (!may.has(roomOf(target))) wrong.push(`${path} imports ${target}`);
    }
  }
  expect(wrong).toEqual([]);
});

test("backends are named only at the top", () => {
  const wrong = files.filter((f) => !["wasm", "cuda", "metal"].includes(roomOf(relative(ROOT, f))))
    .flatMap((f) =>
      importsOf(f).filter((t) => /^(wasm|cuda|metal)\//.test(t)).map((t) => `${relative(ROOT, f)}: ${t}`)
    );
  expect(wrong).toEqual([]);
  for (const top of TOP) expect(top).toMatch(/^[a-z_]+\.ts$/);
});

test("Deno and Bun are touched only where a library is opened, a server or a worker starts", () => {
  const fine = /^(ffi\/open_|ffi\/runtime|server\/serve|server\/.*worker|wasm\/(pool|worker)|src\/infer\/.*worker)/;
  const wrong = files.map((f) => relative(ROOT, f)).filter((f) => !fine.test(f)).filter((f) => {
    const code = readFileSync(join(ROOT, f), "utf8").replace(/\/\*[\s\S]*?\*\/|\/\/.*|"[^"\n]*"|`[^`]*`/g, "");
    return /(?<![\w.$])(Deno|Bun)\s*\./.test(code);
  });
  expect(wrong).toEqual([]);
});
