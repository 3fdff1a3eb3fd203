/** load_in_fp8: what the host reads of a rounded model, and what a device that rounds itself is given. */
import { Buffer } from "node:buffer";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import type { Backend, FileStamp } from "../../src/core/backend.ts";
import { Random } from "../../src/core/philox.ts";
import { byteLength, type Tensor } from "../../src/core/tensor.ts";
import { roundTiles } from "../../src/formats/fp8.ts";
import { readFloats } from "../../src/formats/stored.ts";
import { openModel, roundSource } from "../../src/models/mod.ts";
import { uploadTiles } from "../../src/models/tiles.ts";

const dir = mkdtempSync(join(tmpdir(), "fp8-"));
afterAll(() => rmSync(dir, { recursive: true }));
const [D, F] = [256, 1408];

/** A llama of one layer in f32 whose MLP is made of whole tiles; k and v are not. */
function writeModel(): void {
  const shapes: Record<string, number[]> = {
    "model.embed_tokens.weight": [16, D],
    "model.norm.weight": [D],
    "model.layers.0.input_layernorm.weight": [D],
    "model.layers.0.post_attention_layernorm.weight": [D],
    "model.layers.0.self_attn.q_proj.weight": [D, D],
    "model.layers.0.self_attn.k_proj.weight": [64, D],
    "model.layers.0.self_attn.v_proj.weight": [64, D],
    "model.layers.0.self_attn.o_proj.weight": [D, D],
    "model.layers.0.mlp.gate_proj.weight": [F, D],
    "model.layers.0.mlp.up_proj.weight": [F, D],
    "model.layers.0.mlp.down_proj.weight": [D, F],
  };
  const random = new Random(1), header: Record<string, unknown> = {}, values: Float32Array[] = [];
  let at = 0;
  for (const [name, shape] of Object.entries(shapes)) {
    const n = shape.reduce((a, b) => a * b);
    values.push(Float32Array.from({ length: n }, () => 0.05 * random.normal()));
    header[name] = { dtype: "F32", shape, data_offsets: [at, at += 4 * n] };
  }
  const text = new TextEncoder().encode(JSON.stringify(header)), size = new Uint8Array(8);
  new DataView(size.buffer).setBigUint64(0, BigInt(text.length), true);
  const data = values.map((v) => new Uint8Array(v.buffer));
  writeFileSync(join(dir, "model.safetensors"), Uint8Array.from([...size, ...text]));
  for (const d of data) writeFileSync(join(dir, "model.safetensors"), d, { flag: "a" });
  writeFileSync(
    join(dir, "config.json"),
    JSON.stringify({
      ...{ model_type: "llama", vocab_size: 16, hidden_size: D, intermediate_size: F, num_hidden_layers: 1 },
      ...{ num_attention_heads: 8, num_key_value_heads: 2, head_dim: 32, max_position_embeddings: 64 },
      ...{ rms_norm_eps: 1e-5, rope_theta: 10000, hidden_act: "silu", tie_word_embeddings: true },
    }),
  );
}

/** A device of plain bytes that notes which rows it was told to round, and what they held. */
class Device {
  readonly rounded = new Map<number, Uint8Array>();
  reads = 0;
  #memory = new Uint8Array(0);
  readonly straight: boolean;

  constructor(straight: boolean) {
    this.straight = straight;
  }

  supports = (): boolean => true;
  alloc(bytes: number): number {
    this.#memory = new Uint8Array(bytes);
    return 1;
  }
  free(): void {}
  upload(t: Tensor, bytes: ArrayBufferView): void {
    expect(bytes.byteLength).toBe(byteLength(t));
    this.#memory.set(new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength), t.byteOffset);
  }
  read(t: Tensor, file: FileStamp, offset: number): boolean {
    if (!this.straight) return false;
    this.reads++;
    this.#memory.set(readFileSync(file.path).subarray(offset, offset + byteLength(t)), t.byteOffset);
    return true;
  }
  quantizeFp8(_: Tensor, x: Tensor, from: number): void {
    expect(from % 128).toBe(0);
    expect(this.rounded.has(from)).toBe(false);
    this.rounded.set(from, this.#memory.slice(x.byteOffset, x.byteOffset + byteLength(x)));
  }
}

writeModel();

/** Bit for bit; toEqual goes element by element, a second a million. */
function same(a: Float32Array | Uint8Array, b: Float32Array): boolean {
  return Buffer.from(a.buffer, a.byteOffset, a.byteLength).equals(Buffer.from(b.buffer, b.byteOffset, b.byteLength));
}

test("roundSource() rounds the linears of whole tiles and leaves the rest", () => {
  const exact = openModel(dir), source = roundSource(exact);
  const names = source.tensors.filter((t) => t.unrounded).map((t) => t.hf.split(".").at(-2)).sort();
  expect(names).toEqual(["down_proj", "gate_proj", "o_proj", "q_proj", "up_proj"]);
  for (const t of source.tensors.filter((t) => t.unrounded)) {
    const [rows, columns] = t.shape, want = readFloats(t.unrounded!, 0, rows);
    roundTiles(want, rows, columns);
    expect(same(readFloats(t.stored, 0, rows), want)).toBe(true);
    // any rows, also such as cut through a tile
    expect(same(readFloats(t.stored, 37, 201), want.slice(37 * columns, 201 * columns))).toBe(true);
  }
  source.close();
});

test.each([true, false])(
  "a device that rounds gets every exact row once (it reads files itself: %s)",
  async (straight) => {
    const source = roundSource(openModel(dir));
    for (const t of source.tensors.filter((t) => t.unrounded)) {
      const device = new Device(straight),
        target: Tensor = { handle: 2, byteOffset: 0, dtype: "fp8_128", shape: t.shape };
      await uploadTiles(device as unknown as Backend, t, source.config, target, new Uint8Array(8 << 20));
      const parts = [...device.rounded].sort(([a], [b]) => a - b), rowBytes = 4 * t.shape[1];
      let next = 0;
      for (const [from, bytes] of parts) {
        expect(from).toBe(next);
        next += bytes.length / rowBytes;
      }
      expect(next).toBe(t.shape[0]);
      const whole = Buffer.concat(parts.map(([, bytes]) => bytes));
      expect(same(whole, readFloats(t.unrounded!, 0, t.shape[0]))).toBe(true);
      if (straight && 4 * t.shape[0] * t.shape[1] >= 1 << 20) expect(device.reads).toBeGreaterThan(0);
    }
    source.close();
  },
);
