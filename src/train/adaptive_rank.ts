/**
 * Adaptive rank: adapters start with r directions each and give up those that matter least, until all of them together
 * cost what `target` directions each would. At every decision each adapter is turned into the singular basis of its B·A
 * (the function stays), each direction gets a score, and the lowest by score and cost, over all adapters, are marked.
 * A marked direction fades to zero over the steps to the next decision and is removed there, when it does nothing: the
 * function never jumps. docs/adaptive_rank.md has the formulas and the measurement.
 *
 * On the device nothing moves: a removed direction is a zero row of A and a zero column of B. Its gradients are then
 * exactly zero (dA has B as a factor, dB has A), so every optimiser leaves it there. Saving leaves it out
 * (formats/adapter_rank.ts).
 * @module
 */
import type { Backend } from "../core/backend.ts";
import { ConfigError } from "../core/errors.ts";
import { numel, type Tensor } from "../core/tensor.ts";
import type { Param } from "../nn/module.ts";
import type { Params, ParamSpec } from "../nn/params.ts";
import { changeBasis, reorder, type SingularBasis, singularBasis } from "./low_rank.ts";
import { clearDirections, floatsOf, HostMoments, putDirections, takeDirections } from "./moment_basis.ts";
import { place } from "./rule.ts";
import { downloadState, uploadState } from "./snapshot.ts";
import type { HostTensor } from "./state.ts";
import type { Optimizer, OptimOptions } from "./types.ts";

/** How far ranks are lowered, and how often that is decided. */
export interface AdaptiveRankOptions {
  /** Mean rank at the end, over adapters weighted by their inputs plus outputs: the budget in trained elements. */
  readonly target: number;
  /** Steps between two decisions, and that a direction takes to fade. */
  readonly every: number;
}

/** Steps (1-based) after which ranks are decided: `first`, every so many, `last`; after `end` nothing changes. */
export interface RankSchedule {
  readonly first: number;
  readonly last: number;
  readonly end: number;
}

/** How ranks stand after a decision. */
export interface RankFigures {
  readonly step: number;
  /** Mean rank, weighted by cost; of directions that stay. */
  readonly mean: number;
  readonly least: number;
  readonly most: number;
  /** Trained elements of the directions that stay, and of all there were. */
  readonly elements: number;
  readonly of: number;
  /** Directions that fade until the next decision. */
  readonly fading: number;
}

/** By module: directions that are there, and how many of them, the last ones, fade. */
export type Ranks = Readonly<Record<string, readonly [number, number]>>;

/** Steps between decisions unless told: a twentieth of the run. */
export function defaultInterval(totalSteps: number): number {
  return Math.max(1, Math.round(totalSteps / 20));
}

/**
 * Decisions between a fifth and three fifths of the run: before, B is mostly noise; after, the ranks that are left get
 * their share of training (AdaLoRA, Zhang et al. 2023, has the same three phases).
 * @throws {ConfigError} when the run is too short for one decision and its fade
 */
export function rankSchedule(every: number, totalSteps: number): RankSchedule {
  const first = every * Math.max(1, Math.ceil(totalSteps / 5 / every));
  const last = every * Math.floor(3 * totalSteps / 5 / every), end = last + every;
  if (last >= first && end <= totalSteps) return { first, last, end };
  throw new ConfigError(
    `Cannot adapt ranks in ${totalSteps} steps with decisions every ${every}: none falls between a fifth and three ` +
      `fifths of the run; train for ${Math.max(5, 5 * every)} steps or more`,
  );
}

/** One adapter's factors. */
interface Pair<P> {
  readonly module: string;
  readonly a: P;
  readonly b: P;
}

function pairsOf<P extends { readonly name: string }>(list: readonly P[]): Pair<P>[] {
  const byName = new Map(list.map((p) => [p.name, p]));
  return list.flatMap((a) => {
    const module = /^(.*)\.lora_A\.weight$/.exec(a.name)?.[1];
    return module === undefined ? [] : [{ module, a, b: byName.get(`${module}.lora_B.weight`)! }];
  });
}

