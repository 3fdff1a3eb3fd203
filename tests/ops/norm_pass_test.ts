/**
 * An RMS norm and the thin products of the adapters that read its rows, issued together as a layer issues them: a backend may
 * make the norm in their pass. Against the formula, and to the bit against the same calls one by one, since a backward may make
 * the norm again alone. Rank 16; sizes lie off every tile, and some give a group of blocks many tiles.
 */
import { afterAll, describe, expect, test } from "vitest";
import type { Backend, NormOpts } from "../../src/core/backend.ts";
import type { DType } from "../../src/core/dtype.ts";
import { Random } from "../../src/core/philox.ts";
import { byteLength, type Tensor } from "../../src/core/tensor.ts";
import { findBackends } from "./backends.ts";
import { product } from "./formulas.ts";
import { type Case, input, output, type Spec, testOp } from "./harness.ts";
import { storeAs } from "./values.ts";

const R = 16;
type Size = [rows: number, columns: number, adapters: number];
const SIZES: Size[] = [[201, 1160, 3], [137, 200, 2], [72, 8192, 1], [1100, 136, 1], [210, 3072, 3], [5000, 136, 1]];
/** Too many numbers for a formula or for WASM. */
const LARGE: Size[] = [[2100, 3072, 3], [5000, 264, 2], [8192, 2048, 2], [1000, 8192, 1], [64, 128, 3]];
const opts = (plusOne: boolean): NormOpts => ({ kind: "rms", eps: 1e-5, plusOne });
const counted = (n: number) => Array.from({ length: n }, (_, i) => i);

/** y, its statistics, and y·A_iᵀ of each adapter. */
function together([N, K, adapters]: Size, plusOne: boolean, weight: Spec["dtype"]): Case {
  const each = counted(adapters), o = opts(plusOne);
  const tensors: Record<string, Spec> = {
    ...{ x: input([N, K], 3), w: input([K], 1, weight), y: output([N, K]), stat: output([N, 2], "f32") },
  };
  for (const i of each) tensors[`a${i}`] = input([R, K], 0.05, "f32"), tensors[`ya${i}`] = output([N, R]);
  return {
    name: `norm${plusOne ? " by 1 + w" : ""} [${N},${K}], w ${weight}, under ${adapters} adapters`,
    tensors,
    run: (be, t) => {
      be.norm(t.y, t.stat, t.x, t.w, null, o);
      each.forEach((i) => be.matmul(t[`ya${i}`], t.y, t[`a${i}`], null, { transB: true }));
    },
    formula: (v) => {
      const y = new Float64Array(N * K),
        stat = new Float64Array(2 * N),
        out: Record<string, Float64Array> = { y, stat };
      for (let n = 0; n < N; n++) {
        let squares = 0;
        for (let k = 0; k < K; k++) squares += v.x[n * K + k] ** 2;
        const rstd = stat[2 * n + 1] = 1 / Math.sqrt(squares / K + o.eps);
        for (let k = 0; k < K; k++) y[n * K + k] = v.x[n * K + k] * rstd * (v.w[k] + (plusOne ? 1 : 0));
      }
      for (const i of each) out[`ya${i}`] = product(N, R, K, y, v[`a${i}`], { tb: true });
      return out;
    },
  };
}

testOp("norm", SIZES.map((s, i) => together(s, i % 2 === 1, i % 3 === 2 ? "f32" : "act")));

const { present } = await findBackends();
afterAll(() => present.forEach((p) => p.be.close()));

