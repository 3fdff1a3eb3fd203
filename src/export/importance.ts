/**
 * Importance matrices: the mean square of each linear's inputs over calibration texts, by which quantisers weigh errors.
 * Collected by watching the backend's products, so that the model's code knows nothing of it; kept in llama.cpp's GGUF
 * form, so that its files serve here and ours there. Source: llama.cpp tools/imatrix and common/imatrix-loader.cpp.
 * @module
 */
import type { Backend } from "../core/backend.ts";
import { ConfigError, FormatError } from "../core/errors.ts";
import { cols, numel, reshape, rowsOf, type Tensor } from "../core/tensor.ts";
import { openGguf } from "../formats/gguf_read.ts";
import { typeOfValue, writeGguf } from "../formats/gguf_write.ts";
import { floatTensor } from "../formats/safetensors_write.ts";
import { readFloats } from "../formats/stored.ts";
import { loadModel, type Model, type ModelSource } from "../models/mod.ts";
import type { Tokenizer } from "../tokenizer/mod.ts";
import type { Importance } from "./gguf.ts";
import { Prober } from "./probe.ts";

/** Sums over a calibration run. */
export interface ImportanceMatrix {
  /** Sum of squares of each column's inputs, by GGUF tensor name. */
  readonly sums: ReadonlyMap<string, Float32Array<ArrayBuffer>>;
  /** Tokens summed over. */
  readonly tokens: number;
  readonly chunkTokens: number;
  /** What it was made from, for the file. */
  readonly dataset: string;
}

/** How it is collected. */
export interface CalibrationOptions {
  readonly source: ModelSource;
  readonly backend: Backend;
  readonly tokenizer: Tokenizer;
  /** Plain texts like those the model will meet. */
  readonly texts: readonly string[];
  readonly dataset: string;
  /** Tokens of a chunk; default 512, as llama-imatrix. */
  readonly chunkTokens?: number;
  /** Chunks at most; default 100. */
  readonly chunks?: number;
  readonly onProgress?: (chunk: number, of: number) => void;
}

/** The backend with an eye on its products: calls `seen` with the inputs of every weight that is known by place. */
function watchProducts(be: Backend, seen: (weight: Tensor, x: Tensor) => void): Backend {
  return new Proxy(be, {
    get(target, key) {
      const value = Reflect.get(target, key);
      if (typeof value !== "function") return value;
      if (key !== "matmul") return value.bind(target);
      return (...args: Parameters<Backend["matmul"]>) => {
        const [, x, weight, , o] = args;
        if (o.transB) seen(weight, x);
        target.matmul(...args);
      };
    },
  });
}

const placeOf = (t: Tensor): string => `${t.handle}:${t.byteOffset}`;

/** One f32 sum a column for every linear of the blocks, in one slab on the device. */
class Sums {
  readonly #be: Backend;
  readonly #handle: number;
  readonly #byPlace = new Map<string, { name: string; sum: Tensor }>();
  readonly total = new Map<string, Float64Array>();

