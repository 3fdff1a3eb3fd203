/**
 * Golden cases of tokenizers: folders laid out as shared/golden-tokenizers (one JSON file a tokenizer, made by Rust's
 * tokenizers and transformers' jinja2) and as shared/vocab (vocab-only GGUFs with .inp and .out, made by llama.cpp). Archives
 * beside them are unpacked with tar, once, into a temporary folder.
 */
import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { loadTokenizer } from "../../src/tokenizer/mod.ts";

/** One printed row: so many of so many equal, with the first few that are not. */
export interface Tally {
  name: string;
  kind: "encode" | "encode special" | "decode" | "decode skip" | "chat" | "chat ids";
  equal: number;
  of: number;
  misses: string[];
}

interface Golden {
  vocab_size: number;
  encodings: { text: string; ids: number[]; ids_special: number[]; decoded: string; decoded_skip: string }[];
  chats: {
    messages: { role: string; content: string }[];
    tools: unknown[] | null;
    add_generation_prompt: boolean;
    date_string: string;
    text: string | null;
    error: string | null;
    ids: number[] | null;
  }[];
}

/** Where files stand that may be packed: the folder itself and what its archives hold. */
export interface Unpacked {
  find(name: string): string | undefined;
  list(ending: string): string[];
  close(): void;
}

/** Why archives cannot be unpacked here; null when they can. BSD's tar needs no xz beside it. */
export function cannotUnpack(): string | null {
  const [tar, xz] = ["tar", "xz"].map((tool) => spawnSync(tool, ["--version"], { encoding: "utf8" }));
  if (tar.status !== 0) return "needs tar";
  return xz.status === 0 || tar.stdout.includes("bsdtar") ? null : "needs xz";
}

/** Unpacks the folder's .tar.xz archives. @throws when tar fails, with what it said */
export function unpack(dir: string): Unpacked {
  const roots = [dir], made: string[] = [];
  for (const name of readdirSync(dir).filter((n) => n.endsWith(".tar.xz"))) {
    const to = mkdtempSync(join(tmpdir(), "golden-"));
    made.push(to);
    const r = spawnSync("tar", ["-xJf", join(dir, name), "-C", to]);
    if (r.status !== 0) throw new Error(`Cannot unpack '${name}': ${r.stderr ?? r.error}`);
    roots.push(
      to,
      ...readdirSync(to, { withFileTypes: true }).filter((e) => e.isDirectory()).map((e) => join(to, e.name)),
    );
  }
  return {
    find: (name) => roots.map((r) => join(r, name)).find((p) => existsSync(p)),
    list: (ending) => roots.flatMap((r) => readdirSync(r).filter((n) => n.endsWith(ending)).map((n) => join(r, n))),
    close: () => made.forEach((p) => rmSync(p, { recursive: true })),
  };
}

/** Runs every case of a folder of either kind. */
export function* runFolder(dir: string): Generator<Tally> {
  const files = unpack(dir);
  try {
    for (const path of files.list(".json").sort()) {
      const golden = JSON.parse(readFileSync(path, "utf8"));
      const name = basename(path, ".json"), folder = files.find(name);
      if (golden.encodings && folder) yield* runJson(name, folder, golden);
    }
    for (const path of files.list(".gguf").sort()) {
      if (existsSync(`${path}.inp`)) yield runVocab(path);
    }
  } finally {
    files.close();
  }
}

class Count implements Tally {
  equal = 0;
  of = 0;
  misses: string[] = [];
  readonly name: string;
  readonly kind: Tally["kind"];

  constructor(name: string, kind: Tally["kind"]) {
    this.name = name;
    this.kind = kind;
  }

  add(input: string, got: unknown, want: unknown): void {
    this.of++;
    const g = JSON.stringify(got), w = JSON.stringify(want);
    if (g === w) this.equal++;
    else if (this.misses.length < 3) this.misses.push(`${JSON.stringify(input).slice(0, 60)}: ${difference(g, w)}`);
  }
}

/** Where two texts part, with a little of both. */
function difference(got: string, want: string): string {
  let i = 0;
  while (i < got.length && got[i] === want[i]) i++;
  const from = Math.max(0, i - 20);
  return `got ${got.slice(from, i + 40)}, want ${want.slice(from, i + 40)}`;
}

function* runJson(name: string, folder: string, golden: Golden): Generator<Tally> {
  const t = loadTokenizer(folder);
  const plain = new Count(name, "encode"), special = new Count(name, "encode special");
  const decode = new Count(name, "decode"), skip = new Count(name, "decode skip");
  for (const e of golden.encodings) {
    plain.add(e.text, Array.from(t.encode(e.text)), e.ids);
    special.add(e.text, Array.from(t.encode(e.text, { special: true })), e.ids_special);
    decode.add(e.text, t.decode(e.ids), e.decoded);
    skip.add(e.text, t.decode(e.ids, { skipSpecial: true }), e.decoded_skip);
  }
  yield* [plain, special, decode, skip];
  if (golden.chats.length === 0) return;
  const chat = new Count(name, "chat"), ids = new Count(name, "chat ids");
  for (const c of golden.chats) {
    let text: string | null = null;
    try {
      text = t.chat(c.messages, {
        addPrompt: c.add_generation_prompt,
        tools: c.tools ?? undefined,
        variables: { date_string: c.date_string },
      });
    } catch (e) {
      if (!c.error) text = String(e);
    }
    const input = c.messages.map((m) => m.content).join(" | ");
    chat.add(input, text, c.text);
    if (c.ids) ids.add(input, text === null ? null : Array.from(t.encode(text)), c.ids);
  }
  yield* [chat, ids];
}

/** .inp: texts between marker lines; .out: a line of ids for each. As llama.cpp's tests/test-tokenizer-0.cpp reads them. */
function runVocab(path: string): Tally {
  const marker = "\n__ggml_vocab_test__\n";
  const texts = readFileSync(`${path}.inp`, "utf8").split(marker);
  const lines = readFileSync(`${path}.out`, "utf8").split("\n");
  const t = loadTokenizer(path), count = new Count(basename(path, ".gguf"), "encode");
  texts.forEach((text, i) =>
    count.add(text, Array.from(t.encode(text)), lines[i]!.split(" ").filter(Boolean).map(Number))
  );
  return count;
}
