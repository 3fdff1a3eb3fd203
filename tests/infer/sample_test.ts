/** Each rule of sampling against its formula written out plainly, in f64, over the whole vocabulary. */
import { describe, expect, test } from "vitest";
import { Random } from "../../src/core/philox.ts";
import { applyPenalties, argmax, candidates, largest, logprobsOf, PLAIN, Sampler } from "../../src/infer/sample.ts";
import type { SampleOptions } from "../../src/infer/types.ts";

const V = 211;
const random = (seed: number, n = V) => {
  const r = new Random(seed);
  return Float32Array.from({ length: n }, () => 3 * r.normal());
};
const softmax = (z: ArrayLike<number>, t = 1) => {
  const e = Array.from(z, (x) => Math.exp(x / t)), sum = e.reduce((a, b) => a + b);
  return e.map((x) => x / sum);
};
/** Probabilities over the whole vocabulary. */
const dense = (z: Float32Array, o: Partial<SampleOptions>, n = V) => {
  const out = new Array<number>(n).fill(0);
  const { ids, weights, total } = candidates(z, { ...PLAIN, ...o });
  for (let i = 0; i < weights.length; i++) out[ids ? ids[i] : i] = weights[i] / total;
  return out;
};
const near = (a: number[], b: number[]) => a.forEach((x, i) => expect(x).toBeCloseTo(b[i], 12));
/** The plain way: sort everything, mark what stays, divide by what is left. */
const kept = (p: number[], keep: (rank: number, before: number, p: number, best: number) => boolean) => {
  const order = p.map((_, i) => i).sort((a, b) => p[b] - p[a] || a - b);
  let before = 0;
  const q = p.map(() => 0);
  order.forEach((id, rank) => {
    if (keep(rank, before, p[id], p[order[0]])) q[id] = p[id];
    before += p[id];
  });
  const sum = q.reduce((a, b) => a + b);
  return q.map((x) => x / sum);
};

describe("candidates()", () => {
  test("is softmax(z / T) when nothing is filtered", () => {
    for (const t of [0.3, 1, 1.7]) near(dense(random(1), { temperature: t }), softmax(random(1), t));
  });
  test("keeps the k likeliest, the lower id among equals", () => {
    for (const k of [1, 7, V - 1, V, V + 5]) {
      near(dense(random(2), { topK: k }), kept(softmax(random(2)), (rank) => rank < k));
    }
    expect(dense(new Float32Array([1, 2, 2, 2]), { topK: 2 }, 4)).toEqual([0, 0.5, 0.5, 0]);
  });
  test("keeps the shortest prefix with mass topP, also when that is nearly everything or one token", () => {
    for (const topP of [1e-9, 0.1, 0.5, 0.9, 0.999999]) {
      near(dense(random(3), { topP }), kept(softmax(random(3)), (_r, before) => before < topP));
    }
  });
  test("keeps what has at least minP of the best probability", () => {
    for (const minP of [0.01, 0.2, 1]) {
      near(dense(random(4), { minP }), kept(softmax(random(4)), (_r, _b, p, best) => p >= minP * best));
    }
  });
  test("takes temperature, then top-k, then top-p of what is left, then min-p", () => {
    const z = random(5);
    const p = softmax(z, 1.5);
    const k = kept(p, (rank) => rank < 20);
    const t = kept(k, (_r, before, q) => q > 0 && before < 0.8);
    near(
      dense(z, { temperature: 1.5, topK: 20, topP: 0.8, minP: 0.4 }),
      kept(t, (_r, _b, q, best) => q > 0 && q >= 0.4 * best),
    );
  });
  test("survives logits whose exponentials overflow", () => {
    near(dense(new Float32Array([5000, 4999, -5000]), {}, 3), [1 / (1 + Math.exp(-1)), 1 / (1 + Math.E), 0]);
  });
});