/**
 * Whether the ranks of a run's adapters can be lowered so.
 * @throws {ConfigError} when there are no adapters, the target is not below their ranks, or a rank exceeds its matrix
 */
export function checkAdaptiveRank(specs: readonly ParamSpec[], o: AdaptiveRankOptions): void {
  const pairs = pairsOf(specs);
  if (pairs.length === 0) throw new ConfigError("Cannot adapt ranks: the run trains no adapters");
  for (const { module, a: { shape: [r, inputs] }, b: { shape: [outputs] } } of pairs) {
    if (r <= Math.min(inputs, outputs)) continue;
    throw new ConfigError(`Cannot adapt the rank ${r} of '${module}': the matrix is [${outputs},${inputs}]; lower r`);
  }
  const cost = pairs.map(({ a, b }) => a.shape[1] + b.shape[0]), sum = cost.reduce((x, y) => x + y, 0);
  const mean = pairs.reduce((x, { a }, i) => x + a.shape[0] * cost[i], 0) / sum;
  if (o.target >= 1 && o.target < mean) return;
  throw new ConfigError(
    `Cannot lower ranks of ${+mean.toFixed(2)} to ${o.target}: the target lies from 1 to below that`,
  );
}

/** One adapter in the run. */
interface Adapter extends Pair<Param> {
  /** Elements of one direction: inputs + outputs. */
  readonly cost: number;
  /** Σ over steps of Bᵀ·∂L/∂B: what the loss says of each pair of directions. */
  readonly pull: Tensor /* f32 [R,R] */;
  /** By what B's columns are multiplied after this step. */
  readonly fade: Tensor /* f32 [R] */;
  live: number;
  fading: number;
}

/** What a decision looks at: an adapter in its singular basis, and what its directions are worth. */
interface Judged {
  readonly adapter: Adapter;
  readonly a: Float64Array[];
  readonly b: Float64Array[];
  readonly basis: SingularBasis;
  readonly scores: readonly number[];
  readonly marked: Set<number>;
}

/** Where parts of these sizes begin, at multiples of 256 bytes, which satisfy every device's alignment; and the end. */
function offsets(sizes: readonly number[]): number[] {
  const out = [0];
  for (const n of sizes) out.push(out.at(-1)! + Math.ceil(n / 64) * 64);
  return out;
}

/** Lowers the ranks of a run's adapters. Call `afterStep` after every step, before the model is used or saved. */
export class AdaptiveRank {
  readonly #be: Backend;
  readonly #params: Params;
  readonly #optimizer: Optimizer;
  readonly #betas: readonly number[];
  readonly #o: AdaptiveRankOptions;
  readonly #schedule: RankSchedule;
  readonly #adapters: readonly Adapter[];
  readonly #pulls: Tensor;
  readonly #fades: Tensor;
  readonly #all: number;

  /** @throws {ConfigError} as `checkAdaptiveRank` and `rankSchedule` */
  constructor(be: Backend, params: Params, optimizer: Optimizer, optim: OptimOptions, o: AdaptiveRankOptions) {
    checkAdaptiveRank(params.list.map((p) => ({ name: p.name, shape: p.value.shape })), o);
    this.#schedule = rankSchedule(o.every, optim.totalSteps);
    this.#be = be;
    this.#params = params;
    this.#optimizer = optimizer;
    this.#betas = optim.betas;
    this.#o = o;
    const pairs = pairsOf(params.list), ranks = pairs.map(({ a }) => a.value.shape[0]);
    const [pulls, fades] = [ranks.map((r) => r * r), ranks].map(offsets);
    this.#pulls = place(be, "f32", pulls.at(-1)!);
    this.#fades = place(be, "f32", fades.at(-1)!);
    this.#adapters = pairs.map(({ module, a, b }, i) => {
      const r = ranks[i], part = (t: Tensor, at: number, ...shape: number[]) => ({ ...t, byteOffset: at * 4, shape });
      const adapter = { module, a, b, cost: a.value.shape[1] + b.value.shape[0], live: r, fading: 0 };
      return { ...adapter, pull: part(this.#pulls, pulls[i], r, r), fade: part(this.#fades, fades[i], r) };
    });
    this.#all = this.#elements();
  }

