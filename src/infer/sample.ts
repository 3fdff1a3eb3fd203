/**
 * From the logits of one position to the next token: logit bias, penalties, temperature, top-k, top-p, min-p, one draw.
 * Everything happens on the host in f64 and is a pure function of logits, options, history and seed, so a request
 * answers the same on every backend that gives the same logits.
 * @module
 */
import { Random } from "../core/philox.ts";
import type { SampleOptions, TokenLogprob } from "./types.ts";

/** Tokens left after the filters, with probabilities that sum to 1. */
export interface Candidates {
  ids: ArrayLike<number>;
  probs: ArrayLike<number>;
}

/** No penalty, no filter, temperature 1: the model's own distribution. */
export const PLAIN: SampleOptions = {
  temperature: 1,
  topK: 0,
  topP: 1,
  minP: 0,
  repetitionPenalty: 1,
  presencePenalty: 0,
  frequencyPenalty: 0,
  logitBias: new Map(),
  seed: null,
};

/** Draws the tokens of one answer. */
export class Sampler {
  #prompt: Set<number>;
  #counts = new Map<number, number>();
  #random: Random;
  readonly #options: SampleOptions;

  /** @param prompt ids that `repetitionPenalty` counts as seen from the start */
  constructor(options: SampleOptions, prompt: Iterable<number>) {
    this.#options = options;
    this.#prompt = new Set(prompt);
    this.#random = new Random(options.seed ?? randomSeed());
  }

