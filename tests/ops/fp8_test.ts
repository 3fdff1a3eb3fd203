/**
 * The 8-bit base weight: rounding on the device against the specification, and products with it against f64 sums of the same
 * rounded numbers. Where no backend holds the type, the tests say so and the host's rounding alone is tested.
 */
import { afterAll, describe, expect, test } from "vitest";
import type { Backend } from "../../src/core/backend.ts";
import type { DType } from "../../src/core/dtype.ts";
import { byteLength, type Tensor } from "../../src/core/tensor.ts";
import { roundTiles } from "../../src/formats/fp8.ts";
import { Random } from "../../src/core/philox.ts";
import { fromFp8, toFp8 } from "../reference/codec.ts";
import { findBackends } from "./backends.ts";
import { storeAs } from "./values.ts";

const { present, refused } = await findBackends();
afterAll(() => present.forEach((p) => p.be.close()));
const able = present.filter((p) => p.be.supports("fp8_128") && p.be.name !== "recording");

/** By the specification: y = e4m3(x · 448/amax), value = y · amax/448, in f32 steps. */
function rounded(x: number, amax: number): number {
  if (amax === 0) return 0;
  const y = Math.fround(Math.fround(x) * Math.fround(448 / amax));
  return Math.fround(fromFp8(toFp8(y)) * Math.fround(amax / 448));
}

/** A matrix with what makes rounding hard: tiny squares, a zero square, outliers, ties. */
function weights(R: number, C: number): Float64Array {
  const random = new Random(7);
  return Float64Array.from({ length: R * C }, (_, i) => {
    const r = Math.floor(i / C), c = i % C, square = Math.floor(r / 128) + Math.floor(c / 128);
    const v = 0.02 * random.normal();
    return square === 1 ? 0 : square === 2 ? v * 1e-6 : i % 997 === 0 ? 30 * v : i % 31 === 0 ? (i % 15 - 7) / 64 : v;
  });
}

/** Every square of 128 rounded with its own largest value. */
function bySquares(x: ArrayLike<number>, R: number, C: number): Float64Array {
  const out = new Float64Array(R * C);
  for (let r0 = 0; r0 < R; r0 += 128) {
    for (let c0 = 0; c0 < C; c0 += 128) {
      const at: number[] = [];
      for (let r = r0; r < r0 + 128; r++) for (let c = c0; c < c0 + 128; c++) at.push(r * C + c);
      const amax = at.reduce((m, i) => Math.max(m, Math.abs(x[i])), 0);
      for (const i of at) out[i] = rounded(x[i], amax);
    }
  }
  return out;
}

/** Every 128 elements of a row rounded with their own largest value. */
function byRows(x: ArrayLike<number>, R: number, C: number): Float64Array {
  const out = new Float64Array(R * C);
  for (let at = 0; at < R * C; at += 128) {
    let amax = 0;
    for (let i = at; i < at + 128; i++) amax = Math.max(amax, Math.abs(x[i]));
    for (let i = at; i < at + 128; i++) out[i] = rounded(x[i], amax);
  }
  return out;
}

/** c [M,N] = Σ a[m,k] b(k,n). */
function multiply(M: number, N: number, K: number, a: Float64Array, b: (k: number, n: number) => number): Float64Array {
  const c = new Float64Array(M * N);
  for (let m = 0; m < M; m++) {
    for (let n = 0; n < N; n++) for (let k = 0; k < K; k++) c[m * N + n] += a[m * K + k] * b(k, n);
  }
  return c;
}

function distance(got: ArrayLike<number>, want: ArrayLike<number>): number {
  let d = 0, w = 0;
  for (let i = 0; i < want.length; i++) d += (got[i] - want[i]) ** 2, w += want[i] ** 2;
  return Math.sqrt(d / w);
}

