/** The singular basis of B·A, against products whose singular values are known by construction, and by its invariants. */
import { describe, expect, test } from "vitest";
import { Random } from "../../src/core/philox.ts";
import { changeBasis, reorder, singularBasis, triangle, type Vectors } from "../../src/train/low_rank.ts";

const random = new Random(5);
const normal = (r: number, n: number): Float64Array[] =>
  Array.from({ length: r }, () => Float64Array.from({ length: n }, () => random.normal()));
const dot = (x: Float64Array, y: Float64Array) => x.reduce((s, v, i) => s + v * y[i], 0);

/** The first r vectors of the cosine basis (DCT-II), orthonormal by a formula of trigonometry. */
function cosines(r: number, n: number): Float64Array[] {
  return Array.from({ length: r }, (_, k) => {
    const f = Math.sqrt((k === 0 ? 1 : 2) / n);
    return Float64Array.from({ length: n }, (_, i) => f * Math.cos(Math.PI * (i + 0.5) * k / n));
  });
}

/** B·A, row-major. */
function product(a: Vectors, b: Vectors): Float64Array {
  const inputs = a[0].length, out = new Float64Array(b[0].length * inputs);
  for (let k = 0; k < a.length; k++) {
    for (let o = 0; o < b[0].length; o++) {
      for (let i = 0; i < inputs; i++) out[o * inputs + i] += b[k][o] * a[k][i];
    }
  }
  return out;
}

/** B = U·Σ·X and A = X⁻¹·Vᵀ with X a product of shears, so that B·A has the singular values Σ whatever X is. */
function known(sigma: readonly number[], outputs: number, inputs: number): { a: Float64Array[]; b: Float64Array[] } {
  const r = sigma.length, a = cosines(r, inputs), b = cosines(r, outputs);
  b.forEach((column, i) => column.forEach((_, o) => column[o] *= sigma[i]));
  for (let i = 0; i < r; i++) {
    for (let j = 0; j < r; j++) {
      if (i === j) continue;
      const f = random.normal() / r; // row i of A gains f times row j, column j of B loses f times column i
      for (let n = 0; n < inputs; n++) a[i][n] += f * a[j][n];
      for (let n = 0; n < outputs; n++) b[j][n] -= f * b[i][n];
    }
  }
  return { a, b };
}

const distance = (x: Float64Array, y: Float64Array) =>
  Math.sqrt(x.reduce((s, v, i) => s + (v - y[i]) ** 2, 0) / dot(y, y));

describe("singularBasis()", () => {
  test.each([
    [[3, 1, 0.5, 1e-3], 17, 23],
    [[2, 2, 2], 9, 5],
    [[7], 4, 1],
    [[5, 1e-9], 6, 6],
    [[4, 3, 0, 0], 3, 8], // more directions than outputs: two of them do nothing
  ])("finds the singular values %j of a product that has them by construction", (sigma, outputs, inputs) => {
    const { a, b } = known(sigma, outputs, inputs), basis = singularBasis(a, b)!;
    basis.sigma.forEach((x, i) => expect(Math.abs(x - sigma[i])).toBeLessThan(1e-14 * sigma[0] * 10));
  });

  test("keeps B·A, makes A's rows orthogonal and of one length, and B's columns as long as the singular values", () => {
    const a = normal(7, 31), b = normal(7, 29), basis = singularBasis(a, b)!;
    const a2 = changeBasis(a, basis.s),
      b2 = changeBasis(b, basis.t),
      c = Math.sqrt(a.reduce((s, x) => s + dot(x, x), 0) / 7);
    expect(distance(product(a2, b2), product(a, b))).toBeLessThan(1e-13);
    for (let i = 0; i < 7; i++) {
      for (let j = 0; j < 7; j++) {
        expect(dot(a2[i], a2[j])).toBeCloseTo(i === j ? c * c : 0, 11);
        expect(dot(b2[i], b2[j])).toBeCloseTo(i === j ? (basis.sigma[i] / c) ** 2 : 0, 11);
      }
    }
    // Σσ² = ‖B·A‖² and Σσ⁴ = ‖(B·A)ᵀ(B·A)‖², neither of which knows of any decomposition.
    const ba = product(a, b), rows = Array.from({ length: 29 }, (_, o) => ba.subarray(o * 31, (o + 1) * 31));
    const fourth = rows.reduce((s, x) => s + rows.reduce((t, y) => t + dot(x, y) ** 2, 0), 0);
    const sum = (p: number) => basis.sigma.reduce((s, x) => s + x ** p, 0);
    expect(sum(2) / dot(ba, ba)).toBeCloseTo(1, 12);
    expect(sum(4) / fourth).toBeCloseTo(1, 12);
  });

  test("gradients follow: a small change of A or B changes the loss by as much in either basis", () => {
    const a = normal(3, 8), b = normal(3, 6), { t, s } = singularBasis(a, b)!, g = normal(6, 8); // dL/d(B·A)
    const dA = a.map((_, k) =>
      Float64Array.from({ length: 8 }, (_, i) => g.reduce((x, row, o) => x + b[k][o] * row[i], 0))
    );
    const dB = b.map((_, k) => Float64Array.from(g, (row) => dot(row, a[k])));
    const a2 = changeBasis(a, s), b2 = changeBasis(b, t), dA2 = changeBasis(dA, t), dB2 = changeBasis(dB, s);
    for (let k = 0; k < 3; k++) { // by the chain rule in the new basis
      g.forEach((row, o) => expect(dB2[k][o]).toBeCloseTo(dot(row, a2[k]), 11));
      for (let i = 0; i < 8; i++) expect(dA2[k][i]).toBeCloseTo(g.reduce((x, row, o) => x + b2[k][o] * row[i], 0), 11);
    }
  });

  test("an untrained adapter (B = 0) is taken, an A whose rows depend on each other is not", () => {
    const a = normal(3, 5), zero = [0, 1, 2].map(() => new Float64Array(4));
    expect([...singularBasis(a, zero)!.sigma]).toEqual([0, 0, 0]);
    expect(singularBasis([a[0], a[1], a[0]], normal(3, 4))).toBe(null);
    expect(singularBasis([a[0], a[1], new Float64Array(5)], normal(3, 4))).toBe(null);
  });
});

test("reorder() changes the order of the directions and nothing else", () => {
  const a = normal(3, 8), b = normal(3, 6), basis = singularBasis(a, b)!, other = reorder(basis, [2, 0, 1]);
  expect(changeBasis(a, other.s)).toEqual([2, 0, 1].map((i) => changeBasis(a, basis.s)[i]));
  expect(changeBasis(b, other.t)).toEqual([2, 0, 1].map((i) => changeBasis(b, basis.t)[i]));
});

test("triangle() has the columns' dot products, which fix it but for signs", () => {
  const x = normal(4, 9), u = triangle(x);
  for (let i = 0; i < 4; i++) {
    for (let j = 0; j < 4; j++) {
      let sum = 0;
      for (let k = 0; k < 4; k++) sum += u[k * 4 + i] * u[k * 4 + j];
      expect(sum).toBeCloseTo(dot(x[i], x[j]), 11);
      if (i > j) expect(u[i * 4 + j]).toBe(0);
    }
  }
});