/** Tensors of one test on a backend. */
class Desk {
  readonly #be: Backend;
  readonly #made: Tensor[] = [];
  constructor(be: Backend) {
    this.#be = be;
  }
  room(dtype: DType, ...shape: number[]): Tensor {
    const t = { handle: 0, byteOffset: 0, dtype, shape }, made = { ...t, handle: this.#be.alloc(byteLength(t)) };
    this.#made.push(made);
    return made;
  }
  normals(dtype: DType, seed: number, size: number, ...shape: number[]): Tensor {
    const t = this.room(dtype, ...shape), random = new Random(seed), n = shape.reduce((a, b) => a * b);
    this.#be.upload(t, storeAs(dtype, Float64Array.from({ length: n }, () => size * random.normal())).bytes);
    return t;
  }
  /** Its values through f32, which holds those of 16 bits. */
  async values(t: Tensor): Promise<Float32Array> {
    const f = t.dtype === "f32" ? t : this.room("f32", ...t.shape);
    const out = new Float32Array(t.shape.reduce((a, b) => a * b));
    if (f !== t) this.#be.copy(f, t);
    await this.#be.download(f, out);
    return out;
  }
  clear(): void {
    for (const t of this.#made) this.#be.free(t.handle);
  }
}

const differences = (a: Float32Array, b: Float32Array): number =>
  a.reduce((n, x, i) => n + (Object.is(x, b[i]) ? 0 : 1), 0);

/** Names of the results, and how many of their numbers differ when every call is waited for. */
async function compare(
  be: Backend,
  [N, K, adapters]: Size,
  plusOne: boolean,
  base: boolean,
): Promise<Record<string, number>> {
  const desk = new Desk(be), act = be.actDtype, o = opts(plusOne), O = 256;
  try {
    const x = desk.normals(act, 1, 3, N, K), w = desk.normals(act, 2, 0.5, K);
    const a = counted(adapters).map((i) => desk.normals("f32", 3 + i, 0.05, R, K));
    const weight = base ? desk.room("fp8_128", O, K) : null;
    if (weight) be.quantizeFp8(weight, desk.normals(act, 9, 0.02, O, K), 0);
    const run = async (pause: () => Promise<void>) => {
      const y = desk.room(act, N, K), stat = desk.room("f32", N, 2), out = desk.room(act, N, O);
      const ya = a.map(() => desk.room(act, N, R));
      be.norm(y, stat, x, w, null, o);
      await pause();
      if (weight) be.matmul(out, y, weight, null, { transB: true });
      await pause();
      a.forEach((b, i) => be.matmul(ya[i], y, b, null, { transB: true }));
      await be.fence();
      const again = desk.room(act, N, K);
      if (be.renorm) be.renorm(again, x, stat, w, null, o);
      else be.copy(again, y);
      const found: Record<string, Tensor> = { y, stat, again, ...weight ? { out } : {} };
      ya.forEach((t, i) => found[`ya${i}`] = t);
      return found;
    };
    const at = await run(() => Promise.resolve()),
      apart = await run(() => be.fence()),
      off: Record<string, number> = {};
    for (const name of Object.keys(at)) {
      off[name] = differences(await desk.values(at[name]), await desk.values(apart[name]));
    }
    off.again += differences(await desk.values(at.again), await desk.values(at.y));
    return off;
  } finally {
    desk.clear();
  }
}

/** No value of any result differs; tests/gpu/mini_vitest.ts has no toEqual. */
function expectNone(off: Record<string, number>): void {
  for (const [name, count] of Object.entries(off)) expect(count, `${name}: values that differ`).toBe(0);
}

describe("a norm with its thin products gives the bits that it gives alone", () => {
  for (const { label, be } of present) {
    if (be.name === "reference" || be.name === "recording") continue;
    const base = be.supports("fp8_128");
    [...SIZES, ...be.name === "wasm" ? [] : LARGE].forEach((s, i) =>
      test(`[${s}]${i % 2 ? "" : " by 1 + w"} on ${label}`, async () => {
        const off = await compare(be, s, i % 2 === 0, false);
        expectNone(off);
      })
    );
    for (const s of base ? [[200, 256, 1], [137, 1152, 3], [5000, 384, 2], [72, 8192, 1]] as Size[] : []) {
      test(`[${s}] under an 8-bit weight on ${label}`, async () => {
        const off = await compare(be, s, false, true);
        expectNone(off);
      });
    }
  }
});