function room(be: Backend, dtype: DType, ...shape: number[]): Tensor {
  const t = { handle: 0, byteOffset: 0, dtype, shape };
  return { ...t, handle: be.alloc(byteLength(t)) };
}
/** A tensor that holds the values as its type does; and those. */
function put(be: Backend, dtype: DType, values: ArrayLike<number>, ...shape: number[]): [Tensor, Float64Array] {
  const t = room(be, dtype, ...shape), s = storeAs(dtype, values);
  be.upload(t, s.bytes);
  return [t, s.values];
}
/** A tensor's values, read through f32. */
async function get(be: Backend, t: Tensor): Promise<Float32Array> {
  const f = t.dtype === "f32" ? t : room(be, "f32", ...t.shape),
    out = new Float32Array(t.shape.reduce((a, b) => a * b));
  if (f !== t) be.copy(f, t);
  await be.download(f, out);
  return out;
}
const normals = (n: number, seed: number, size = 1) => {
  const random = new Random(seed);
  return Float64Array.from({ length: n }, () => size * random.normal());
};

/**
 * A feed-forward's forward and backward over 8-bit weights, everything issued at once and with a wait after each call: the distance
 * of each result. Its adapters are zeros where they would add to a wide result.
 */
async function feedForwardApart(be: Backend, N: number, F: number): Promise<Record<string, number>> {
  const D = 256, r = 16, act = be.actDtype, mine: number[] = [];
  const own = (dtype: DType, ...shape: number[]) => {
    const t = room(be, dtype, ...shape);
    return mine.push(t.handle), t;
  };
  const filled = (seed: number, size: number, dtype: DType, ...shape: number[]) => {
    const t = own(dtype, ...shape);
    be.upload(t, storeAs(dtype, normals(shape.reduce((a, b) => a * b), seed, size)).bytes);
    return t;
  };
  const weight = (seed: number, R: number, C: number) => {
    const w = own("fp8_128", R, C);
    be.quantizeFp8(w, filled(seed, 0.02, act, R, C), 0);
    return w;
  };
  const [up, down] = [weight(1, F, D), weight(2, D, F)],
    zeros = filled(3, 0, "f32", r, D),
    wide = filled(4, 0.05, "f32", r, F);
  const b = filled(5, 0.05, "f32", F, r), xa = filled(6, 1, act, N, r);
  const run = async (pause: () => Promise<void>) => {
    const gate = filled(7, 2, act, N, F),
      u = filled(8, 1, act, N, F),
      h = own(act, N, F),
      y = own(act, N, D),
      dx = own(act, N, D);
    const low = own(act, N, r), dyb = own(act, N, r), da = filled(9, 0, "f32", r, F), db = filled(10, 0, "f32", F, r);
    for (
      const call of [
        () => be.glu(h, gate, u, "silu"),
        () => be.matmul(y, h, down, null, { transB: true }),
        () => be.matmul(low, h, wide, null, { transB: true }),
        () => be.matmul(y, low, { ...zeros, shape: [D, r] }, null, { transB: true, beta: 1 }),
        () => be.forget?.(h),
      ]
    ) call(), await pause();
    const dh = filled(11, 1, act, N, F);
    be.gluBwd(gate, u, dh, dh, gate, u, "silu");
    await pause();
    be.matmul(da, xa, dh, null, { transA: true, beta: 1 });
    await pause();
    be.forget?.(dh);
    for (const [i, d] of [u, gate].entries()) {
      be.matmul(dyb, d, b, null, {});
      await pause();
      be.matmul(db, d, xa, null, { transA: true, beta: 1 });
      await pause();
      be.matmul(dx, d, up, null, { beta: i ? 1 : 0 });
      await pause();
      be.matmul(dx, dyb, zeros, null, { beta: 1 });
      await pause();
    }
    for (const t of [gate, u]) be.forget?.(t);
    await be.fence();
    return { y, dx, low, dyb, da, db };
  };
  try {
    const at = await run(() => Promise.resolve()),
      apart = await run(() => be.fence()),
      off: Record<string, number> = {};
    for (const [name, t] of Object.entries(at)) {
      off[name] = distance(await get(be, t), await get(be, apart[name as "y"]));
    }
    return off;
  } finally {
    mine.forEach((handle) => be.free(handle));
  }
}

