/**
 * The formats in super-blocks of 256 elements: K-quants and IQ4_XS. Layouts: ggml-common.h; see dequantize.ts for why
 * plain arithmetic gives ggml's last bit.
 * @module
 */
import type { DType } from "../core/dtype.ts";
import { IQ4_VALUES } from "./block_values.ts";
import { halves } from "./float16.ts";

type Decode = (b: Uint8Array, y: Float32Array, blocks: number) => void;

/** The half at byte `p`. */
function halfAt(b: Uint8Array, p: number): number {
  return halves()[b[p]! | b[p + 1]! << 8]!;
}

/** q4_k and q5_k: scale of sub-block `s` of the 12 bytes at `p` (6 bits each, ggml's get_scale_min_k4). */
function scale6(b: Uint8Array, p: number, s: number): number {
  return s < 4 ? b[p + s]! & 63 : (b[p + s + 4]! & 15) | (b[p + s - 4]! >> 6) << 4;
}

/** q4_k and q5_k: minimum of sub-block `s`. */
function min6(b: Uint8Array, p: number, s: number): number {
  return s < 4 ? b[p + s + 4]! & 63 : b[p + s + 4]! >> 4 | (b[p + s]! >> 6) << 4;
}

/** scales[16] (low nibble scale, high nibble min), qs[64], d, dmin. */
const q2_k: Decode = (b, y, blocks) => {
  for (let i = 0, p = 0, at = 0; i < blocks; i++, p += 84, at += 256) {
    const d = halfAt(b, p + 80);
    const dmin = halfAt(b, p + 82);
    for (let g = 0; g < 16; g++) {
      const dl = d * (b[p + g]! & 15);
      const ml = dmin * (b[p + g]! >> 4);
      const qs = p + 16 + 32 * (g >> 3) + 16 * (g & 1);
      const shift = 2 * ((g & 7) >> 1);
      for (let l = 0; l < 16; l++) y[at + 16 * g + l] = dl * (b[qs + l]! >> shift & 3) - ml;
    }
  }
};

/** hmask[32], qs[64], scales[12], d. */
const q3_k: Decode = (b, y, blocks) => {
  for (let i = 0, p = 0, at = 0; i < blocks; i++, p += 110, at += 256) {
    const d = halfAt(b, p + 108);
    const sc = p + 96;
    for (let g = 0; g < 16; g++) {
      const low = g < 8 ? b[sc + g]! & 15 : b[sc + g - 8]! >> 4;
      const dl = d * ((low | (b[sc + 8 + g % 4]! >> 2 * (g >> 2) & 3) << 4) - 32);
      const half16 = 16 * (g & 1);
      const qs = p + 32 + 32 * (g >> 3) + half16;
      const shift = 2 * ((g & 7) >> 1);
      for (let l = 0; l < 16; l++) {
        const high = b[p + half16 + l]! >> (g >> 1) & 1;
        y[at + 16 * g + l] = dl * ((b[qs + l]! >> shift & 3) - (high ? 0 : 4));
      }
    }
  }
};

/** d, dmin, scales[12], then for q5_k qh[32], then qs[128]. */
function q45_k(bytes: number, five: boolean): Decode {
  return (b, y, blocks) => {
    for (let i = 0, p = 0, at = 0; i < blocks; i++, p += bytes, at += 256) {
      const d = halfAt(b, p);
      const dmin = halfAt(b, p + 2);
      const qh = p + 16;
      for (let s = 0; s < 8; s++) {
        const dl = d * scale6(b, p + 4, s);
        const ml = dmin * min6(b, p + 4, s);
        const qs = p + (five ? 48 : 16) + 32 * (s >> 1);
        const shift = 4 * (s & 1);
        for (let l = 0; l < 32; l++) {
          const q = (b[qs + l]! >> shift & 15) | (five ? (b[qh + l]! >> s & 1) << 4 : 0);
          y[at + 32 * s + l] = dl * q - ml;
        }
      }
    }
  };
}

/** ql[128], qh[64], i8 scales[16], d. */
const q6_k: Decode = (b, y, blocks) => {
  for (let i = 0, p = 0, at = 0; i < blocks; i++, p += 210, at += 256) {
    const d = halfAt(b, p + 208);
    for (let g = 0; g < 16; g++) {
      const n = g >> 3;
      const k = (g & 7) >> 1;
      const half16 = 16 * (g & 1);
      const dl = d * (b[p + 192 + g]! << 24 >> 24);
      const ql = p + 64 * n + 32 * (k & 1) + half16;
      const qh = p + 128 + 32 * n + half16;
      for (let l = 0; l < 16; l++) {
        const q = (b[ql + l]! >> (k & 2 ? 4 : 0) & 15) | (b[qh + l]! >> 2 * k & 3) << 4;
        y[at + 16 * g + l] = dl * (q - 32);
      }
    }
  }
};

/** d, scales_h (16 bits), scales_l[4], qs[128]. */
const iq4_xs: Decode = (b, y, blocks) => {
  for (let i = 0, p = 0, at = 0; i < blocks; i++, p += 136, at += 256) {
    const d = halfAt(b, p);
    const high = b[p + 2]! | b[p + 3]! << 8;
    for (let s = 0; s < 8; s++) {
      const ls = (b[p + 4 + (s >> 1)]! >> 4 * (s & 1) & 15) | (high >> 2 * s & 3) << 4;
      const dl = d * (ls - 32);
      const qs = p + 8 + 16 * s;
      for (let l = 0; l < 16; l++) {
        y[at + 32 * s + l] = dl * IQ4_VALUES[b[qs + l]! & 15]!;
        y[at + 32 * s + 16 + l] = dl * IQ4_VALUES[b[qs + l]! >> 4]!;
      }
    }
  }
};

const DECODERS: Partial<Record<DType, Decode>> = {
  q2_k,
  q3_k,
  q4_k: q45_k(144, false),
  q5_k: q45_k(176, true),
  q6_k,
  iq4_xs,
};

/** Decodes `blocks` super-blocks of `b` into `y`, f32 [256 · blocks]. */
export function dequantizeK(dtype: DType, b: Uint8Array, y: Float32Array, blocks: number): void {
  DECODERS[dtype]!(b, y, blocks);
}
