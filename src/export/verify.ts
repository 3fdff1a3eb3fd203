/**
 * Whether a written model answers as the trained one: both are asked for the next token at every position of some fixed
 * texts, and the distributions are compared. What is off beyond its type's bound is refused.
 * @module
 */
import type { Backend } from "../core/backend.ts";
import { ConfigError } from "../core/errors.ts";
import { loadModel, type Model, openModel } from "../models/mod.ts";
import { loadTokenizer, type Tokenizer } from "../tokenizer/mod.ts";
import { argmax, Prober } from "./probe.ts";
import type { Quantization } from "./quantization.ts";

/** What a file of a type may differ by, over the positions of the texts. */
export interface Bound {
  /** Mean of KL(trained ‖ written), in nats. */
  readonly meanKl: number;
  /** Share of positions at which the likeliest token is the same. */
  readonly topAgreement: number;
}

/**
 * About five times what llama.cpp's llama-perplexity --kl-divergence reports for small models of each type, which a
 * wrong permutation, scale or norm exceeds a hundredfold. Ties of near-equal tokens cost agreement before they cost KL.
 */
const BOUNDS: Readonly<Record<Quantization, Bound>> = {
  f32: { meanKl: 1e-4, topAgreement: 0.97 },
  f16: { meanKl: 1e-3, topAgreement: 0.95 },
  bf16: { meanKl: 0.01, topAgreement: 0.9 },
  q8_0: { meanKl: 0.02, topAgreement: 0.85 },
  q6_k: { meanKl: 0.05, topAgreement: 0.8 },
  q5_k_m: { meanKl: 0.15, topAgreement: 0.7 },
  q5_k_s: { meanKl: 0.15, topAgreement: 0.7 },
  q5_1: { meanKl: 0.15, topAgreement: 0.7 },
  q5_0: { meanKl: 0.15, topAgreement: 0.7 },
  q4_k_m: { meanKl: 0.4, topAgreement: 0.6 },
  q4_k_s: { meanKl: 0.4, topAgreement: 0.6 },
  q4_1: { meanKl: 0.5, topAgreement: 0.5 },
  q4_0: { meanKl: 0.5, topAgreement: 0.5 },
  iq4_nl: { meanKl: 0.5, topAgreement: 0.5 },
  iq4_xs: { meanKl: 0.5, topAgreement: 0.5 },
  q3_k_l: { meanKl: 1, topAgreement: 0.4 },
  q3_k_m: { meanKl: 1, topAgreement: 0.4 },
  q3_k_s: { meanKl: 1.5, topAgreement: 0.3 },
  q2_k: { meanKl: 2.5, topAgreement: 0.2 },
};

/** The bound of a type. */
export function boundOf(q: Quantization): Bound {
  return BOUNDS[q];
}

/** Types that must also end where the trained model ends. */
const EXACT_ENDS: readonly Quantization[] = ["f32", "f16", "bf16", "q8_0"];

/** Plain text, a list, code, and another language; their continuations are as open as a trained answer's. */
const TEXTS = [
  "The capital of France is Paris. The capital of Italy is Rome. Water boils at one hundred degrees.",
  "Here are three tips for staying healthy:\n1. Eat a balanced diet.\n2. Exercise regularly.\n3. Sleep enough.",
  "def add(a, b):\n    return a + b\n\nprint(add(2, 3))\n",
];
const QUESTION = "Name three primary colors.";

/** Tokens of one text, and how far a greedy answer is followed. */
const TEXT_TOKENS = 32;
const ANSWER_TOKENS = 64;

/** What the trained model says, kept while files are written and compared. */
export interface Reference {
  readonly texts: readonly (readonly number[])[];
  /** By text, f32 [N,V]. */
  readonly logits: readonly Float32Array[];
  /** The rendered question; null without a chat template. */
  readonly prompt: readonly number[] | null;
  readonly answer: readonly number[];
  readonly ends: ReadonlySet<number>;
}

/** What came of a comparison. */
export interface Verification {
  readonly positions: number;
  readonly meanKl: number;
  readonly maxKl: number;
  readonly topAgreement: number;
  /** Whether the greedy answer ends: of the trained model, of the written one; null without a chat template. */
  readonly ends: { readonly trained: boolean; readonly written: boolean } | null;
  /** Why it is refused; null when it is not. */
  readonly refused: string | null;
}

/** The texts in the model's tokens; without a tokenizer, numbers spread over the vocabulary. */
function textsOf(model: Model, tokenizer: Tokenizer | null): number[][] {
  const length = Math.min(TEXT_TOKENS, model.config.maxPos);
  if (tokenizer) return TEXTS.map((t) => [...tokenizer.encode(t, { special: true })].slice(0, length));
  const spread = (seed: number) =>
    Array.from({ length }, (_, i) => (seed + 7919 * i * (i + seed)) % model.config.vocab);
  return [1, 2, 3].map(spread);
}

function promptOf(model: Model, tokenizer: Tokenizer | null): number[] | null {
  if (!tokenizer?.template) return null;
  const text = tokenizer.chat([{ role: "user", content: QUESTION }], { addPrompt: true });
  const ids = [...tokenizer.encode(text)];
  return ids.length + ANSWER_TOKENS <= model.config.maxPos ? ids : null;
}

