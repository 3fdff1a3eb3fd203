/**
 * From the logits of one position to the next token: logit bias, penalties, temperature, top-k, top-p, min-p, one draw.
 * Everything happens on the host in f64 and is a pure function of logits, options, history and seed, so a request
 * answers the same on every backend that gives the same logits.
 * @module
 */
import { Random } from "../core/philox.ts";
import type { SampleOptions, TokenLogprob } from "./types.ts";

/** Tokens left after the filters; a token's probability is its weight's share of the total. */
export interface Candidates {
  /** null: the whole vocabulary. */
  ids: readonly number[] | null;
  /** One of each of `ids`, or of each token. */
  weights: Float64Array;
  total: number;
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
  const max = logits[argmax(logits)], weigh = (id: number) => Math.exp((logits[id] - max) / o.temperature);
  let ids = o.topK > 0 && o.topK < logits.length ? largest(logits, o.topK) : null;
  let weights = ids ? Float64Array.from(ids, weigh) : new Float64Array(logits.length);
  if (!ids) { for (let i = 0; i < weights.length; i++) weights[i] = weigh(i); }
  let total = sum(weights);
  if (o.topP < 1) {
    // Those of the largest k are in order already; of a whole vocabulary only its heavy part is put in order.
    ids ??= heaviest(weights, o.topP * total);
    const kept = prefix(ids, weigh, o.topP * total);
    [ids, weights] = [kept, Float64Array.from(kept, weigh)];
    total = sum(weights);
  }
  if (o.minP > 0) {
    const kept: number[] = [];
    for (let i = 0; i < weights.length; i++) if (weights[i] >= o.minP) kept.push(ids ? ids[i] : i);
    [ids, weights] = [kept, Float64Array.from(kept, weigh)];
    total = sum(weights);
  }
  return { ids, weights, total };
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
function prefix(ids: readonly number[], weigh: (id: number) => number, mass: number): number[] {
  let sum = 0;
  const end = ids.findIndex((id) => (sum += weigh(id)) >= mass);
  return ids.slice(0, end < 0 ? ids.length : end + 1);
}

function sum(values: Float64Array): number {
  let total = 0;
  for (let i = 0; i < values.length; i++) total += values[i];
  return total;
}

/** The candidate at which the running sum of probabilities passes `u`. */
function drawFrom({ ids, weights, total }: Candidates, u: number): number {
  let left = u * total, last = 0;
  for (let i = 0; i < weights.length; i++) {
    if (weights[i] === 0) continue;
    last = i;
    left -= weights[i];
    if (left < 0) break; // rounding may leave a hair: then it is the last one
  }
  return ids ? ids[last] : last;
}

function randomSeed(): number {
  const [low, high] = crypto.getRandomValues(new Uint32Array(2));
  return (high >>> 11) * 4294967296 + low;
}

function notFinite(): RangeError {
  return new RangeError("Cannot choose a token: the model's logits are not finite");
}