test("the host rounds squares of 128 as the specification says", () => {
  const [R, C] = [256, 384], x = Float32Array.from(weights(R, C)), want = bySquares(x, R, C);
  roundTiles(x, R, C);
  expect(distance(x, want)).toBe(0);
});

describe("8-bit weights", () => {
  if (able.length === 0) test.skip(`no backend here holds fp8_128: ${refused.join("; ")}`, () => {});
  for (const { label, be } of able) {
    const [R, C] = [256, 384], act = be.actDtype;
    /** A weight on the device, rounded in two parts, and its values. */
    const weight = (): [Tensor, Float64Array] => {
      const [x, exact] = put(be, act, weights(R, C), R, C), w = room(be, "fp8_128", R, C);
      be.quantizeFp8(w, { ...x, shape: [128, C] }, 0);
      be.quantizeFp8(w, { ...x, byteOffset: byteLength({ ...x, shape: [128, C] }), shape: [128, C] }, 128);
      return [w, bySquares(exact, R, C)];
    };
    // Sums of 128 products in the matrix units keep some 14 bits (DeepSeek-V3, 3.3.2); the result is rounded to 16 bits.
    const BOUND = act === "f32" ? 4e-6 : 4e-3;

    test(`rounding gives the host's bits on ${label}`, async () => {
      const [w, want] = weight();
      expect(distance(await get(be, w), want)).toBe(0);
    });

    for (const M of [64, 200, 5]) {
      const inputs = (x: Float64Array, K: number) => act === "f32" || M < 64 ? x : byRows(x, M, K);
      test(`products of ${M} rows, forward and input gradient, on ${label}`, async () => {
        const [w, W] = weight(),
          [x, X] = put(be, act, normals(M * C, 1), M, C),
          [dy, DY] = put(be, act, normals(M * R, 2), M, R);
        const y = room(be, act, M, R), dx = room(be, act, M, C);
        be.matmul(y, x, w, null, { transB: true });
        be.matmul(dx, dy, w, null, {});
        const wantY = multiply(M, R, C, inputs(X, C), (k, n) => W[n * C + k]);
        const wantX = multiply(M, C, R, inputs(DY, R), (k, n) => W[k * C + n]);
        expect(distance(await get(be, y), wantY) < BOUND).toBe(true);
        expect(distance(await get(be, dx), wantX) < BOUND).toBe(true);
      });

      test(`a linear with an adapter, ${M} rows, on ${label}`, async () => {
        const r = 16, [w, W] = weight(), [x, X] = put(be, act, normals(M * C, 3), M, C);
        const [a, A] = put(be, "f32", normals(r * C, 4, 0.05), r, C),
          [b, B] = put(be, "f32", normals(R * r, 5, 0.05), R, r);
        const y = room(be, act, M, R), low = room(be, act, M, r);
        be.matmul(y, x, w, null, { transB: true });
        be.matmul(low, x, a, null, { transB: true });
        be.matmul(y, low, b, null, { transB: true, alpha: 2, beta: 1 });
        const want = multiply(M, R, C, inputs(X, C), (k, n) => W[n * C + k]);
        const xa = multiply(M, r, C, X, (k, n) => A[n * C + k]),
          more = multiply(M, R, r, xa, (k, n) => 2 * B[n * r + k]);
        for (let i = 0; i < want.length; i++) want[i] += more[i];
        expect(distance(await get(be, y), want) < 1.5 * BOUND).toBe(true);
      });
    }

    test(`the input gradient of a linear with an adapter, and dB, on ${label}`, async () => {
      const M = 200, r = 16, [w, W] = weight(), [dy, DY] = put(be, act, normals(M * R, 11), M, R);
      const [a, A] = put(be, "f32", normals(r * C, 12, 0.05), r, C),
        [b, B] = put(be, "f32", normals(R * r, 13, 0.05), R, r);
      const [xa, XA] = put(be, act, normals(M * r, 14), M, r), [db] = put(be, "f32", new Float64Array(R * r), R, r);
      const dx = room(be, act, M, C), dyb = room(be, act, M, r);
      be.matmul(dyb, dy, b, null, { alpha: 2 });
      be.matmul(dx, dy, w, null, {});
      be.matmul(dx, dyb, a, null, { beta: 1 });
      be.matmul(db, dy, xa, null, { transA: true, alpha: 2, beta: 1 });
      const want = multiply(M, C, R, act === "f32" ? DY : byRows(DY, M, R), (k, n) => W[k * C + n]);
      const DYB = multiply(M, r, R, DY, (k, n) => 2 * B[k * r + n]),
        more = multiply(M, C, r, DYB, (k, n) => A[k * C + n]);
      for (let i = 0; i < want.length; i++) want[i] += more[i];
      expect(distance(await get(be, dx), want) < 1.5 * BOUND).toBe(true);
      expect(distance(await get(be, dyb), DYB) < BOUND).toBe(true);
      const across = Float64Array.from(DY, (_, j) => DY[(j % M) * R + Math.floor(j / M)]);
      expect(distance(await get(be, db), multiply(R, r, M, across, (k, n) => 2 * XA[k * r + n])) < BOUND).toBe(true);
    });

    // On CUDA another kernel rounds x where it also multiplies it by an adapter.
    test(`an adapter of zeros changes no bit on ${label}`, async () => {
      for (const M of [64, 200, 1100]) {
        const r = 16, [w] = weight(), [x] = put(be, act, normals(M * C, 15), M, C);
        const [a] = put(be, "f32", normals(r * C, 16), r, C), [b] = put(be, "f32", new Float64Array(R * r), R, r);
        const y = room(be, act, M, R), z = room(be, act, M, R), low = room(be, act, M, r);
        be.matmul(y, x, w, null, { transB: true });
        const plain = await get(be, y);
        be.matmul(z, x, w, null, { transB: true });
        be.matmul(low, x, a, null, { transB: true });
        be.matmul(z, low, b, null, { transB: true, beta: 1 });
        expect(distance(await get(be, z), plain)).toBe(0);
      }
    });

    // On CUDA one pass makes the activation, its 8-bit copy and the thin products; with adapters of zeros no bit may tell.
    for (const [N, F] of [[200, 384], [1100, 640], [9000, 640]]) {
      test(`a feed-forward of ${F} over ${N} rows gives the bits that it gives apart on ${label}`, async () => {
        const off = await feedForwardApart(be, N, F);
        expect(off.y + off.dx).toBe(0);
        for (const name of ["low", "dyb", "da", "db"]) {
          expect(off[name] < (act === "f32" ? 1e-6 : 4e-3), name).toBe(true);
        }
      });
    }

    test(`two products that share their input, and a sum of three, on ${label}`, async () => {
      const M = 136, [w, W] = weight(), [v, V] = weight(), [x, X] = put(be, act, normals(M * C, 8), M, C);
      const y = room(be, act, M, R), z = room(be, act, M, R), dx = room(be, act, M, C);
      be.matmul(y, x, w, null, { transB: true });
      be.matmul(z, x, v, null, { transB: true });
      const Y = await get(be, y), Z = await get(be, z), q = act === "f32" ? X : byRows(X, M, C);
      const want = multiply(M, R, C, q, (k, n) => W[n * C + k]);
      expect(distance(Y, want) < BOUND).toBe(true);
      expect(distance(Z, want) < BOUND).toBe(true);
      const [dy, DY] = put(be, act, normals(M * R, 9), M, R), [dz, DZ] = put(be, act, normals(M * R, 10, 3), M, R);
      be.matmul(dx, dy, w, null, {});
      be.matmul(dx, dz, v, null, { beta: 1 });
      const qy = act === "f32" ? DY : byRows(DY, M, R), qz = act === "f32" ? DZ : byRows(DZ, M, R);
      const sum = multiply(M, C, R, qy, (k, n) => W[k * C + n]), second = multiply(M, C, R, qz, (k, n) => V[k * C + n]);
      for (let i = 0; i < sum.length; i++) sum[i] += second[i];
      expect(distance(await get(be, dx), sum) < BOUND).toBe(true);
    });
  }
});