/** Asks the trained model. Its adapters count. */
export async function takeReference(model: Model, tokenizer: Tokenizer | null): Promise<Reference> {
  const texts = textsOf(model, tokenizer);
  const prompt = promptOf(model, tokenizer);
  const ends = new Set(tokenizer?.eos ?? model.config.eos);
  const prober = new Prober(model, proberLength(texts, prompt));
  try {
    const logits: Float32Array[] = [];
    for (const ids of texts) logits.push(await prober.logits(ids));
    return { texts, logits, prompt, answer: prompt ? await prober.continue(prompt, ends) : [], ends };
  } finally {
    prober.close();
  }
}

const proberLength = (texts: readonly (readonly number[])[], prompt: readonly number[] | null): number =>
  Math.max(...texts.map((t) => t.length), prompt ? prompt.length + ANSWER_TOKENS : 0);

/** log Σ exp, and the values' largest. */
function logSumExp(x: Float32Array): number {
  const top = x[argmax(x)]!;
  let sum = 0;
  for (const v of x) sum += Math.exp(v - top);
  return top + Math.log(sum);
}

/** KL(p ‖ q) of two rows of logits, in nats. */
export function klDivergence(p: Float32Array, q: Float32Array): number {
  const [zp, zq] = [logSumExp(p), logSumExp(q)];
  let sum = 0;
  for (let i = 0; i < p.length; i++) {
    const lp = p[i]! - zp;
    if (lp > -40) sum += Math.exp(lp) * (lp - (q[i]! - zq));
  }
  return Math.max(0, sum);
}

function compare(reference: Reference, written: readonly Float32Array[]): Omit<Verification, "ends" | "refused"> {
  let [positions, sum, maxKl, same] = [0, 0, 0, 0];
  for (const [t, ids] of reference.texts.entries()) {
    const vocab = reference.logits[t]!.length / ids.length;
    for (let i = 0; i < ids.length; i++) {
      const row = (x: Float32Array) => x.subarray(i * vocab, (i + 1) * vocab);
      const [p, q] = [row(reference.logits[t]!), row(written[t]!)];
      const kl = klDivergence(p, q);
      sum += kl;
      maxKl = kl > maxKl ? kl : maxKl;
      if (Number.isNaN(kl)) maxKl = NaN;
      if (argmax(p) === argmax(q)) same++;
      positions++;
    }
  }
  return { positions, meanKl: sum / positions, maxKl, topAgreement: same / positions };
}

function judge(v: Omit<Verification, "refused">, q: Quantization): string | null {
  const { meanKl, topAgreement } = boundOf(q);
  const percent = (x: number) => `${(100 * x).toFixed(1)} %`;
  if (!(v.meanKl <= meanKl)) return `its mean KL of ${v.meanKl.toPrecision(3)} exceeds ${q}'s bound of ${meanKl}`;
  if (v.topAgreement < topAgreement) {
    return `its likeliest token is the trained model's at ${
      percent(v.topAgreement)
    } of the positions; ${q}'s bound is ` +
      percent(topAgreement);
  }
  if (v.ends?.trained && !v.ends.written && EXACT_ENDS.includes(q)) {
    return `the trained model ends its answer within ${ANSWER_TOKENS} tokens and the written one does not`;
  }
  return null;
}

/**
 * Loads what was written and compares it.
 * @param path a .gguf file or a folder
 * @throws {MemoryError} when the backend has no room for the written model
 * @throws {ConfigError} when the file's own tokenizer does not end texts as the trained model's
 */
export async function verifyModel(
  path: string,
  reference: Reference,
  q: Quantization,
  backend: Backend,
  hasTokenizer: boolean,
): Promise<Verification> {
  if (hasTokenizer) checkEnds(path, reference);
  const source = openModel(path);
  const length = proberLength(reference.texts, reference.prompt);
  let model: Model;
  try {
    model = await loadModel(source, { backend, maxLength: length });
  } finally {
    source.close();
  }
  try {
    const prober = new Prober(model, length);
    try {
      const logits: Float32Array[] = [];
      for (const ids of reference.texts) logits.push(await prober.logits(ids));
      const figures = { ...compare(reference, logits), ends: await compareEnds(prober, reference) };
      return { ...figures, refused: judge(figures, q) };
    } finally {
      prober.close();
    }
  } finally {
    model.close();
  }
}

function checkEnds(path: string, reference: Reference): void {
  const ends = new Set(loadTokenizer(path).eos);
  const lost = [...reference.ends].filter((id) => !ends.has(id));
  if (lost.length === 0) return;
  throw new ConfigError(
    `Cannot accept '${path}': its tokenizer does not end texts at ${lost}, and the trained one does`,
  );
}

async function compareEnds(prober: Prober, { prompt, answer, ends }: Reference): Promise<Verification["ends"]> {
  if (!prompt) return null;
  const trained = ends.has(answer.at(-1) ?? -1);
  const written = trained ? await prober.continue(prompt, ends) : [];
  return { trained, written: ends.has(written.at(-1) ?? -1) };
}