  /**
   * The next token. One uniform number is used up for each token unless the temperature is 0.
   * @param logits f32 [V], changed in place by bias and penalties
   * @throws {RangeError} when a logit is NaN or none is finite
   */
  draw(logits: Float32Array): number {
    applyPenalties(logits, this.#options, this.#prompt, this.#counts);
    const id = this.#options.temperature === 0
      ? argmax(logits)
      : drawFrom(candidates(logits, this.#options), this.#random.uniform());
    this.#counts.set(id, (this.#counts.get(id) ?? 0) + 1);
    return id;
  }
}

/**
 * In place: + bias; then the repetition penalty on every id of prompt and answer (divides positive logits, multiplies
 * negative ones: CTRL, Keskar et al. 2019, section 4.1, in the form transformers and vLLM give it); then
 * − presence − count · frequency on ids of the answer (OpenAI's API reference).
 */
export function applyPenalties(
  logits: Float32Array,
  o: SampleOptions,
  prompt: ReadonlySet<number>,
  counts: ReadonlyMap<number, number>,
): void {
  for (const [id, bias] of o.logitBias) {
    if (id < logits.length) logits[id] += bias;
  }
  if (o.repetitionPenalty !== 1) {
    const damp = (id: number) => {
      logits[id] = logits[id] > 0 ? logits[id] / o.repetitionPenalty : logits[id] * o.repetitionPenalty;
    };
    for (const id of prompt) damp(id);
    for (const id of counts.keys()) if (!prompt.has(id)) damp(id);
  }
  if (o.presencePenalty !== 0 || o.frequencyPenalty !== 0) {
    for (const [id, n] of counts) logits[id] -= o.presencePenalty + n * o.frequencyPenalty;
  }
}

/** Id of the largest logit, the lowest id among equals. @throws {RangeError} when a logit is NaN or none is finite */
export function argmax(logits: Float32Array): number {
  let best = -1, max = -Infinity;
  for (let i = 0; i < logits.length; i++) {
    const z = logits[i];
    if (z > max) max = z, best = i;
    else if (z !== z) throw notFinite();
  }
  if (!Number.isFinite(max)) throw notFinite();
  return best;
}

/**
 * The distribution a token is drawn from: softmax(logits / temperature), the `topK` likeliest, of those the shortest
 * prefix with mass ≥ `topP` (Holtzman et al. 2020), of those the ones with at least `minP` times the largest
 * probability (Nguyen et al. 2024).
 * @throws {RangeError} when a logit is NaN or none is finite
 */
export function candidates(logits: Float32Array, o: SampleOptions): Candidates {
  const max = logits[argmax(logits)];
  const weights = new Float64Array(logits.length);
  let total = 0;
  for (let i = 0; i < logits.length; i++) total += weights[i] = Math.exp((logits[i] - max) / o.temperature);
  let ids: number[] | null = null;
  if (o.topK > 0 && o.topK < logits.length) {
    ids = largest(logits, o.topK);
    total = ids.reduce((sum, id) => sum + weights[id], 0);
  }
  if (o.topP < 1) ids = nucleus(weights, ids ?? heaviest(weights, o.topP * total), o.topP * total);
  if (o.minP > 0) ids = (ids ?? [...weights.keys()]).filter((id) => weights[id] >= o.minP);
  return normalise(weights, ids);
}

/** Ids of the `k` largest values, largest first, the lower id first among equals. */
export function largest(values: Float32Array, k: number): number[] {
  // A heap of the k best with the worst on top: O(V log k), and almost always one comparison a value.
  const heap: number[] = [];
  const worse = (a: number, b: number) => values[a] < values[b] || (values[a] === values[b] && a > b);
  const sink = (i: number) => {
    for (;;) {
      let low = i;
      for (const child of [2 * i + 1, 2 * i + 2]) if (child < heap.length && worse(heap[child], heap[low])) low = child;
      if (low === i) return;
      [heap[i], heap[low]] = [heap[low], heap[i]];
      i = low;
    }
  };
  for (let id = 0; id < values.length; id++) {
    if (heap.length < k) {
      heap.push(id);
      if (heap.length === k) { for (let i = k >> 1; i >= 0; i--) sink(i); }
    } else if (values[id] > values[heap[0]]) {
      heap[0] = id;
      sink(0);
    }
  }
  return heap.sort((a, b) => values[b] - values[a] || a - b);
}

/**
 * Log-softmax of the logits as the model gave them, before bias, penalties and temperature.
 * @param logits f32 [V], not changed
 * @param top how many alternatives
 */
export function logprobsOf(logits: Float32Array, id: number, top: number): TokenLogprob {
  const max = logits[argmax(logits)];
  let sum = 0;
  for (let i = 0; i < logits.length; i++) sum += Math.exp(logits[i] - max);
  const lse = max + Math.log(sum);
  const best = top > 0 ? largest(logits, Math.min(top, logits.length)) : [];
  return { id, logprob: logits[id] - lse, top: best.map((id) => ({ id, logprob: logits[id] - lse })) };
}

/** At least the ids that carry `mass`, heaviest first: only those over a threshold are sorted, never the whole vocabulary. */
function heaviest(weights: Float64Array, mass: number): number[] {
  for (let threshold = 1e-3;; threshold = threshold < 1e-300 ? 0 : threshold * 1e-3) {
    const ids: number[] = [];
    let sum = 0;
    for (let i = 0; i < weights.length; i++) {
      if (weights[i] >= threshold) ids.push(i), sum += weights[i];
    }
    if (sum >= mass || threshold === 0) return ids.sort((a, b) => weights[b] - weights[a] || a - b);
  }
}

/** The shortest prefix of `ids` (heaviest first) with at least `mass`; never empty. */
function nucleus(weights: Float64Array, ids: readonly number[], mass: number): number[] {
  let sum = 0;
  const end = ids.findIndex((id) => (sum += weights[id]) >= mass);
  return ids.slice(0, end < 0 ? ids.length : end + 1);
}

function normalise(weights: Float64Array, ids: readonly number[] | null): Candidates {
  const kept = ids === null ? weights : Float64Array.from(ids, (id) => weights[id]);
  const total = kept.reduce((a, b) => a + b, 0);
  return { ids: ids ?? Int32Array.from(weights.keys()), probs: kept.map((w) => w / total) };
}

/** The candidate at which the running sum of probabilities passes `u`. */
function drawFrom({ ids, probs }: Candidates, u: number): number {
  let sum = 0, last = 0;
  for (let i = 0; i < ids.length; i++) {
    if (probs[i] === 0) continue;
    last = i;
    sum += probs[i];
    if (u < sum) return ids[i];
  }
  // Rounding may leave the sum a hair under 1.
  return ids[last];
}

function randomSeed(): number {
  const [low, high] = crypto.getRandomValues(new Uint32Array(2));
  return (high >>> 11) * 4294967296 + low;
}

function notFinite(): RangeError {
  return new RangeError("Cannot choose a token: the model's logits are not finite");
}