  constructor(be: Backend, model: Model) {
    this.#be = be;
    const linears = model.source.tensors.filter((t) => t.shape.length === 2 && t.ours.startsWith("layers."));
    let at = 0;
    const places = linears.map((t) => {
      const byteOffset = at;
      at += Math.ceil(4 * t.shape[1]! / 256) * 256;
      return { t, byteOffset };
    });
    this.#handle = be.alloc(at);
    for (const { t, byteOffset } of places) {
      const sum: Tensor = { handle: this.#handle, byteOffset, dtype: "f32", shape: [t.shape[1]!] };
      this.#byPlace.set(placeOf(model.weights.get(t.ours)!), { name: t.gguf, sum });
      this.total.set(t.gguf, new Float64Array(t.shape[1]!));
    }
    this.clear();
  }

  clear(): void {
    for (const { sum } of this.#byPlace.values()) this.#be.fill(sum, 0);
  }

  /** Adds the squares of x's columns. A slice of a fused weight is found by the weight's own place. */
  add(weight: Tensor, x: Tensor): void {
    const entry = this.#byPlace.get(placeOf(weight));
    if (!entry) return;
    const rows = reshape(x, rowsOf(x), cols(x));
    this.#be.colDot(entry.sum, rows, rows);
  }

  /** Moves the sums to the host, where they are kept in f64. */
  async collect(): Promise<void> {
    for (const { name, sum } of this.#byPlace.values()) {
      const values = new Float32Array(numel(sum));
      await this.#be.download(sum, values);
      const total = this.total.get(name)!;
      for (let i = 0; i < values.length; i++) total[i]! += values[i]!;
    }
    this.clear();
  }

  close(): void {
    this.#be.free(this.#handle);
  }
}

/**
 * Runs the texts through the model and sums the squares of what its linears are given.
 * @throws {ConfigError} when the texts are shorter than one chunk
 */
export async function collectImportance(o: CalibrationOptions): Promise<ImportanceMatrix> {
  const chunkTokens = Math.min(o.chunkTokens ?? 512, o.source.config.maxPos);
  const ids = o.texts.flatMap((t) => [...o.tokenizer.encode(t)]);
  const chunks = Math.min(o.chunks ?? 100, Math.floor(ids.length / chunkTokens));
  if (chunks < 1) {
    throw new ConfigError(
      `Cannot calibrate: '${o.dataset}' has ${ids.length} tokens and a chunk takes ${chunkTokens}; give more text`,
    );
  }
  let sums: Sums | null = null;
  const backend = watchProducts(o.backend, (weight, x) => sums?.add(weight, x));
  const model = await loadModel(o.source, { backend, maxLength: chunkTokens });
  const prober = new Prober(model, chunkTokens);
  sums = new Sums(o.backend, model);
  try {
    for (let c = 0; c < chunks; c++) {
      const chunk = ids.slice(c * chunkTokens, (c + 1) * chunkTokens);
      if (o.tokenizer.addBos && o.tokenizer.bos !== null) chunk[0] = o.tokenizer.bos;
      await prober.last(chunk);
      await sums.collect();
      o.onProgress?.(c + 1, chunks);
    }
    const found = [...sums.total].map(([name, x]) => [name, Float32Array.from(x)] as const);
    return { sums: new Map(found), tokens: chunks * chunkTokens, chunkTokens, dataset: o.dataset };
  } finally {
    sums.close();
    prober.close();
    model.close();
  }
}

/** Means, as quantisers take them; columns that never saw an input weigh 1, as in llama.cpp. */
export function importanceOf(m: ImportanceMatrix): Importance {
  return new Map([...m.sums].map(([name, x]) => [name, m.tokens > 0 ? x.map((v) => v / m.tokens) : x.map(() => 1)]));
}

/** Writes llama.cpp's imatrix GGUF. */
export function writeImportance(path: string, m: ImportanceMatrix): Promise<void> {
  const fields: [string, string | number | string[]][] = [
    ["general.type", "imatrix"],
    ["imatrix.datasets", [m.dataset]],
    ["imatrix.chunk_count", Math.round(m.tokens / m.chunkTokens)],
    ["imatrix.chunk_size", m.chunkTokens],
  ];
  const tensors = [...m.sums].sort(([a], [b]) => a < b ? -1 : 1).flatMap(([name, x]) => [
    floatTensor(`${name}.in_sum2`, x, [1, x.length]),
    floatTensor(`${name}.counts`, Float32Array.of(m.tokens), [1, 1]),
  ]);
  return writeGguf(path, new Map(fields.map(([key, value]) => [key, { value, type: typeOfValue(value) }])), tensors);
}

/**
 * Reads an imatrix GGUF, ours or llama.cpp's.
 * @throws {FormatError} when it is none, or of experts, which no family here has
 */
export function readImportance(path: string): Importance {
  const file = openGguf(path);
  try {
    if (file.meta.get("general.type") !== "imatrix") {
      throw new FormatError(`Cannot read '${path}': it is no importance matrix in GGUF form`, path, 0);
    }
    const out = new Map<string, Float32Array<ArrayBuffer>>();
    for (const t of file.tensors.values()) {
      const name = /^(.*)\.in_sum2$/.exec(t.name)?.[1];
      if (name === undefined) continue;
      const counts = file.tensors.get(`${name}.counts`);
      if (!counts || counts.bytes !== 4) {
        throw new FormatError(`Cannot read '${path}': '${name}' has no single count`, path, t.offset);
      }
      const [count] = readFloats(counts);
      out.set(name, readFloats(t).map((v) => count! > 0 ? v / count! : 1));
    }
    return out;
  } finally {
    file.close();
  }
}
