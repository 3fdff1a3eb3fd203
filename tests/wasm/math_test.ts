/** exp, tanh, the normal distribution and rotary angles of the kernels against the host's f64, over all magnitudes. */
import { describe, expect, test } from "vitest";
import { Random } from "../../src/core/philox.ts";
import { erf } from "../reference/rows.ts";
import { compile } from "../../wasm/build.ts";
import { VARIANTS } from "../../wasm/micro_kernel.ts";

const ENTRY = `
import { exp1, expDown, expv, normalCdf, tanhv } from "./math";
import { cosSin } from "./trigonometry";
export function heap(): usize { return __heap_base; }
export function each(f: i32, from: usize, to: usize, n: i32): void {
  for (let i = 0; i < n; i += 4, from += 16, to += 16) {
    const x = v128.load(from);
    if (f === 0) v128.store(to, expv(x));
    else if (f === 1) v128.store(to, expDown(x));
    else if (f === 2) v128.store(to, tanhv(x));
    else if (f === 3) v128.store(to, normalCdf(x));
    else for (let j: usize = 0; j < 16; j += 4) store<f32>(to + j, exp1(load<f32>(from + j)));
  }
}
export function angle(position: f64, freqs: usize, n: i32, cos: usize, sin: usize): void {
  cosSin(position, freqs, n, cos, sin, 1, 1);
}
`;
const F = { expv: 0, expDown: 1, tanhv: 2, normalCdf: 3, exp1: 4 };

interface Kernels {
  heap(): number;
  each(f: number, from: number, to: number, n: number): void;
  angle(position: number, freqs: number, n: number, cos: number, sin: number): void;
}

/** Numbers of every magnitude and sign within ±most, and the places where the kernels change their formula. */
function samples(most: number): Float32Array {
  const r = new Random(11),
    out: number[] = [0, -0, 0.625, -0.625, 1, -1, Math.SQRT2, -Math.SQRT2, 2.8284271, -2.8284271];
  while (out.length < 40_000) {
    const x = r.uniform() < 0.5
      ? (2 * r.uniform() - 1) * most
      : (r.uniform() < 0.5 ? 1 : -1) * most * 2 ** (-40 * r.uniform());
    out.push(x);
  }
  return Float32Array.from(out);
}

/** Largest relative error where |want| is a normal f32, else the absolute error in units of the smallest normal. */
function worst(got: Float32Array, x: Float32Array, want: (x: number) => number): { error: number; at: number } {
  let error = 0, at = NaN;
  got.forEach((y, i) => {
    const w = want(x[i]), e = Math.abs(y - w) / Math.max(Math.abs(w), 1.2e-38);
    if (!(e <= error)) [error, at] = [e, x[i]];
  });
  return { error, at };
}

/** Φ(x) = ½·erfc(-x/√2), without cancellation in the left tail: Mills' continued fraction there. */
function cdf(x: number): number {
  if (x > -2.5) return 0.5 * (1 + erf(x / Math.SQRT2));
  let f = -x;
  for (let n = 200; n > 0; n--) f = -x + n / f;
  return Math.exp(-x * x / 2) / Math.sqrt(2 * Math.PI) / f;
}

describe.each(VARIANTS)("with the $name instructions", async (v) => {
  const memory = new WebAssembly.Memory({ initial: 16, maximum: 65536, shared: true });
  const module = await WebAssembly.compile((await compile(v, ENTRY)) as BufferSource);
  const k = (await WebAssembly.instantiate(module, { env: { memory } })).exports as unknown as Kernels;
  const from = Math.ceil(k.heap() / 16) * 16 + 16, room = 200_000;

  function run(f: keyof typeof F, x: Float32Array): Float32Array {
    new Float32Array(memory.buffer, from, x.length).set(x);
    k.each(F[f], from, from + room, x.length);
    return new Float32Array(memory.buffer, from + room, x.length).slice();
  }

  // f32 rounds to 6e-8; the polynomials and their rounding add about as much twice.
  test("exp is right to 2e-7 of its value, from the smallest normal number to the largest", () => {
    for (const f of ["expv", "exp1"] as const) {
      const x = samples(87.3), { error, at } = worst(run(f, x), x, Math.exp);
      expect(error, `${f}(${at})`).toBeLessThan(2e-7);
    }
    const x = samples(87.3).map((v) => -Math.abs(v)), { error, at } = worst(run("expDown", x), x, Math.exp);
    expect(error, `expDown(${at})`).toBeLessThan(2e-7);
  });

  test("exp ends in 0 and infinity, and NaN stays", () => {
    const x = Float32Array.of(-88, -1e30, -Infinity, NaN, 88.5, 100, Infinity, 0);
    expect([...run("expv", x)]).toEqual([0, 0, 0, NaN, Infinity, Infinity, Infinity, 1]);
    expect([...run("expDown", x)].slice(0, 4)).toEqual([0, 0, 0, NaN]);
  });

  test("tanh is right to 3e-7 of its value, near zero and far out", () => {
    const x = samples(100), { error, at } = worst(run("tanhv", x), x, Math.tanh);
    expect(error, `tanh(${at})`).toBeLessThan(3e-7);
    expect([...run("tanhv", Float32Array.of(0, NaN, Infinity, -Infinity))]).toEqual([0, NaN, 1, -1]);
  });

  test("the normal distribution is right to 3e-7 of 1, and in the left tail to the rounding of its exponent", () => {
    const x = samples(12), got = run("normalCdf", x);
    got.forEach((y, i) => expect(Math.abs(y - cdf(x[i])), `Φ(${x[i]})`).toBeLessThan(3e-7));
    // Φ(-1.4) = 0.08 is what is left of ½ + erf/2, which loses three bits; further out x²/2 is rounded twice,
    // to 6e-8 of itself, and e^(-x²/2) takes over that error times x²/2
    const left = x.map((v) => -Math.abs(v));
    run("normalCdf", left).forEach((y, i) => {
      const want = cdf(left[i]), bound = 1e-6 + 1.2e-7 * left[i] ** 2;
      expect(Math.abs(y - want), `Φ(${left[i]})`).toBeLessThan(bound * want + 1e-38);
    });
  });

  test("cosines and sines of rotary angles are right to f32's rounding up to position 1,000,000", () => {
    const r = new Random(5), freqs = Float32Array.from({ length: 33 }, (_, i) => i < 3 ? [0, 1, 1e-6][i] : r.uniform());
    for (const position of [0, 1, 7, 4095, 131071, 1_000_000, -12]) {
      new Float32Array(memory.buffer, from, 33).set(freqs);
      k.angle(position, from, 33, from + 1024, from + 2048);
      const cos = new Float32Array(memory.buffer, from + 1024, 33),
        sin = new Float32Array(memory.buffer, from + 2048, 33);
      freqs.forEach((f, i) => {
        expect(Math.abs(cos[i] - Math.cos(position * f)), `cos(${position}·${f})`).toBeLessThan(6e-8);
        expect(Math.abs(sin[i] - Math.sin(position * f)), `sin(${position}·${f})`).toBeLessThan(6e-8);
      });
    }
  });
});
