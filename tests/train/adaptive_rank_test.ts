import { expect, test } from "vitest";
import { Random } from "../../src/core/philox.ts";
import { allotRanks, analyse, cutPair, type Pair } from "../../src/train/adaptive_rank.ts";
import { svdOfProduct } from "../../src/train/svd.ts";

const random = new Random(1);
const normal = (n: number, deviation = 1) => Float32Array.from({ length: n }, () => deviation * random.normal());

function randomPair(module: string, rank: number, inputs: number, outputs: number): Pair {
  const side = (n: number, deviation: number) => ({
    value: normal(n, deviation),
    m: normal(n, 0.1),
    v: normal(n).map((x) => x * x),
  });
  return { module, rank, inputs, outputs, a: side(rank * inputs, 0.5), b: side(outputs * rank, 0.05) };
}

/** B·A, row-major [O,I], in f64. */
function product(p: Pair): Float64Array {
  const out = new Float64Array(p.outputs * p.inputs);
  for (let o = 0; o < p.outputs; o++) {
    for (let r = 0; r < p.rank; r++) {
      const f = p.b.value[o * p.rank + r];
      for (let i = 0; i < p.inputs; i++) out[o * p.inputs + i] += f * p.a.value[r * p.inputs + i];
    }
  }
  return out;
}
const norm = (x: ArrayLike<number>) => Math.sqrt(Array.from(x).reduce((s, v) => s + v * v, 0));

test("svdOfProduct() rebuilds the product from orthonormal vectors, largest first", () => {
  const p = randomPair("m", 5, 13, 7);
  const b = Array.from({ length: 5 }, (_, c) => Float64Array.from({ length: 7 }, (_, r) => p.b.value[r * 5 + c]));
  const a = Array.from({ length: 5 }, (_, r) => Float64Array.from(p.a.value.subarray(r * 13, (r + 1) * 13)));
  const { sigma, u, v } = svdOfProduct(b, a), whole = product(p);
  expect([...sigma]).toEqual([...sigma].sort((x, y) => y - x));
  for (const vectors of [u, v]) {
    vectors.forEach((x, i) =>
      vectors.forEach((y, j) => expect(x.reduce((s, e, k) => s + e * y[k], 0)).toBeCloseTo(Number(i === j), 12))
    );
  }
  const rebuilt = whole.map((_, n) => sigma.reduce((s, x, i) => s + x * u[i][Math.floor(n / 13)] * v[i][n % 13], 0));
  expect(norm(rebuilt.map((x, i) => x - whole[i])) / norm(whole)).toBeLessThan(1e-12);
});

test("a pair cut at its own rank computes the same, with orthogonal rows of A", () => {
  const p = randomPair("m", 6, 20, 11), same = cutPair(analyse(p), 6);
  const before = product(p), after = product(same);
  expect(norm(after.map((x, i) => x - before[i])) / norm(before)).toBeLessThan(1e-6);
  const rows = Array.from({ length: 6 }, (_, r) => same.a.value.subarray(r * 20, (r + 1) * 20));
  const length = norm(rows[0]);
  for (let i = 0; i < 6; i++) {
    for (let j = 0; j < 6; j++) {
      const cosine = rows[i].reduce((s, x, k) => s + x * rows[j][k], 0) / length ** 2;
      expect(cosine).toBeCloseTo(Number(i === j), 5);
    }
  }
  expect(length).toBeCloseTo(norm(p.a.value) / Math.sqrt(6), 4);
});

test("a cut pair is the best approximation of its rank (Eckart and Young)", () => {
  const p = randomPair("m", 6, 20, 11), x = analyse(p), before = product(p);
  for (const rank of [1, 3, 5]) {
    const after = product(cutPair(x, rank)), lost = norm(after.map((v, i) => v - before[i]));
    expect(lost).toBeCloseTo(norm(x.svd.sigma.slice(rank)), 6);
  }
});

test("first moments follow the change of basis as gradients do", () => {
  // With moments that are the gradients of a known dL/d(BA) = G, the cut pair's must be G's in the new basis.
  const p = randomPair("m", 4, 9, 7), G = normal(7 * 9);
  const gradB = new Float32Array(7 * 4), gradA = new Float32Array(4 * 9);
  for (let o = 0; o < 7; o++) {
    for (let r = 0; r < 4; r++) {
      for (let i = 0; i < 9; i++) {
        gradB[o * 4 + r] += G[o * 9 + i] * p.a.value[r * 9 + i];
        gradA[r * 9 + i] += G[o * 9 + i] * p.b.value[o * 4 + r];
      }
    }
  }
  const cut = cutPair(analyse({ ...p, a: { ...p.a, m: gradA }, b: { ...p.b, m: gradB } }), 2);
  const wantB = new Float32Array(7 * 2), wantA = new Float32Array(2 * 9);
  for (let o = 0; o < 7; o++) {
    for (let r = 0; r < 2; r++) {
      for (let i = 0; i < 9; i++) {
        wantB[o * 2 + r] += G[o * 9 + i] * cut.a.value[r * 9 + i];
        wantA[r * 9 + i] += G[o * 9 + i] * cut.b.value[o * 2 + r];
      }
    }
  }
  expect(norm(wantB.map((x, i) => x - cut.b.m[i])) / norm(wantB)).toBeLessThan(1e-5);
  expect(norm(wantA.map((x, i) => x - cut.a.m[i])) / norm(wantA)).toBeLessThan(1e-5);
});

test("a direction's worth is what a loss that is linear in it loses without it", () => {
  const p = randomPair("m", 3, 8, 6), G = normal(6 * 8), gradB = new Float32Array(6 * 3);
  for (let o = 0; o < 6; o++) {
    for (let r = 0; r < 3; r++) for (let i = 0; i < 8; i++) gradB[o * 3 + r] += G[o * 8 + i] * p.a.value[r * 8 + i];
  }
  const flat = { ...p, b: { ...p.b, m: gradB, v: new Float32Array(18) } }, { svd, worth } = analyse(flat);
  worth.forEach((w, k) => {
    let change = 0; // ⟨G, σ·u·vᵀ⟩
    for (let o = 0; o < 6; o++) {
      for (let i = 0; i < 8; i++) change += G[o * 8 + i] * svd.sigma[k] * svd.u[k][o] * svd.v[k][i];
    }
    expect(w).toBeCloseTo(Math.abs(change), 5);
  });
});

test("ranks go to the pairs that are worth most, within the budget, and every pair keeps one", () => {
  const pairs = ["idle", "busy", "middling"].map((name, k) => {
    const p = randomPair(name, 4, 10, 10), factor = [0, 100, 1][k];
    return { ...p, b: { ...p.b, m: p.b.m.map((x) => x * factor), v: p.b.v.map((x) => x * factor) } };
  });
  const ranks = allotRanks(pairs.map(analyse), 6 * 20);
  expect(ranks.get("idle")).toBe(1);
  expect(ranks.get("busy")).toBe(4);
  expect([...ranks.values()].reduce((a, b) => a + b, 0)).toBeLessThanOrEqual(6);
});

test("a pair that has not moved (B = 0) keeps one row and stays at zero", () => {
  const p = randomPair("m", 4, 10, 10), still = { ...p, b: { ...p.b, value: new Float32Array(40) } };
  const cut = cutPair(analyse(still), 3);
  expect(cut.rank).toBe(1);
  expect(norm(product(cut))).toBe(0);
  expect([...cut.a.value]).toEqual([...p.a.value.subarray(0, 10)]);
});
