/** What DPO, ORPO, KTO and GRPO need of a step, against torch's autograd over the losses themselves (make_preference.py). */
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, describe, expect, test } from "vitest";
import type { Backend } from "../../src/core/backend.ts";
import type { Batch } from "../../src/data/types.ts";
import { openSafetensors } from "../../src/formats/safetensors.ts";
import { readFloats } from "../../src/formats/stored.ts";
import { sequenceLogProbs, Stepper } from "../../src/train/step.ts";
import { createWasmBackend } from "../../wasm/mod.ts";
import { openCase, packRows } from "../golden/case.ts";
import { relativeNorm } from "../golden/compare.ts";
import { loadCase } from "../golden/tiny.ts";
import { ReferenceBackend } from "../reference/mod.ts";

const FIXTURES = fileURLToPath(new URL("../fixtures/", import.meta.url));
const file = openSafetensors(join(FIXTURES, "preference.safetensors")), WIDTH = 13;
afterAll(() => file.close());
const recorded = (name: string): Float32Array => readFloats(file.tensors.get(name)!);

const sigmoid = (x: number): number => 1 / (1 + Math.exp(-x));
/** make_preference.py's constants. */
const BETA = 0.3, LAMBDA = 0.2, KL = 0.04, ADVANTAGE = [1, -0.5, 0.25, -0.75];

/** One sequence: log p of its counted tokens under policy and reference. */
interface Sequence {
  readonly policy: readonly number[];
  readonly reference: readonly number[];
}
/** -dL/d log p of each counted token of each sequence. */
type Rule = (s: readonly Sequence[]) => number[][];

const sum = (x: readonly number[]): number => x.reduce((a, b) => a + b, 0);
const spread = (s: readonly Sequence[], weight: readonly number[]): number[][] =>
  s.map(({ policy }, i) => policy.map(() => weight[i]));
const ratio = ({ policy, reference }: Sequence): number => sum(policy) - sum(reference);

const RULES: Readonly<Record<string, Rule>> = {
  dpo: (s) => {
    const pairs = s.length / 2, push = (i: number) => BETA * sigmoid(-BETA * (ratio(s[i]) - ratio(s[i + 1]))) / pairs;
    return spread(s, s.map((_, i) => i % 2 ? -push(i - 1) : push(i)));
  },
  orpo: (s) => {
    const mean = s.map((x) => sum(x.policy) / x.policy.length), odds = mean.map((m) => m - Math.log1p(-Math.exp(m)));
    const pairs = s.length / 2,
      weight = s.map((x, i) => {
        const first = i - i % 2, pull = LAMBDA * sigmoid(odds[first + 1] - odds[first]) / (1 - Math.exp(mean[i]));
        return (i % 2 ? -pull : 1 + pull) / pairs / x.policy.length;
      });
    return spread(s, weight);
  },
  kto: (s) => {
    const slope = s.map((x) => BETA * sigmoid(BETA * ratio(x)) * sigmoid(-BETA * ratio(x)) / s.length);
    return spread(s, slope.map((g, i) => i % 2 ? -g : g));
  },
  grpo: (s) =>
    s.map(({ policy, reference }, i) =>
      policy.map((p, n) => (ADVANTAGE[i] + KL * (Math.exp(reference[n] - p) - 1)) / policy.length / s.length)
    ),
};

/** The sequences of a comparison, and their weights laid back where the tokens are. */
function weigh(b: Batch, policy: Float32Array, reference: Float32Array, rule: Rule): Batch {
  const rows = Array.from({ length: b.cu.length - 1 }, (_, s) => {
    return Array.from({ length: b.cu[s + 1] - b.cu[s] }, (_, i) => b.cu[s] + i).filter((n) => b.weights[n] !== 0);
  });
  const logp = (x: Float32Array, at: readonly number[]) => at.map((n) => -x[n]);
  const found = rule(rows.map((at) => ({ policy: logp(policy, at), reference: logp(reference, at) })));
  const weights = new Float32Array(b.weights.length);
  rows.forEach((at, s) => at.forEach((n, i) => weights[n] = found[s][i]));
  return { ...b, weights };
}

describe.each(
  [["reference", () => new ReferenceBackend(), 2e-6], ["wasm", () => createWasmBackend({ threads: 1 }), 2e-5]] as const,
)("on %s", (_, open, bound) => {
  test.each(Object.entries(RULES))(
    "%s has torch's gradients, from log-probabilities and weights alone",
    async (name, rule) => {
      const be: Backend = await open(), c = openCase(join(FIXTURES, "golden", "lora-regex-targets"));
      const model = await loadCase(c, be, c.weights, WIDTH);
      const ids = recorded("ids"), b = packRows(ids, ids.map(() => 1), recorded("labels"), WIDTH);
      const stepper = new Stepper(model, null, {
        maxTokens: 4 * WIDTH,
        maxSequences: 4,
        maxLength: WIDTH,
        smoothing: 0,
      });
      const { policy, reference } = await stepper.compare(b);
      expect(relativeNorm(sequenceLogProbs(b, policy), recorded("policy"))).toBeLessThan(bound);
      expect(relativeNorm(sequenceLogProbs(b, reference), recorded("reference"))).toBeLessThan(bound);
      await stepper.gradients([weigh(b, policy.perToken, reference.perToken, rule)], { t: 1, normalize: false });
      for (const p of model.params!.list) {
        const grad = new Float32Array(p.value.shape[0] * p.value.shape[1]);
        await be.download(p.grad, grad);
        expect(relativeNorm(grad, recorded(`${name}.grad.${p.name}`)), p.name).toBeLessThan(bound);
      }
      stepper.close();
      model.close();
      be.close();
      c.golden.close();
    },
  );
});
