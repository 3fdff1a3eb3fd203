/**
 * Philox4x32-10, the counter-based generator of Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011).
 * The same (seed, step, stream, element) gives the same number on every backend and in every pass, so a recomputed block
 * drops the same elements. Constants are the paper's.
 * @module
 */
const M0 = 0xd2511f53, M1 = 0xcd9e8d57, W0 = 0x9e3779b9, W1 = 0xbb67ae85;

/** High word of (ah·2^16 + al) · b in 32-bit integers, as bits. */
function high(ah: number, al: number, b: number): number {
  const bl = b & 0xffff, bh = b >>> 16, lh = Math.imul(al, bh), hl = Math.imul(ah, bl);
  const mid = (Math.imul(al, bl) >>> 16) + (lh & 0xffff) + (hl & 0xffff);
  return (Math.imul(ah, bh) + (lh >>> 16) + (hl >>> 16) + (mid >>> 16)) | 0;
}

/** The ten rounds, their four words to `out` from `at`: integers as bits, no arrays, since adapters start with millions. */
function rounds(
  out: Uint32Array,
  at: number,
  c0: number,
  c1: number,
  c2: number,
  c3: number,
  k0: number,
  k1: number,
): void {
  for (let round = 0; round < 10; round++) {
    const h0 = high(0xd251, 0x1f53, c0), h1 = high(0xcd9e, 0x8d57, c2);
    const l0 = Math.imul(M0, c0), l1 = Math.imul(M1, c2);
    c0 = h1 ^ c1 ^ k0;
    c1 = l1;
    c2 = h0 ^ c3 ^ k1;
    c3 = l0;
    k0 = (k0 + W0) | 0;
    k1 = (k1 + W1) | 0;
  }
  out[at] = c0;
  out[at + 1] = c1;
  out[at + 2] = c2;
  out[at + 3] = c3;
}

/**
 * Four u32 from a 128-bit counter and a 64-bit key.
 * dropout and noise use counter = (element >> 2, stream, 0, 0), key = (seed[0], seed[1]) and take word `element & 3`.
 */
export function philox4x32(
  counter: readonly [number, number, number, number],
  key: readonly [number, number],
): [number, number, number, number] {
  const out = new Uint32Array(4), [c0, c1, c2, c3] = counter;
  rounds(out, 0, c0 | 0, c1 | 0, c2 | 0, c3 | 0, key[0] | 0, key[1] | 0);
  return [out[0], out[1], out[2], out[3]];
}

/** Whether dropout keeps `element`: its u32 is at or over p·2^32. */
export function keeps(seed: readonly [number, number], stream: number, element: number, p: number): boolean {
  const words = philox4x32([Math.floor(element / 4) >>> 0, stream >>> 0, 0, 0], [seed[0] >>> 0, seed[1] >>> 0]);
  return words[element % 4] >= p * 4294967296;
}

/** noise's number for `element`, uniform in (-1, 1): (2·u32 + 1) / 2^32 - 1, exact in f64. */
export function symmetric(seed: readonly [number, number], stream: number, element: number): number {
  const words = philox4x32([Math.floor(element / 4) >>> 0, stream >>> 0, 0, 0], [seed[0] >>> 0, seed[1] >>> 0]);
  return (2 * words[element % 4] + 1) / 4294967296 - 1;
}

/** The words of counters (n, stream, 1), (n + 1, stream, 1), … one after the other. */
function fillWords(out: Uint32Array, n: number, stream: number, seed: number): void {
  const k1 = Math.floor(seed / 4294967296);
  for (let i = 0; i < out.length; i += 4, n++) {
    rounds(out, i, n | 0, Math.floor(n / 4294967296) | 0, stream | 0, 1, seed | 0, k1 | 0);
  }
}

/** A stream of numbers on the host for initialisation and sampling: uniform in [0, 1) and standard normal. */
export class Random {
  #n = 0;
  #spare: number | null = null;
  #words = new Uint32Array(0);
  #at = 0;
  readonly #seed: number;
  readonly #stream: number;

  constructor(seed: number, stream = 0) {
    this.#seed = seed;
    this.#stream = stream;
  }

  /** Next u32. */
  u32(): number {
    if (this.#at === this.#words.length) {
      this.#words = new Uint32Array(Math.min(4096, 4 * this.#words.length || 4));
      fillWords(this.#words, this.#n, this.#stream, this.#seed);
      this.#n += this.#words.length / 4;
      this.#at = 0;
    }
    return this.#words[this.#at++];
  }

  /** Uniform in [0, 1), 53 bits. */
  uniform(): number {
    return ((this.u32() >>> 5) * 67108864 + (this.u32() >>> 6)) / 9007199254740992;
  }

  /** Standard normal, Box-Muller. */
  normal(): number {
    if (this.#spare !== null) {
      const s = this.#spare;
      this.#spare = null;
      return s;
    }
    const r = Math.sqrt(-2 * Math.log(1 - this.uniform())), a = 2 * Math.PI * this.uniform();
    this.#spare = r * Math.sin(a);
    return r * Math.cos(a);
  }

  /** Uniform integer in [0, n). */
  below(n: number): number {
    return Math.floor(this.uniform() * n);
  }
}
