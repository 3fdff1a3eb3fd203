import { closeSync, ftruncateSync, openSync, readdirSync, readFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { ConfigError, FormatError } from "../../src/core/errors.ts";
import { memoryBytes } from "../../src/formats/bytes.ts";
import { openGguf, parseGguf } from "../../src/formats/gguf_read.ts";
import { type GgufMeta, writeGguf } from "../../src/formats/gguf_write.ts";
import { floatTensor } from "../../src/formats/safetensors_write.ts";
import { readBytes, readFloats } from "../../src/formats/stored.ts";
import { inFolder, metaOf, shared } from "./files.ts";

const ramp = (n: number) => Float32Array.from({ length: n }, (_, i) => i);

/** Little-endian pieces of a hand-made file: numbers are u32, bigints u64, strings as GGUF has them. */
function bytes(...parts: (number | bigint | string | Uint8Array)[]): Uint8Array {
  const out: number[] = [];
  const put = (n: bigint, size: number) => {
    for (let i = 0; i < size; i++) out.push(Number(n >> BigInt(8 * i) & 255n));
  };
  for (const p of parts) {
    if (typeof p === "number") put(BigInt(p), 4);
    else if (typeof p === "bigint") put(p, 8);
    else if (p instanceof Uint8Array) out.push(...p);
    else {
      put(BigInt(p.length), 8);
      out.push(...new TextEncoder().encode(p));
    }
  }
  return Uint8Array.from(out);
}
const MAGIC = 0x46554747;
/** One f32 tensor of 4 elements at `offset`, data padded to 32. */
const oneTensor = (o: { dims?: number; ne?: bigint; type?: number; offset?: bigint }) => {
  const head = bytes(MAGIC, 3, 1n, 0n, "w", o.dims ?? 1, o.ne ?? 4n, o.type ?? 0, o.offset ?? 0n);
  const out = new Uint8Array(Math.ceil(head.length / 32) * 32 + 16);
  out.set(head);
  return out;
};

describe("writeGguf()", () => {
  test("writes every kind of value and tensors that openGguf() reads back", async () => {
    await inFolder(async (dir) => {
      const path = join(dir, "x.gguf");
      const meta: GgufMeta = metaOf({
        "general.architecture": "llama",
        text: "a\u0000ü\ufeff",
        flag: true,
        count: 7,
        less: -3,
        ratio: 0.5,
        words: ["", "▁a", "Ġ"],
        flags: [true, false],
        ids: Int32Array.of(-1, 2),
        scores: Float32Array.of(-1000, 0.25),
      });
      meta.set("big", { value: 2n ** 63n + 1n, type: { type: "u64", array: false } });
      meta.set("low", { value: -(2n ** 62n) - 1n, type: { type: "i64", array: false } });
      meta.set("byte", { value: -128, type: { type: "i8", array: false } });
      meta.set("exact", { value: 0.1, type: { type: "f64", array: false } });
      meta.set("wide", { value: BigUint64Array.of(2n ** 64n - 1n), type: { type: "u64", array: true } });
      const seen: string[] = [];
      const q = { name: "q", dtype: "q8_0" as const, shape: [3, 32], chunks: () => [new Uint8Array(3 * 34).fill(9)] };
      await writeGguf(path, meta, [floatTensor("f", ramp(5), [5]), q], (t) => seen.push(t.name));
      expect(seen).toEqual(["f", "q"]);
      const g = openGguf(path);
      expect(g.version).toBe(3);
      for (const [key, { value, type }] of meta) {
        expect(g.meta.get(key), key).toEqual(value);
        expect(g.types.get(key), key).toEqual(type);
      }
      expect(g.tensors.get("q")!.shape).toEqual([3, 32]);
      expect([...readFloats(g.tensors.get("f")!)]).toEqual([0, 1, 2, 3, 4]);
      expect(readBytes(g.tensors.get("q")!, 2, 3)).toEqual(new Uint8Array(34).fill(9));
      expect(g.tensors.get("q")!.offset % 32).toBe(0);
      g.close();
      expect(readdirSync(dir)).toEqual(["x.gguf"]);
    });
  });

  test("obeys general.alignment", async () => {
    await inFolder(async (dir) => {
      const path = join(dir, "x.gguf");
      await writeGguf(path, metaOf({ "general.alignment": 128 }), [
        floatTensor("a", ramp(1), [1]),
        floatTensor("b", ramp(2), [2]),
      ]);
      const g = openGguf(path);
      for (const t of g.tensors.values()) expect(t.offset % 128).toBe(0);
      expect([...readFloats(g.tensors.get("b")!)]).toEqual([0, 1]);
      g.close();
    });
  });

  test("refuses what GGUF cannot hold", async () => {
    await inFolder((dir) => {
      const path = join(dir, "x.gguf");
      const write = (name: string, shape: number[]) => () =>
        writeGguf(path, new Map(), [floatTensor(name, ramp(0), shape)]);
      expect(write("n".repeat(64), [0])).toThrow(ConfigError);
      expect(write("w", [])).toThrow("1 to 4 dimensions");
      const nf4 = { name: "w", dtype: "nf4" as const, shape: [64], chunks: () => [] };
      expect(() => writeGguf(path, new Map(), [nf4])).toThrow("no type nf4");
      const meta: GgufMeta = new Map([["k", { value: 300, type: { type: "u8", array: false } }]]);
      expect(() => writeGguf(path, meta, [])).toThrow("300 is no u8");
      expect(readdirSync(dir)).toEqual([]);
    });
  });
});

describe("openGguf()", () => {
  const model = shared("models/SmolLM2-135M-Instruct.Q4_1.gguf");
  test.skipIf(!model)("reads a file that llama.cpp wrote (needs ../shared/models)", () => {
    const g = openGguf(model!);
    expect(g.meta.get("general.architecture")).toBe("llama");
    expect(g.meta.get("llama.embedding_length")).toBe(576);
    expect((g.meta.get("tokenizer.ggml.tokens") as string[]).length).toBe(49152);
    expect(g.tensors.size).toBe(272);
    expect(g.tensors.get("blk.0.attn_k.weight")).toMatchObject({ dtype: "q4_1", shape: [192, 576] });
    expect(g.tensors.get("token_embd.weight")).toMatchObject({ dtype: "q8_0", shape: [49152, 576] });
    // llama.cpp lays tensors out without gaps but the alignment, so the last one ends with the file.
    const last = [...g.tensors.values()].pop()!;
    expect(Math.ceil((last.offset + last.bytes) / 32) * 32).toBe(last.source.size);
    g.close();
  });

  test("reads version 2", () => {
    const file = oneTensor({});
    file[4] = 2;
    expect(parseGguf(memoryBytes(file)).tensors.get("w")!.shape).toEqual([4]);
  });

  test("reads a tensor that lies beyond 4 GiB", async () => {
    await inFolder((dir) => {
      const path = join(dir, "big.gguf");
      const hole = 5 * 2 ** 30;
      const head = bytes(MAGIC, 3, 2n, 0n, "hole", 1, BigInt(hole), 24, 0n, "far", 1, 2n, 0, BigInt(hole));
      const data = Math.ceil(head.length / 32) * 32;
      const fd = openSync(path, "w");
      writeSync(fd, head);
      ftruncateSync(fd, data + hole + 8); // sparse: takes no disk
      writeSync(fd, new Uint8Array(Float32Array.of(1.5, -2).buffer), 0, 8, data + hole);
      closeSync(fd);
      const g = openGguf(path);
      expect([...readFloats(g.tensors.get("far")!)]).toEqual([1.5, -2]);
      g.close();
    });
  });

  const cases: [string, Uint8Array, string][] = [
    ["an empty file", new Uint8Array(0), "does not start with GGUF"],
    ["a wrong magic", bytes(0x46554746, 3, 0n, 0n), "does not start with GGUF"],
    ["version 1", bytes(MAGIC, 1, 0n, 0n), "version 1"],
    ["a big-endian file", bytes(MAGIC, 3 << 24, 0n, 0n), "big-endian"],
    ["more keys than could fit", bytes(MAGIC, 3, 0n, 2n ** 40n), "metadata keys"],
    ["more tensors than could fit", bytes(MAGIC, 3, 2n ** 40n, 0n), "tensors"],
    ["a count beyond 2^53", bytes(MAGIC, 3, 2n ** 63n, 0n), "the number of tensors is"],
    ["a key longer than the file", bytes(MAGIC, 3, 0n, 1n, 2n ** 40n, 0, 0, 0), "key 0 has"],
    ["an unknown value type", bytes(MAGIC, 3, 0n, 1n, "k", 13, 0n), "value type 13"],
    ["an array of arrays", bytes(MAGIC, 3, 0n, 1n, "k", 9, 9, 0n), "array of arrays"],
    ["an array longer than the file", bytes(MAGIC, 3, 0n, 1n, "k", 9, 4, 2n ** 40n), "items"],
    ["a list of strings longer than the file", bytes(MAGIC, 3, 0n, 1n, "k", 9, 8, 2n ** 40n), "strings"],
    ["a bool that is 2", bytes(MAGIC, 3, 0n, 1n, "k", 7, Uint8Array.of(2)), "bool"],
    ["a key that stands twice", bytes(MAGIC, 3, 0n, 2n, "k", 4, 1, "k", 4, 1), "stands twice"],
    ["text that is no UTF-8", bytes(MAGIC, 3, 0n, 1n, "k", 8, 1n, Uint8Array.of(255)), "not UTF-8"],
    ["an alignment that is no power of two", bytes(MAGIC, 3, 0n, 1n, "general.alignment", 4, 24), "alignment is 24"],
    ["five dimensions", oneTensor({ dims: 5 }), "5 dimensions"],
    ["an unknown tensor type", oneTensor({ type: 4 }), "type 4"],
    ["a row that is no multiple of the block", oneTensor({ type: 8 }), "block 32"],
    ["a misaligned tensor", oneTensor({ offset: 8n }), "not aligned"],
    ["a tensor beyond the file", oneTensor({ offset: 32n }), "the file at"],
    ["a size beyond the file", oneTensor({ ne: 2n ** 50n }), "more than the file"],
  ];
  test.each(cases)("refuses %s with an offset", (_name, file, part) => {
    try {
      parseGguf(memoryBytes(file));
      expect.unreachable();
    } catch (e) {
      expect(e).toBeInstanceOf(FormatError);
      expect((e as FormatError).message).toContain(part);
      expect((e as FormatError).offset).toBeGreaterThanOrEqual(0);
    }
  });

  test("refuses overlapping tensors", () => {
    const head = bytes(MAGIC, 3, 2n, 0n, "a", 1, 16n, 0, 0n, "b", 1, 1n, 0, 32n);
    const file = new Uint8Array(Math.ceil(head.length / 32) * 32 + 64);
    file.set(head);
    expect(() => parseGguf(memoryBytes(file))).toThrow("overlaps");
  });

  test("closes the file it refuses", async () => {
    await inFolder((dir) => {
      const path = join(dir, "x.gguf");
      const fd = openSync(path, "w");
      writeSync(fd, "no");
      closeSync(fd);
      const open = () => process.platform === "linux" ? readdirSync("/proc/self/fd").length : 0;
      const before = open();
      for (let i = 0; i < 5; i++) expect(() => openGguf(path)).toThrow(FormatError);
      expect(open()).toBeLessThanOrEqual(before);
      expect(readFileSync(path, "utf8")).toBe("no");
    });
  });
});
