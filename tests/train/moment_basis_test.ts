/** The optimiser's state in a new basis, against the state of an optimiser that saw the gradients in that basis all along. */
import { describe, expect, test } from "vitest";
import { RecordingBackend } from "../../src/core/recording.ts";
import { Random } from "../../src/core/philox.ts";
import { numel } from "../../src/core/tensor.ts";
import { Params } from "../../src/nn/params.ts";
import { dynamicCode } from "../../src/train/dynamic_code.ts";
import { changeBasis, type Square } from "../../src/train/low_rank.ts";
import { floatsOf, HostMoments, putDirections, type Side, takeDirections } from "../../src/train/moment_basis.ts";
import type { HostTensor } from "../../src/train/state.ts";

const random = new Random(9), BETAS = [0.9, 0.99], STEPS = 60, R = 3, N = 700;
// A [3,700] and B [700,3], each between two others in its slab, so that a wrong offset shows.
const SPECS = ["x", "y", "z"].flatMap((m) => [
  { name: `${m}.lora_A.weight`, shape: [R, N] },
  { name: `${m}.lora_B.weight`, shape: [N, R] },
]);
const params = new Params(new RecordingBackend({ actDtype: "f32" }), SPECS);
const host = (values: Float32Array): HostTensor => ({
  ...{ dtype: "f32", shape: [values.length], bytes: new Uint8Array(values.buffer) },
});

/** An invertible matrix that is no rotation. */
const C: Square = Float64Array.of(0.9, -0.4, 0.2, 0.3, 1.1, -0.5, 0.1, 0.6, 0.8);
const PERMUTATION: Square = Float64Array.of(0, 1, 0, 0, 0, 1, 1, 0, 0);

/** Adam's moments over gradients with a mean and independent noise, and the same in the basis `c`. */
function history(c: Square, noise: number) {
  const zero = () => Array.from({ length: R }, () => new Float64Array(N));
  const old = { m: zero(), v: zero() }, turned = { m: zero(), v: zero() };
  const mean = zero().map((x) => x.map(() => random.normal()));
  for (let t = 0; t < STEPS; t++) {
    const g = mean.map((x) => x.map((value) => value + noise * random.normal()));
    for (const [state, gradient] of [[old, g], [turned, changeBasis(g, c)]] as const) {
      gradient.forEach((x, i) =>
        x.forEach((value, n) => {
          state.m[i][n] = BETAS[0] * state.m[i][n] + (1 - BETAS[0]) * value;
          state.v[i][n] = BETAS[1] * state.v[i][n] + (1 - BETAS[1]) * value * value;
        })
      );
    }
  }
  return { old, turned };
}

/** The state of all slabs on the host, with this one in the place of y's. */
function place(side: Side, { m, v }: { m: Float64Array[]; v: Float64Array[] }) {
  const name = `y.lora_${side === "rows" ? "A" : "B"}.weight`, p = params.get(name)!;
  const slab = params.slabs.find((s) => s.params.includes(p))!, at = (p.value.byteOffset - slab.value.byteOffset) / 4;
  const all = new Map<string, HostTensor>();
  for (const [key, directions] of [["m", m], ["v", v]] as const) {
    const values = new Float32Array(numel(slab.value)).fill(5);
    putDirections(values.subarray(at, at + numel(p.value)), p.value.shape, side, directions);
    all.set(`${slab.group}.${key}`, host(values));
  }
  const read = (key: string) => {
    const values = floatsOf(all.get(`${slab.group}.${key}`)!);
    const around = [...values.subarray(0, at), ...values.subarray(at + numel(p.value))];
    return { directions: takeDirections(values.subarray(at), p.value.shape, side, R), around };
  };
  return { p, all, read, slab, at };
}

/** ‖x - y‖ / ‖y‖. */
function distance(x: Float64Array[], y: Float64Array[]): number {
  const norm = (z: Float64Array[]) => Math.sqrt(z.reduce((s, a) => s + a.reduce((t, b) => t + b * b, 0), 0));
  return norm(x.map((a, i) => a.map((v, n) => v - y[i][n]))) / norm(y);
}