  /** What a checkpoint needs besides `ranks`. */
  state(): Map<string, Tensor> {
    return new Map([["adaptive_rank.pulls", this.#pulls]]);
  }

  /** Where the adapters stand, for a checkpoint. */
  get ranks(): Ranks {
    return Object.fromEntries(this.#adapters.map((x) => [x.module, [x.live, x.fading]]));
  }

  /** Goes on as a checkpoint left it. @throws {ConfigError} when it lacks an adapter */
  restore(ranks: Ranks): void {
    for (const x of this.#adapters) {
      if (!ranks[x.module]) throw new ConfigError(`Cannot resume: the checkpoint has no rank for '${x.module}'`);
      [x.live, x.fading] = ranks[x.module];
    }
  }

  /**
   * Takes note of step `t`'s gradients and fades what is marked; at a decision, removes and marks directions.
   * @returns how ranks stand after a decision; null after any other step
   */
  async afterStep(t: number): Promise<RankFigures | null> {
    const { first, last, end } = this.#schedule, { every } = this.#o, be = this.#be;
    if (t > end || t <= first - every) return null;
    if (t <= last) {
      for (const { b, pull } of this.#adapters) be.matmul(pull, b.value, b.grad, null, { transA: true, beta: 1 });
    }
    this.#fade((t - first + every - 1) % every + 1);
    if (t < first || (t - first) % every !== 0) return null;
    await this.#decide(t);
    return this.#figures(t);
  }

  /** Step `j` of `every`: a marked direction has (every - j) / every of what it would have. */
  #fade(j: number): void {
    const { every } = this.#o, fading = this.#adapters.filter((x) => x.fading > 0);
    if (fading.length === 0) return;
    const factors = new Float32Array(numel(this.#fades)).fill(1);
    for (const { live, fading: n, fade } of fading) {
      const at = fade.byteOffset / 4;
      factors.fill((every - j) / (every - j + 1), at + live - n, at + live);
    }
    this.#be.upload(this.#fades, factors);
    for (const { b, fade } of fading) this.#be.scaleCols(b.value, b.value, fade);
  }

  async #decide(t: number): Promise<void> {
    const be = this.#be, list = this.#adapters.flatMap(({ a, b }) => [a, b]), state = this.#optimizer.state();
    const host = await downloadState(be, list, state), pulls = new Float32Array(numel(this.#pulls));
    await be.download(this.#pulls, pulls);
    const moments = new HostMoments(this.#params.slabs, host.moments, this.#betas, t);
    for (const x of this.#adapters) this.#remove(x, host.params, moments);
    if (t <= this.#schedule.last) {
      const judged = this.#adapters.flatMap((x) => judge(x, host.params, pulls));
      this.#mark(judged, this.#budget(t));
      for (const x of judged) turn(x, host.params, moments);
    }
    uploadState(be, list, state, host.params, host.moments, "memory");
    be.fill(this.#pulls, 0);
  }

  /** Takes away what has faded: B's columns are zero, so A's rows and both moments may become so. */
  #remove(x: Adapter, params: ReadonlyMap<string, HostTensor>, moments: HostMoments): void {
    if (x.fading === 0) return;
    x.live -= x.fading;
    x.fading = 0;
    for (const [p, side] of [[x.a, "rows"], [x.b, "columns"]] as const) {
      clearDirections(floatsOf(params.get(p.name)!), p.value.shape, side, x.live);
      moments.clear(p, side, x.live);
    }
  }

  /** Elements that may stay: from all to the target's along a cubic (Zhu & Gupta 2017; AdaLoRA, eq. 8). */
  #budget(t: number): number {
    const { first, last } = this.#schedule, left = last === first ? 0 : (last - t) / (last - first + this.#o.every);
    const target = this.#o.target * this.#adapters.reduce((n, x) => n + x.cost, 0);
    return target + (this.#all - target) * left * left * left;
  }

  /** Marks the directions with the least score by cost until the rest keeps the budget; one stays in each adapter. */
  #mark(judged: readonly Judged[], budget: number): void {
    const all = judged.flatMap((x, module) => {
      return x.scores.map((score, i) => ({ x, i, module, worth: score / x.adapter.cost }));
    });
    all.sort((p, q) => p.worth - q.worth || p.module - q.module || q.i - p.i);
    let elements = this.#elements();
    for (const { x, i } of all) {
      if (elements <= budget) break;
      if (x.marked.size + 1 === x.scores.length) continue;
      x.marked.add(i);
      elements -= x.adapter.cost;
    }
  }

  #elements(): number {
    return this.#adapters.reduce((n, x) => n + (x.live - x.fading) * x.cost, 0);
  }

  #figures(step: number): RankFigures {
    const ranks = this.#adapters.map((x) => x.live - x.fading), elements = this.#elements();
    return {
      ...{ step, elements, of: this.#all, mean: elements / this.#adapters.reduce((n, x) => n + x.cost, 0) },
      ...{ least: Math.min(...ranks), most: Math.max(...ranks) },
      fading: this.#adapters.reduce((n, x) => n + x.fading, 0),
    };
  }

  close(): void {
    this.#be.free(this.#pulls.handle);
    this.#be.free(this.#fades.handle);
  }
}

/**
 * The singular basis of an adapter, and each direction's score in it: |Σ over steps of bᵢ·∂L/∂bᵢ|, which is singular value
 * times gradient along it, σᵢ·|∂L/∂σᵢ|, the first-order change of the loss when the direction goes (Taylor pruning,
 * Molchanov et al. 2017; AdaLoRA's sensitivity). It is the same in every gauge, and vanishes where the gradient does.
 * Summed with its sign, so that batches' noise cancels. Adapters whose rows of A are not independent are left alone.
 */
function judge(adapter: Adapter, params: ReadonlyMap<string, HostTensor>, pulls: Float32Array): Judged[] {
  const { a: pa, b: pb, live, pull: { byteOffset, shape: [r] } } = adapter, at = byteOffset / 4;
  const a = takeDirections(floatsOf(params.get(pa.name)!), pa.value.shape, "rows", live);
  const b = takeDirections(floatsOf(params.get(pb.name)!), pb.value.shape, "columns", live);
  const basis = singularBasis(a, b);
  if (!basis) return [];
  const scores = Array.from(basis.sigma, (_, i) => { // the diagonal of Tᵀ·(Bᵀ·dB)·S
    let sum = 0;
    for (let j = 0; j < live; j++) {
      for (let k = 0; k < live; k++) sum += basis.t[j * live + i] * pulls[at + j * r + k] * basis.s[k * live + i];
    }
    return Math.abs(sum);
  });
  return [{ adapter, a, b, basis, scores, marked: new Set() }];
}

/** Writes an adapter and its moments in the singular basis, marked directions last. */
function turn(x: Judged, params: ReadonlyMap<string, HostTensor>, moments: HostMoments): void {
  const { adapter, marked, a, b } = x, { a: pa, b: pb, live } = adapter;
  const all = x.scores.map((_, i) => i), order = [...all.filter((i) => !marked.has(i)), ...marked];
  const { t, s } = reorder(x.basis, order);
  putDirections(floatsOf(params.get(pa.name)!), pa.value.shape, "rows", changeBasis(a, s));
  putDirections(floatsOf(params.get(pb.name)!), pb.value.shape, "columns", changeBasis(b, t));
  moments.rotate(pa, "rows", t, live);
  moments.rotate(pb, "columns", s, live);
  adapter.fading = marked.size;
}
