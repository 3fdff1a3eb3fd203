/**
 * A merged model as a Hugging Face folder with its linears in bitsandbytes' NF4, which transformers loads in 4 bits as it
 * lies. Blocks of 64, one f32 absmax each, no double quantisation. Layout: bitsandbytes functional.py, QuantState.as_dict.
 * @module
 */
import { DTYPES } from "../core/dtype.ts";
import { FormatError } from "../core/errors.ts";
import { NF4_VALUES } from "../formats/block_values.ts";
import { quantizeNf4 } from "../formats/nf4.ts";
import { openSafetensorsFolder } from "../formats/safetensors.ts";
import type { TensorToWrite } from "../formats/safetensors_write.ts";
import { readBytes, readFloats } from "../formats/stored.ts";
import { type MergedModel, type MergedTensor, rowRanges } from "./merge.ts";

/** Elements that share a scale. */
const BLOCK = 64;

/** Elements of a chunk, a multiple of the block. */
const CHUNK = 1 << 18;

/** transformers' quantization_config for such a folder. */
export const NF4_CONFIG: Readonly<Record<string, unknown>> = {
  _load_in_4bit: true,
  _load_in_8bit: false,
  bnb_4bit_compute_dtype: "bfloat16",
  bnb_4bit_quant_storage: "uint8",
  bnb_4bit_quant_type: "nf4",
  bnb_4bit_use_double_quant: false,
  llm_int8_skip_modules: ["lm_head"],
  load_in_4bit: true,
  load_in_8bit: false,
  quant_method: "bitsandbytes",
};

/** Nibbles (the first of two elements high) and scales apart, of whole blocks; the last block may be short. */
export function encodeNf4(x: Float32Array): { packed: Uint8Array<ArrayBuffer>; absmax: Float32Array<ArrayBuffer> } {
  const whole = new Float32Array(Math.ceil(x.length / BLOCK) * BLOCK);
  whole.set(x);
  const blocks = quantizeNf4(whole), { bytes } = DTYPES.nf4, view = new DataView(blocks.buffer, blocks.byteOffset);
  const absmax = new Float32Array(whole.length / BLOCK), packed = new Uint8Array(whole.length / 2);
  for (let b = 0; b < absmax.length; b++) {
    packed.set(blocks.subarray(b * bytes, b * bytes + BLOCK / 2), b * BLOCK / 2);
    absmax[b] = view.getFloat32(b * bytes + BLOCK / 2, true);
  }
  return { packed: packed.slice(0, Math.ceil(x.length / 2)), absmax };
}

function* encoded(t: MergedTensor): Generator<ReturnType<typeof encodeNf4>> {
  for (const [from, to] of rowRanges(t, CHUNK, BLOCK)) yield encodeNf4(t.rows(from, to));
}

/** Whether transformers loads this tensor's module in 4 bits: linears of the blocks. */
export function isNf4(t: MergedTensor): boolean {
  return t.shape.length === 2 && t.ours.startsWith("layers.");
}

/** The tensors that stand for one weight. Packed nibbles and scales are made in two passes, so that none is held. */
export function nf4Tensors(t: MergedTensor): TensorToWrite[] {
  const n = t.shape[0]! * t.shape[1]!;
  const state = new TextEncoder().encode(
    JSON.stringify({ quant_type: "nf4", blocksize: BLOCK, dtype: "bfloat16", shape: t.shape }),
  );
  const bytes = (x: Float32Array) => new Uint8Array(x.buffer, x.byteOffset, x.byteLength);
  return [
    {
      name: t.hf,
      dtype: "u8",
      shape: [Math.ceil(n / 2), 1],
      *chunks() {
        for (const { packed } of encoded(t)) yield packed;
      },
    },
    {
      name: `${t.hf}.absmax`,
      dtype: "f32",
      shape: [Math.ceil(n / BLOCK)],
      *chunks() {
        for (const { absmax } of encoded(t)) yield bytes(absmax);
      },
    },
    { name: `${t.hf}.quant_map`, dtype: "f32", shape: [16], chunks: () => [bytes(NF4_VALUES)] },
    {
      name: `${t.hf}.quant_state.bitsandbytes__nf4`,
      dtype: "u8",
      shape: [state.length],
      chunks: () => [state],
    },
  ];
}

/** Half the widest gap between two values: what an element may be off, in units of its block's absmax. */
const WIDEST = (NF4_VALUES[1]! - NF4_VALUES[0]!) / 2;

/**
 * Reads the weights back and holds them against the merged ones, element by element.
 * @returns relative root mean square error over all of them
 * @throws {FormatError} with the first element that is not the nearest its block can say
 */
export function compareNf4(dir: string, model: MergedModel): number {
  const file = openSafetensorsFolder(dir);
  try {
    let [error, norm] = [0, 0];
    for (const t of model.tensors.filter(isNf4)) {
      const packed = readBytes(file.tensors.get(t.hf)!), absmax = readFloats(file.tensors.get(`${t.hf}.absmax`)!);
      for (const [from, to] of rowRanges(t, CHUNK)) {
        const x = t.rows(from, to);
        for (let i = 0, at = from * t.shape[1]!; i < x.length; i++, at++) {
          const top = absmax[Math.floor(at / BLOCK)]!;
          const off = x[i]! - top * NF4_VALUES[at % 2 ? packed[at >> 1]! & 15 : packed[at >> 1]! >> 4]!;
          if (!(Math.abs(off) <= top * WIDEST * 1.001)) {
            throw new FormatError(`Cannot accept '${t.hf}' of '${dir}': element ${at} is off by ${off}`, dir, at);
          }
          error += off * off;
          norm += x[i]! * x[i]!;
        }
      }
    }
    return Math.sqrt(error / norm);
  } finally {
    file.close();
  }
}