describe.each(["rows", "columns"] as const)("directions that are %s", (side) => {
  test("means follow exactly, second moments too where gradients do not vary", () => {
    const { old, turned } = history(C, 0), { p, all, read } = place(side, old);
    new HostMoments(params.slabs, all, BETAS, STEPS).rotate(p, side, C, R);
    expect(distance(read("m").directions, turned.m)).toBeLessThan(1e-6);
    expect(distance(read("v").directions, turned.v)).toBeLessThan(1e-6);
    expect(new Set([...read("m").around, ...read("v").around])).toEqual(new Set([5])); // nobody else's
  });

  test("a permutation permutes both", () => {
    const { old } = history(PERMUTATION, 2), { p, all, read } = place(side, old);
    new HostMoments(params.slabs, all, BETAS, STEPS).rotate(p, side, PERMUTATION, R);
    expect(distance(read("m").directions, [2, 0, 1].map((i) => old.m[i]))).toBeLessThan(1e-6);
    // Where m̂² has got over v̂, v̂ is lifted to it.
    const k = (1 - BETAS[1] ** STEPS) / (1 - BETAS[0] ** STEPS) ** 2;
    const v = [2, 0, 1].map((i) => old.v[i].map((x, n) => Math.max(x, k * old.m[i][n] ** 2)));
    expect(distance(read("v").directions, v)).toBeLessThan(1e-6);
  });

  test("independent noise is estimated without bias, and no step exceeds the learning rate afterwards", () => {
    const { old, turned } = history(C, 1), { p, all, read } = place(side, old);
    new HostMoments(params.slabs, all, BETAS, STEPS).rotate(p, side, C, R);
    const m = read("m").directions, v = read("v").directions;
    const [c1, c2] = BETAS.map((b) => 1 - b ** STEPS);
    for (let i = 0; i < R; i++) {
      const ratio = v[i].reduce((a, b) => a + b) / turned.v[i].reduce((a, b) => a + b);
      expect(ratio).toBeGreaterThan(0.9);
      expect(ratio).toBeLessThan(1.1);
      v[i].forEach((x, n) => expect(Math.abs(m[i][n] / c1)).toBeLessThanOrEqual(Math.sqrt(x / c2) * (1 + 1e-5)));
    }
  });

  test("moments of 8 bits are as near as their code allows", () => {
    const { old, turned } = history(C, 0.5), { p, all, slab, at } = place(side, old);
    const signed = dynamicCode(true), unsigned = dynamicCode(false), n = numel(slab.value);
    const wide = { m: floatsOf(all.get(`${slab.group}.m`)!), v: floatsOf(all.get(`${slab.group}.v`)!) };
    const absmax = new Float32Array(2 * n / 256);
    for (const [k, key] of (["m", "v"] as const).entries()) {
      const code = k ? unsigned : signed, bytes = new Uint8Array(n);
      for (let i = 0; i < n; i++) {
        const block = Math.floor(i / 256), scale = k * n / 256 + block;
        absmax[scale] = Math.max(...wide[key].subarray(256 * block, 256 * (block + 1)).map(Math.abs));
        let best = 0;
        for (let c = 1; c < 256; c++) {
          if (Math.abs(code[c] - wide[key][i] / absmax[scale]) < Math.abs(code[best] - wide[key][i] / absmax[scale])) {
            best = c;
          }
        }
        bytes[i] = best;
      }
      all.set(`${slab.group}.${key}`, { dtype: "u8", shape: [n], bytes });
    }
    all.set(`${slab.group}.absmax`, host(absmax));
    all.set(`${slab.group}.codes`, host(Float32Array.of(...signed, ...unsigned)));
    const before = all.get(`${slab.group}.m`)!.bytes.slice();
    const moments = new HostMoments(params.slabs, all, BETAS, STEPS);
    moments.rotate(p, side, C, R);
    const bytes = all.get(`${slab.group}.m`)!.bytes, shape = p.value.shape;
    const decoded = Float32Array.from(bytes, (b, i) => signed[b] * absmax[Math.floor(i / 256)]);
    const found = takeDirections(decoded.subarray(at), shape, side, R);
    expect(distance(found, turned.m)).toBeLessThan(0.03); // codes lie 1 to 3 % apart
    expect([...bytes.subarray(0, at)]).toEqual([...before.subarray(0, at)]);
    moments.clear(p, side, 1);
    const cleared = takeDirections(Float32Array.from(bytes, (b) => signed[b]).subarray(at), shape, side, R);
    expect(cleared.map((x) => x.some((value) => value !== 0))).toEqual([true, false, false]);
  });
});

test("Adafactor's factor of the directions follows by squares, and nothing is asked of optimisers without moments", () => {
  const p = params.get("y.lora_B.weight")!, slab = params.slabs.find((s) => s.params.includes(p))!;
  const row = Float32Array.from({ length: N }, () => 2), col = Float32Array.of(1, 4, 9);
  const all = new Map([[`${slab.group}.row.${p.name}`, host(row)], [`${slab.group}.col.${p.name}`, host(col)]]);
  new HostMoments(params.slabs, all, BETAS, STEPS).rotate(
    p,
    "columns",
    Float64Array.of(0.6, 0.8, 0, -0.8, 0.6, 0, 0, 0, 1),
    R,
  );
  expect(col[0]).toBeCloseTo(0.36 * 1 + 0.64 * 4, 6);
  expect(col[1]).toBeCloseTo(0.64 * 1 + 0.36 * 4, 6);
  expect(col[2]).toBeCloseTo(9, 6);
  expect(new Set(row)).toEqual(new Set([2]));
  expect(() => new HostMoments(params.slabs, new Map(), BETAS, STEPS).rotate(p, "columns", C, R)).not.toThrow();
});
