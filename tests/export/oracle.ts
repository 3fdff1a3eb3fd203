/** llama.cpp as a second opinion, in a process of its own (tests/oracles). */
import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const ORACLES = fileURLToPath(new URL("../oracles/", import.meta.url));

/** Why llama.cpp cannot be asked; null when it can. */
export function oracleMissing(): string | null {
  const installed = existsSync(join(ORACLES, "node_modules/node-llama-cpp/package.json"));
  const built = existsSync(join(ORACLES, `node_modules/@node-llama-cpp/${process.platform}-${process.arch}`));
  return installed && built
    ? null
    : "llama.cpp is not installed: npm ci --prefix tests/oracles --omit=optional --ignore-scripts";
}

/** What to ask about one file. */
export interface Question {
  readonly gguf: string;
  readonly lora?: string;
  readonly texts?: readonly string[];
  readonly ids?: readonly (readonly number[])[];
  /** Only the distribution after the last id of each list. */
  readonly last?: boolean;
  readonly greedy?: { readonly ids: readonly number[]; readonly max: number };
}

/** What llama.cpp says. */
export interface Answer {
  /** Ids of each text, special tokens in the text recognised, no BOS added. */
  readonly tokens: readonly (readonly number[])[];
  readonly ends: { readonly bos: number | null; readonly eos: number | null; readonly addBos: boolean };
  /** By list of ids: probabilities after each id, f32 [N,V], or [1,V] with `last`. */
  readonly probabilities: readonly Float32Array[];
  /** Greedy continuation, the end of generation included. */
  readonly answer: readonly number[] | null;
  readonly stopped: boolean;
}

/** Asks; one process for all questions. `dir` is a folder for what goes to and fro. */
export function askLlama(dir: string, questions: readonly Question[]): Answer[] {
  const jobs = questions.map((q, i) => ({ ...q, out: join(dir, `answer-${i}`) }));
  for (const { out } of jobs) mkdirSync(out, { recursive: true });
  const path = join(dir, "questions.json");
  writeFileSync(path, JSON.stringify(jobs));
  execFileSync("node", [join(ORACLES, "ask.mjs"), path], { stdio: ["ignore", "ignore", "pipe"] });
  return jobs.map(({ out, ids = [] }) => ({
    ...JSON.parse(readFileSync(join(out, "answer.json"), "utf8")),
    probabilities: ids.map((_, n) => {
      const bytes = readFileSync(join(out, `${n}.f32`));
      return new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength));
    }),
  }));
}
