/**
 * Weights that are the file's own pages, on the simulator through this runtime's FFI: which tensors, the same results, and
 * what happens when the file changes. The C side (pages, lifetime, faults) is tests/metal/abi/memory.c.
 */
import { appendFileSync, copyFileSync, mkdtempSync, readFileSync, renameSync, rmSync, truncateSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { OP_NAMES, OPS, symbolOf, type Word } from "../../ffi/abi.ts";
import { BASE, EXTRAS, type Signature } from "../../ffi/abi_base.ts";
import type { Functions, Library, Table } from "../../ffi/functions.ts";
import { openLibrary } from "../../ffi/library.ts";
import { Packer } from "../../ffi/pack.ts";
import { candidate } from "../../metal/mod.ts";
import type { Backend } from "../../src/core/backend.ts";
import { MemoryError } from "../../src/core/errors.ts";
import type { Tensor } from "../../src/core/tensor.ts";
import { exportModel } from "../../src/export/mod.ts";
import { loadModel, type LoadOptions, type Model, openModel } from "../../src/models/mod.ts";
import { loadTokenizer } from "../../src/tokenizer/mod.ts";
import { packRows } from "../golden/case.ts";
import { packedLogits } from "../golden/tiny.ts";
import { buildSimulator, missing, ROOT } from "./simulator.ts";

const why = missing(), SLOW = 600_000, GGUF = `${ROOT}models/embedded/unsloth-tiny.Q8_0.gguf`;
const IDS = Float32Array.of(1, 5, 9, 2, 33, 4, 4, 70);

describe.skipIf(why !== null)(`Weights in place${why ? ` (${why})` : ""}`, () => {
  let library = "", folder = "", n = 0;
  beforeAll(() => {
    library = buildSimulator();
    folder = mkdtempSync(join(tmpdir(), "unsloth-mapped-"));
  }, SLOW);
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  const copyOf = (path: string): string => {
    const to = join(folder, `copy${n++}.gguf`);
    copyFileSync(path, to);
    return to;
  };
  /** Whether this process has pages of the file. */
  const inMaps = (path: string): boolean => readFileSync("/proc/self/maps", "utf8").includes(path);
  async function open(map: boolean): Promise<Backend> {
    process.env.UNSLOTH_METAL_MAP = map ? "1" : "0";
    const be = await candidate.open({ library, actDtype: "f32" });
    delete process.env.UNSLOTH_METAL_MAP;
    return be;
  }
  async function load(be: Backend, path: string, o: Partial<LoadOptions> = {}): Promise<Model> {
    const source = openModel(path);
    const model = await loadModel(source, { backend: be, maxLength: 16, ...o }).finally(() => source.close());
    return model;
  }
  const logits = (model: Model) => packedLogits(model, packRows(IDS, IDS.map(() => 1), IDS, IDS.length));
  /** Handles that are a tensor's own: the slab has several. */
  function mappedBytes(model: Model): number {
    const count = new Map<number, number>();
    for (const t of model.weights.values()) count.set(t.handle, (count.get(t.handle) ?? 0) + 1);
    return model.source.tensors.filter((t) => count.get(model.weights.get(t.ours)!.handle) === 1)
      .reduce((sum, t) => sum + t.stored.bytes, 0);
  }

  async function comparesWithCopies(path: string, file: string, share: number): Promise<void> {
    const be = await open(true), other = await open(false);
    const mapped = await load(be, path), copied = await load(other, path);
    const total = mapped.source.tensors.reduce((sum, t) => sum + t.stored.bytes, 0);
    expect(mappedBytes(mapped) / total).toBeGreaterThan(share);
    expect(mappedBytes(copied)).toBe(0);
    expect(inMaps(file)).toBe(true);
    expect(await logits(mapped)).toEqual(await logits(copied));
    mapped.close();
    await be.fence();
    expect(inMaps(file), "after closing").toBe(false);
    copied.close(), be.close(), other.close();
  }

  // q and k are put in another order on the way from a GGUF, so they are copied
  test("a GGUF's tensors are used where they lie, and give the bits that copies give", async () => {
    const path = copyOf(GGUF);
    await comparesWithCopies(path, path, 0.7);
  }, SLOW);

  test("so are those of safetensors in 16 bits", async () => {
    const source = openModel(GGUF), outDir = join(folder, "merged");
    await exportModel({
      ...{ source, trained: { kind: "none" }, tokenizer: loadTokenizer(GGUF), formats: ["merged_16bit"] },
      ...{ quantization: [], outDir, verify: null },
    });
    source.close();
    await comparesWithCopies(outDir, join(outDir, "model.safetensors"), 0.9);
  }, SLOW);

  test("weights that training rewrites are copies", async () => {
    const be = await open(true);
    const lora = {
      ...{ r: 4, alpha: 4, dropout: 0, rslora: false, dora: false, bias: "none" as const, baseModel: "x", seed: 1 },
      ...{ targetModules: ["up_proj"], rankPattern: {}, alphaPattern: {}, modulesToSave: [], start: "pissa" as const },
    };
    const model = await load(be, join(folder, "merged"), { lora });
    const file = (name: string) => model.weights.get(model.source.tensors.find((t) => t.hf.includes(name))!.ours)!;
    expect(file("layers.0.mlp.up_proj").handle).not.toBe(file("layers.0.mlp.down_proj").handle);
    expect(file("layers.0.mlp.up_proj").handle).toBe(file("layers.1.mlp.up_proj").handle);
    expect((await logits(model)).every(Number.isFinite)).toBe(true);
    model.close(), be.close();
  }, SLOW);

  test("a file that is written to or cut short is an error of the next wait", async () => {
    for (const cut of [false, true]) {
      const path = copyOf(GGUF), be = await open(true), model = await load(be, path);
      await logits(model);
      if (cut) truncateSync(path, 1000);
      else appendFileSync(path, "x");
      await expect(logits(model)).rejects.toThrow(/Cannot go on with .*the file changed/);
      await expect(be.fence()).rejects.toThrow("load the model again");
      model.close();
      if (cut) await expect(be.fence()).rejects.toThrow("Address Fault"); // of what was launched before the look
      await be.fence();
      be.close();
    }
  }, SLOW);

  test("a file that took another's place is used as it was opened, or refused", async () => {
    const path = copyOf(GGUF), be = await open(true), model = await load(be, path), before = await logits(model);
    renameSync(copyOf(GGUF), path); // an atomic replacement leaves the old file to those who have it
    expect(await logits(model)).toEqual(before);
    model.close();
    const source = openModel(path);
    renameSync(copyOf(GGUF), path); // between opening and loading: offsets are the old file's
    await expect(loadModel(source, { backend: be, maxLength: 16 })).rejects.toThrow(
      "the file changed since it was opened",
    );
    source.close();
    await be.fence();
    expect([be.memory().active, inMaps(path)]).toEqual([0, false]);
    be.close();
  }, SLOW);

  test("a model that does not fit leaves nothing behind, mapped or not", async () => {
    for (const memoryLimit of [1_000_000, 2_300_000]) { // too little for what is mapped; for what is copied besides
      const be = await candidate.open({ library, memoryLimit, actDtype: "f32" }), path = copyOf(GGUF);
      await expect(load(be, path)).rejects.toThrow(MemoryError);
      await be.fence();
      expect([be.memory().active, inMaps(path)]).toEqual([0, false]);
      be.close();
    }
  });

  test("what the library does not know is copied", async () => {
    const be = await open(true);
    const file = { path: join(folder, "no file"), dev: 1, ino: 1, size: 1, mtimeMs: 1 };
    expect(() => be.map!(file, 0, 1)).toThrow();
    const path = copyOf(GGUF), source = openModel(path);
    expect(() => be.map!(source.tensors[0].stored.source.file!, 0, 1e9)).toThrow("has fewer");
    source.close(), be.close();
  });

  /** By the words of the tables: what an operation writes. */
  const writes = (op: string, a: { name: string; note: string }) =>
    /^\+?=|in place|is written|gradient out/.test(a.note) || (op === "cacheWrite" && /^[kv]c$/.test(a.name));

  test("no operation takes a file's memory for what it writes", async () => {
    const path = copyOf(GGUF), table: Record<string, Signature> = { us_map: EXTRAS.us_map, ...BASE };
    for (const op of OP_NAMES) table[symbolOf(op)] = { args: ["buf"], ret: "i32" };
    const { fn, close } = await openLibrary(library, table) as Library<typeof BASE & typeof EXTRAS & Table>;
    const at = Uint32Array.of(0, 0, 4096, 0, 0, 0), room = Uint32Array.of(4096, 0, 0), text = new Uint8Array(500);
    expect([fn.us_open(0), fn.us_map(at, new TextEncoder().encode(`${path}\0`)), fn.us_alloc(room)]).toEqual([0, 0, 0]);
    const tensor = (handle: number): Tensor => ({ handle, byteOffset: 0, dtype: "f32", shape: [4, 4] });
    let tried = 0;
    for (const op of OP_NAMES) {
      const { args } = OPS[op];
      for (const target of args.filter((a) => a.kind.startsWith("tensor") && writes(op, a))) {
        const values = args.map((a): Word => a.kind.startsWith("tensor") ? tensor(a === target ? at[4] : room[2]) : 0);
        const status = (fn as Functions<Table>)[symbolOf(op)](new Packer().struct(args, values));
        fn.us_last_error(text, 500);
        if (status === 1 && new TextDecoder().decode(text).includes("does not have it")) continue;
        expect([op, target.name, status]).toEqual([op, target.name, 2]);
        expect(new TextDecoder().decode(text)).toContain("read only");
        tried++;
      }
    }
    expect(tried).toBeGreaterThan(45);
    expect(fn.us_close()).toBe(0);
    close();
  });

  test("freed memory is kept, counted, given out again and cleared", async () => {
    const be = await candidate.open({ library, memoryLimit: 3_000_000 }), h = be.alloc(1_000_000);
    be.free(h);
    expect(be.memory()).toMatchObject({ active: 0, cached: 1_000_000 });
    be.free(be.alloc(950_000));
    expect(be.memory().cached).toBe(1_000_000);
    const most = be.alloc(2_500_000); // the user's limit holds what is cached too
    expect(be.memory()).toMatchObject({ active: 2_500_000, cached: 0 });
    be.free(most);
    expect(be.memory().peak).toBeGreaterThanOrEqual(2_500_000);
    be.resetPeak!();
    expect(be.memory().peak).toBe(0);
    expect([be.clearCache!(), be.memory().cached]).toEqual([2_500_000, 0]);
    be.close();
  });
});