describe("penalties", () => {
  const prompt = new Set([0, 1]), counts = new Map([[1, 2], [2, 3]]);
  const apply = (o: Partial<SampleOptions>) => {
    const z = new Float32Array([2, -2, 4, 1]);
    applyPenalties(z, { ...PLAIN, ...o }, prompt, counts);
    return [...z];
  };
  test("repetition divides positive and multiplies negative logits once, for prompt and answer", () => {
    expect(apply({ repetitionPenalty: 2 })).toEqual([1, -4, 2, 1]);
  });
  test("presence and frequency count the answer only", () => {
    expect(apply({ presencePenalty: 0.5 })).toEqual([2, -2.5, 3.5, 1]);
    expect(apply({ frequencyPenalty: 0.5 })).toEqual([2, -3, 2.5, 1]);
  });
  test("logit bias is added before everything else", () => {
    expect(apply({ logitBias: new Map([[0, -3], [3, 100]]), repetitionPenalty: 2 })).toEqual([-2, -4, 2, 101]);
  });
});

describe("Sampler", () => {
  test("is greedy at temperature 0, the lowest id among equals, and refuses NaN", () => {
    const s = new Sampler({ ...PLAIN, temperature: 0 }, []);
    expect(s.draw(new Float32Array([1, 3, 3]))).toBe(1);
    expect(() => s.draw(new Float32Array([1, NaN]))).toThrow("logits are not finite");
    expect(() => argmax(new Float32Array([-Infinity, -Infinity]))).toThrow(RangeError);
  });
  test("gives the same tokens for the same seed and others for another", () => {
    const draw = (seed: number) => {
      const s = new Sampler({ ...PLAIN, seed }, []);
      return Array.from({ length: 40 }, (_, i) => s.draw(random(i)));
    };
    expect(draw(7)).toEqual(draw(7));
    expect(draw(7)).not.toEqual(draw(8));
  });
  test("draws with the probabilities of the distribution", () => {
    const z = new Float32Array([0, 1, 2, -1]), p = softmax(z), n = 20_000;
    const s = new Sampler({ ...PLAIN, seed: 3 }, []);
    const seen = [0, 0, 0, 0];
    for (let i = 0; i < n; i++) seen[s.draw(Float32Array.from(z))]++;
    // χ² with 3 degrees of freedom: 16.3 is passed once in a thousand seeds; this seed is fixed.
    expect(seen.reduce((sum, c, i) => sum + (c - n * p[i]) ** 2 / (n * p[i]), 0)).toBeLessThan(16.3);
  });
  test("never draws what was filtered out", () => {
    const s = new Sampler({ ...PLAIN, seed: 5, topK: 2 }, []);
    for (let i = 0; i < 300; i++) expect([1, 3]).toContain(s.draw(new Float32Array([0, 1, 0.5, 2])));
  });
  test("a presence penalty over the gap makes greedy answers change", () => {
    const s = new Sampler({ ...PLAIN, temperature: 0, presencePenalty: 2 }, []);
    expect([0, 0, 0].map(() => s.draw(new Float32Array([3, 2, 0])))).toEqual([0, 1, 0]);
  });
});

describe("logprobsOf()", () => {
  test("is the log-softmax of the raw logits with the best alternatives first", () => {
    const z = random(6), p = softmax(z);
    const got = logprobsOf(z, 17, 5);
    expect(got.logprob).toBeCloseTo(Math.log(p[17]), 10);
    const order = p.map((_, i) => i).sort((a, b) => p[b] - p[a]).slice(0, 5);
    expect(got.top.map((t) => t.id)).toEqual(order);
    got.top.forEach((t) => expect(t.logprob).toBeCloseTo(Math.log(p[t.id]), 10));
    expect(logprobsOf(z, 0, 0).top).toEqual([]);
  });
});

test("largest() is a full sort cut short", () => {
  const z = Float32Array.from(random(9), (x) => Math.round(x));
  const order = [...z.keys()].sort((a, b) => z[b] - z[a] || a - b);
  for (const k of [1, 2, 3, 10, V]) expect(largest(z, k)).toEqual(order.slice(0, k));
});
