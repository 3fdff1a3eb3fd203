import { closeSync, ftruncateSync, openSync, readdirSync, readFileSync, writeFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { FormatError } from "../../src/core/errors.ts";
import { memoryBytes } from "../../src/formats/bytes.ts";
import { openSafetensors, openSafetensorsFolder, parseSafetensors } from "../../src/formats/safetensors.ts";
import { floatTensor, writeSafetensors, writeSafetensorsFolder } from "../../src/formats/safetensors_write.ts";
import { readBytes, readFloats } from "../../src/formats/stored.ts";
import { inFolder, shared } from "./files.ts";

/** A file with this header text and `data` bytes after it. */
function file(header: string, data: number): Uint8Array {
  const json = new TextEncoder().encode(header);
  const out = new Uint8Array(8 + json.length + data);
  new DataView(out.buffer).setBigUint64(0, BigInt(json.length), true);
  out.set(json, 8);
  return out;
}

const ramp = (n: number, from = 0) => Float32Array.from({ length: n }, (_, i) => from + i);

describe("writeSafetensors()", () => {
  test("writes what openSafetensors() reads back, names, shapes, values and metadata", async () => {
    await inFolder(async (dir) => {
      const path = join(dir, "x.safetensors");
      const chunks = function* () {
        yield new Uint8Array([1, 2]);
        yield new Uint8Array([3]);
      };
      await writeSafetensors(path, [
        floatTensor("a.weight", ramp(6), [2, 3]),
        { name: 'ü "quoted"', dtype: "u8", shape: [3], chunks },
        floatTensor("scalar", ramp(1, 7), []),
        floatTensor("empty", ramp(0), [0, 4]),
      ], { format: "pt", note: "x" });
      const f = openSafetensors(path);
      expect([...f.tensors.keys()]).toEqual(["a.weight", 'ü "quoted"', "scalar", "empty"]);
      expect(f.tensors.get("a.weight")!.shape).toEqual([2, 3]);
      expect([...readFloats(f.tensors.get("a.weight")!)]).toEqual([0, 1, 2, 3, 4, 5]);
      expect([...readFloats(f.tensors.get("a.weight")!, 1, 2)]).toEqual([3, 4, 5]);
      expect([...readBytes(f.tensors.get('ü "quoted"')!)]).toEqual([1, 2, 3]);
      expect([...readFloats(f.tensors.get("scalar")!)]).toEqual([7]);
      expect(f.metadata).toEqual({ format: "pt", note: "x" });
      expect(f.tensors.get("a.weight")!.offset % 8).toBe(0);
      f.close();
      expect(readdirSync(dir)).toEqual(["x.safetensors"]);
    });
  });

  test("leaves nothing behind, and the old file in place, when a tensor has the wrong size", async () => {
    await inFolder(async (dir) => {
      const path = join(dir, "x.safetensors");
      writeFileSync(path, "old");
      const short = { name: "w", dtype: "f32" as const, shape: [2], chunks: () => [new Uint8Array(7)] };
      await expect(writeSafetensors(path, [short])).rejects.toThrow("takes 8 bytes and 7 came");
      expect(readdirSync(dir)).toEqual(["x.safetensors"]);
      expect(readFileSync(path, "utf8")).toBe("old");
    });
  });

  test("says that a folder has no weights", () =>
    inFolder((dir) => {
      expect(() => openSafetensorsFolder(dir)).toThrow("it has no model.safetensors and no index of shards");
      writeFileSync(join(dir, "pytorch_model.bin"), "");
      expect(() => openSafetensorsFolder(dir)).toThrow("save it again with transformers' save_pretrained");
    }));
  test("writes shards that openSafetensorsFolder() joins", async () => {
    await inFolder(async (dir) => {
      const tensors = [0, 1, 2, 3].map((i) => floatTensor(`t${i}`, ramp(10, i), [10]));
      const names = await writeSafetensorsFolder(dir, tensors, 80);
      expect(names).toEqual([
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
      ]);
      const f = openSafetensorsFolder(dir);
      expect([...f.tensors.keys()].sort()).toEqual(["t0", "t1", "t2", "t3"]);
      expect(readFloats(f.tensors.get("t3")!)[0]).toBe(3);
      f.close();
      const index = JSON.parse(readFileSync(join(dir, names[2]!), "utf8"));
      expect(index.metadata.total_size).toBe(160);
    });
  });
});

describe("openSafetensors()", () => {
  const golden = shared("golden/llama/model.safetensors");
  test.skipIf(!golden)("reads a file written by the Rust library (needs ../shared/golden)", () => {
    const f = openSafetensors(golden!);
    const config = JSON.parse(readFileSync(shared("golden/llama/config.json")!, "utf8"));
    const embed = f.tensors.get("model.embed_tokens.weight")!;
    expect(embed.shape).toEqual([config.vocab_size, config.hidden_size]);
    expect(readFloats(embed).every(Number.isFinite)).toBe(true);
    f.close();
  });

  test("reads MLX's files, which say that their metadata is null", async () => {
    await inFolder((dir) => {
      const path = join(dir, "adapters.safetensors"), entry = { dtype: "F32", shape: [1], data_offsets: [0, 4] };
      writeFileSync(path, file(JSON.stringify({ __metadata__: null, a: entry }), 4));
      const f = openSafetensors(path);
      expect([...f.tensors.keys()]).toEqual(["a"]);
      expect(f.metadata).toEqual({});
      f.close();
    });
  });

  test("reads a tensor that lies beyond 4 GiB", async () => {
    await inFolder((dir) => {
      const path = join(dir, "big.safetensors");
      const hole = 5 * 2 ** 30;
      const header = file(
        JSON.stringify({
          hole: { dtype: "U8", shape: [hole], data_offsets: [0, hole] },
          far: { dtype: "F32", shape: [2], data_offsets: [hole, hole + 8] },
        }),
        0,
      );
      const fd = openSync(path, "w");
      writeSync(fd, header);
      ftruncateSync(fd, header.length + hole + 8); // sparse: takes no disk
      writeSync(fd, new Uint8Array(Float32Array.of(1.5, -2).buffer), 0, 8, header.length + hole);
      closeSync(fd);
      const f = openSafetensors(path);
      expect([...readFloats(f.tensors.get("far")!)]).toEqual([1.5, -2]);
      f.close();
    });
  });

  const one = (entry: unknown) => JSON.stringify({ w: entry });
  const cases: [string, Uint8Array, string][] = [
    ["an empty file", new Uint8Array(0), "no safetensors"],
    ["a header longer than the file", file("{}", 0).subarray(0, 9), "header says"],
    ["a header that is no JSON", file("{", 0), "header"],
    ["a header that is a list", file("[]", 0), "no JSON object"],
    ["a header that is no UTF-8", new Uint8Array([1, 0, 0, 0, 0, 0, 0, 0, 255]), "not UTF-8"],
    ["an unknown type", file(one({ dtype: "F33", shape: [1], data_offsets: [0, 4] }), 4), "unknown dtype"],
    [
      "a type named like a method",
      file(one({ dtype: "toString", shape: [1], data_offsets: [0, 4] }), 4),
      "unknown dtype",
    ],
    ["a negative size", file(one({ dtype: "F32", shape: [-1], data_offsets: [0, 4] }), 4), "no list of sizes"],
    [
      "a shape that does not fit its range",
      file(one({ dtype: "F32", shape: [2], data_offsets: [0, 4] }), 4),
      "takes 8",
    ],
    ["a range beyond the file", file(one({ dtype: "F32", shape: [2], data_offsets: [0, 8] }), 4), "the file at"],
    ["a hole", file(one({ dtype: "F32", shape: [1], data_offsets: [4, 8] }), 8), "the one before ends"],
    ["bytes after the last tensor", file(one({ dtype: "F32", shape: [1], data_offsets: [0, 4] }), 8), "tensors end at"],
    ["an overflowing shape", file(one({ dtype: "F32", shape: [2 ** 40, 2 ** 40], data_offsets: [0, 4] }), 4), "takes"],
    ["metadata that is no map of strings", file(`{"__metadata__":{"a":1}}`, 0), "__metadata__"],
  ];
  test.each(cases)("refuses %s with an offset", (_name, bytes, part) => {
    try {
      parseSafetensors(memoryBytes(bytes));
      expect.unreachable();
    } catch (e) {
      expect(e).toBeInstanceOf(FormatError);
      expect((e as FormatError).message).toContain(part);
      expect((e as FormatError).offset).toBeGreaterThanOrEqual(0);
    }
  });

  test("refuses an index that leads out of its folder", async () => {
    await inFolder((dir) => {
      writeFileSync(join(dir, "model.safetensors.index.json"), `{"weight_map":{"w":"../secret.safetensors"}}`);
      expect(() => openSafetensorsFolder(dir)).toThrow("is said to lie in");
    });
  });
});
