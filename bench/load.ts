/**
 * How fast does a model load, and what does it cost beside the weights? A sharded folder of about 1 GB in f16 is written to
 * a temporary place, read once (so that all runs see the same page cache), then read plainly and loaded by turns, each in a
 * process of its own: memory that an earlier turn touched would make a read fast and hide what a load takes.
 *
 *   deno run -A bench/load.ts [--gigabytes 1]
 *
 * Ceiling: a plain read of the same files into fresh memory, where they stay, as weights do: from the page cache most of that
 * time goes to the first touch of each page (printed beside it: the same read into one small buffer). Goal: 70 % of its
 * rate, and resident memory under the weights plus 128 MiB.
 * @module
 */
import { execFileSync } from "node:child_process";
import {
  closeSync,
  existsSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { type TensorToWrite, writeSafetensorsFolder } from "../src/formats/safetensors_write.ts";
import { loadModel, openModel } from "../src/models/mod.ts";
import { expandNames } from "../src/models/names.ts";
import { familyOf } from "../src/models/registry.ts";
import { createWasmBackend } from "../wasm/mod.ts";

const MIB = 1 << 20;

/** A llama of `gigabytes` of f16, in shards of 200 MB. */
async function writeModel(dir: string, gigabytes: number): Promise<void> {
  const perLayer = 2 * (4 * 1024 * 1024 + 3 * 1024 * 4096),
    layers = Math.round((gigabytes * 1e9 - 4 * 32000 * 1024) / perLayer);
  const hf = {
    ...{
      model_type: "llama",
      hidden_size: 1024,
      intermediate_size: 4096,
      num_hidden_layers: layers,
      vocab_size: 32000,
    },
    ...{ num_attention_heads: 16, num_key_value_heads: 16, max_position_embeddings: 64, tie_word_embeddings: false },
  };
  writeFileSync(join(dir, "config.json"), JSON.stringify(hf));
  const family = familyOf(hf), pattern = new Uint8Array(MIB).map((_, i) => (i * 37) & 63);
  const tensors = expandNames(family.tensors, family.config(hf)).map((t): TensorToWrite => {
    const bytes = 2 * t.shape.reduce((a, b) => a * b, 1);
    const chunks = function* () {
      for (let at = 0; at < bytes; at += MIB) yield pattern.subarray(0, Math.min(MIB, bytes - at));
    };
    return { name: t.hf, dtype: "f16", shape: t.shape, chunks };
  });
  await writeSafetensorsFolder(dir, tensors, 200e6);
}

/** Bytes and seconds of reading every shard once, keeping everything or nothing. */
function readPlainly(dir: string, keep: boolean): { bytes: number; seconds: number } {
  const names = readdirSync(dir).filter((n) => n.endsWith(".safetensors")), piece = 8 * MIB, start = performance.now();
  const total = names.reduce((n, name) => n + statSync(join(dir, name)).size, 0);
  const memory = new Uint8Array(keep ? total + piece : piece);
  let bytes = 0;
  for (const name of names) {
    const fd = openSync(join(dir, name), "r");
    for (let n = 1; n > 0; bytes += n) n = readSync(fd, memory, keep ? bytes : 0, piece, null);
    closeSync(fd);
  }
  return { bytes, seconds: (performance.now() - start) / 1000 };
}

/** What one load took: seconds, and bytes of memory by which the process grew at its peak. */
interface Load {
  readonly seconds: number;
  readonly resident: number;
  readonly weights: number;
}

/** Bytes the process has held at most (Linux), or holds now. */
function peakBytes(): number {
  const status = "/proc/self/status";
  const high = existsSync(status) ? /VmHWM:\s+(\d+) kB/.exec(readFileSync(status, "utf8")) : null;
  return high ? Number(high[1]) * 1024 : process.memoryUsage().rss;
}

async function load(dir: string): Promise<Load> {
  const be = await createWasmBackend(), before = process.memoryUsage().rss, start = performance.now();
  const source = openModel(dir), model = await loadModel(source, { backend: be, maxLength: 64 });
  const seconds = (performance.now() - start) / 1000, resident = peakBytes() - before;
  const weights = be.memory().active;
  source.close();
  model.close();
  be.close();
  return { seconds, resident, weights };
}

/** Work in a process of its own, where no page has been touched and nothing that was read before is still in memory. */
function alone<T>(work: "load" | "read", dir: string): T {
  const script = fileURLToPath(import.meta.url), run = process.versions.deno ? ["run", "-A", script] : [script];
  const said = execFileSync(process.execPath, [...run, `--${work}`, dir], { encoding: "utf8" });
  return JSON.parse(said.trim().split("\n").at(-1)!);
}

/** Reads plainly and loads by turns, then prints the best of each and the most memory of any. */
async function compare(gigabytes: number): Promise<void> {
  const dir = mkdtempSync(join(tmpdir(), "unsloth-load-"));
  try {
    await writeModel(dir, gigabytes);
    readPlainly(dir, false); // into the page cache
    const small: number[] = [], plain: number[] = [], loads: Load[] = [];
    const { bytes } = readPlainly(dir, false);
    for (let turn = 0; turn < 4; turn++) {
      small.push(readPlainly(dir, false).seconds);
      plain.push(alone<{ seconds: number }>("read", dir).seconds);
      loads.push(alone<Load>("load", dir));
    }
    const seconds = Math.min(...loads.map((l) => l.seconds)), kept = Math.min(...plain), { weights } = loads[0];
    const rate = (s: number) => `${(bytes / s / 1e9).toFixed(2)} GB/s`;
    const most = Math.max(...loads.map((l) => l.resident)) - weights;
    console.log(`plain read into 8 MiB   ${rate(Math.min(...small))}`);
    console.log(`plain read, kept        ${rate(kept)}`);
    console.log(`load                    ${rate(seconds)}, ${Math.round(100 * kept / seconds)} % of it`);
    console.log(
      `resident at the peak    weights ${Math.round(weights / MIB)} MiB and ${Math.round(most / MIB)} MiB beside them`,
    );
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

const text = { type: "string" } as const;
const { values } = parseArgs({ options: { gigabytes: { ...text, default: "1" }, load: text, read: text } });
if (values.load) console.log(JSON.stringify(await load(values.load)));
else if (values.read) console.log(JSON.stringify(readPlainly(values.read, true)));
else await compare(Number(values.gigabytes));
