/**
 * Many requests over one model: each step computes one token of every answer under way together with a piece of the
 * prompts that are still being read, in one pass over the weights (continuous batching: Yu et al., "Orca", OSDI 2022).
 * The queue knows tokens and slots; what a pass is, the Runner knows.
 * @module
 */
import { setImmediate } from "node:timers";
import { turn } from "../core/turn.ts";
import type { Tokenizer } from "../tokenizer/types.ts";
import { type Place, sharedPrefix, SlotTable } from "./cache.ts";
import { ContextLengthError, QueueFullError } from "./errors.ts";
import { Outlet } from "./outlet.ts";
import { logprobsOf, Sampler } from "./sample.ts";
import { AnswerText, type Written } from "./text.ts";
import type { GenerateRequest, Piece } from "./types.ts";

/** Tokens of one pass, several sequences mixed; a sequence's tokens stand in order of their positions. */
export interface Step {
  ids: Int32Array /* [N] */;
  /** Position of each token in its sequence: the cache row it is written to. */
  pos: Int32Array /* [N] */;
  /** Slot of each token. */
  seq: Int32Array /* [N] */;
  /** Rows whose logits are wanted. */
  rows: Int32Array /* [R] */;
  /** Some length on the same side of the runner's `ropeTurn` as those of all its sequences; absent: the context's. */
  length?: number;
}

/** A model with a key/value cache of `slots` sequences. */
export interface Runner {
  readonly slots: number;
  /** Rows of a slot: the longest prompt with its answer. */
  readonly contextLength: number;
  /** The most tokens of one step; at least `slots`. */
  readonly stepTokens: number;
  /** Sequences longer than this have other rotary frequencies, so that all their rows are computed anew. */
  readonly ropeTurn: number;
  /** Writes the cache and returns logits f32 [R,V], valid until the next call. One call at a time. */
  forward(step: Step): Promise<Float32Array>;
  /** Copies the first `tokens` rows of slot `from` to slot `to`. Not called during a step. */
  share(from: number, to: number, tokens: number): void;
  close(): void;
}

/** A request waits for a shared beginning that another is just reading if that spares it this many tokens or more. */
const WORTH_WAITING = 16;

/** What the queue needs besides the runner. */
export interface QueueOptions {
  tokenizer: Pick<Tokenizer, "decode">;
  /** Ids that end an answer. */
  eos: readonly number[];
  /** Requests running and waiting, together. */
  limit: number;
  /** Called before each step: where requests and aborts come from another thread, takes in those that have come. */
  poll?(): void;
}

/** A request under way. */
interface Job {
  request: GenerateRequest;
  out: Outlet<Piece>;
  sampler: Sampler;
  text: AnswerText;
  /** Prompt and answer so far. */
  ids: number[];
  /** Of `ids`, how many are in the cache. */
  done: number;
  slot: number;
  cached: number;
  /** Longer than the runner's `ropeTurn`: its rows were computed with the frequencies of long sequences. */
  long: boolean;
  maxTokens: number;
  aborted: boolean;
  /** Stops listening to the request's signal. */
  deaf(): void;
  startedAt: number;
  firstAt: number;
}

/** Takes requests, answers them together. */
export class RequestQueue {
  #waiting: Job[] = [];
  #running: Job[] = [];
  #slots: SlotTable;
  #loop: Promise<void> | null = null;
  #closed = false;
  #long = false;
  readonly #runner: Runner;
  readonly #options: QueueOptions;

  constructor(runner: Runner, options: QueueOptions) {
    this.#runner = runner;
    this.#options = options;
    this.#slots = new SlotTable(runner.slots, runner.ropeTurn);
  }

  /** Requests running, waiting, and the most there may be of both. */
  stats(): { running: number; waiting: number; limit: number } {
    return { running: this.#running.length, waiting: this.#waiting.length, limit: this.#options.limit };
  }

  /**
   * Puts a request into the queue.
   * @throws {QueueFullError} when the limit is reached
   * @throws {ContextLengthError} when the prompt leaves no room for one token
   * @throws {RangeError} when the prompt is empty or the queue is closed
   */
  submit(request: GenerateRequest): AsyncIterable<Piece> {
    if (this.#closed) throw new RangeError("Cannot take a request: the engine is closed");
    const { contextLength } = this.#runner, { limit } = this.#options;
    checkRequest(request, { contextLength, limit, taken: this.#running.length + this.#waiting.length });
    const abort = () => this.#abort(job);
    const job: Job = {
      request,
      out: new Outlet<Piece>(abort),
      sampler: new Sampler(request.sample, request.ids),
      text: new AnswerText(this.#options.tokenizer, request.ids, request.stop),
      ids: Array.from(request.ids),
      done: 0,
      slot: -1,
      cached: 0,
      long: request.ids.length > this.#runner.ropeTurn,
      maxTokens: Math.min(request.maxTokens, this.#runner.contextLength - request.ids.length),
      aborted: false,
      deaf: () => request.signal?.removeEventListener("abort", abort),
      startedAt: 0,
      firstAt: 0,
    };
    this.#waiting.push(job);
    if (request.signal?.aborted) abort();
    else request.signal?.addEventListener("abort", abort, { once: true });
    this.#loop ??= this.#run();
    return job.out;
  }

  /** Ends every request as aborted, waits for the step under way, closes the runner. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    for (const job of [...this.#waiting, ...this.#running]) this.#abort(job);
    await this.#loop;
    this.#runner.close();
  }

  #abort(job: Job): void {
    job.aborted = true;
    const at = this.#waiting.indexOf(job);
    if (at < 0) return; // running: ends before the next step
    this.#waiting.splice(at, 1);
    finish(job, "aborted", job.text.finish());
  }

  async #run(): Promise<void> {
    // A turn of the event loop before each step: new requests, aborts and the readers of answers come in between.
    for (await this.#turn(); this.#running.length + this.#waiting.length > 0; await this.#turn()) {
      for (const job of this.#running.filter((j) => j.aborted)) this.#finish(job, "aborted", job.text.finish());
      this.#admit();
      if (this.#running.length === 0) continue;
      try {
        await this.#step();
      } catch (error) {
        // What the cache holds is unknown now: nothing of it is used again.
        for (const job of this.#running.splice(0)) {
          this.#slots.release(job.slot, new Int32Array());
          job.deaf();
          job.out.fail(error);
        }
      }
    }
    this.#loop = null;
  }

  /** Lets everything else in this thread run; where others are asked for what they sent, that need not be waited for. */
  async #turn(): Promise<void> {
    const { poll } = this.#options;
    if (!poll) return await turn();
    await new Promise<void>((resolve) => void setImmediate(resolve));
    poll();
  }

  #admit(): void {
    while (this.#waiting.length > 0) {
      const { ids } = this.#waiting[0].request, place = this.#slots.find(ids);
      if (place === null) return;
      const best = this.#bestBeginning(ids, place);
      if (best === null) return;
      const job = this.#waiting.shift()!;
      job.slot = place.slot;
      job.cached = job.done = best.cached;
      job.startedAt = performance.now();
      this.#slots.lend(place.slot);
      if (best.slot !== place.slot) this.#runner.share(best.slot, place.slot, best.cached);
      this.#running.push(job);
      if (job.maxTokens < 1) this.#finish(job, "length", job.text.finish());
    }
  }

  /**
   * Where the longest known beginning of `ids` lies: in the free slot found for it, or in one whose request is running.
   * null: a running request is just reading much of what they share, so that it is better to wait for it.
   */
  #bestBeginning(ids: Int32Array, free: Place): Place | null {
    let best = free;
    for (const job of this.#running) {
      if (job.long !== (ids.length > this.#runner.ropeTurn)) continue;
      const shared = Math.min(sharedPrefix(job.ids, ids), ids.length - 1), cached = Math.min(shared, job.done);
      if (shared - Math.max(cached, free.cached) >= WORTH_WAITING) return null;
      if (cached > best.cached) best = { slot: job.slot, cached };
    }
    return best;
  }

  async #step(): Promise<void> {
    const parts = this.#plan(this.#side());
    const step = toStep(parts);
    const logits = await this.#runner.forward(step);
    const V = logits.length / Math.max(1, step.rows.length);
    let row = 0;
    for (const { job, count } of parts) {
      job.done += count;
      if (job.done < job.ids.length) continue;
      const own = logits.subarray(row * V, ++row * V);
      try {
        this.#take(job, own);
      } catch (error) {
        // One request's fault (logits that are not finite) is not the others'.
        this.#running.splice(this.#running.indexOf(job), 1);
        this.#slots.release(job.slot, new Int32Array());
        job.deaf();
        job.out.fail(error);
      }
    }
  }

  /**
   * The jobs of one step: those on one side of `ropeTurn`, the sides taking turns. A job that has just become longer is
   * read again from its start, as transformers does with phi 3.
   */
  #side(): Job[] {
    for (const job of this.#running) {
      if (job.long || job.ids.length <= this.#runner.ropeTurn) continue;
      job.long = true;
      job.done = 0;
    }
    this.#long = !this.#long;
    const jobs = this.#running.filter((j) => j.long === this.#long);
    return jobs.length ? jobs : this.#running;
  }

  /** How many tokens of each job this step computes: answers first, the room left to prompts, oldest first. */
  #plan(jobs: readonly Job[]): { job: Job; count: number }[] {
    const decoding = jobs.filter((j) => j.ids.length - j.done === 1);
    let room = this.#runner.stepTokens - decoding.length;
    const parts = decoding.map((job) => ({ job, count: 1 }));
    for (const job of jobs) {
      const left = job.ids.length - job.done;
      if (left === 1 || room === 0) continue;
      const count = Math.min(left, room);
      room -= count;
      parts.push({ job, count });
    }
    return parts;
  }

  /** The next token of `job` from its logits [V]. */
  #take(job: Job, logits: Float32Array): void {
    const { request } = job;
    if (job.firstAt === 0) job.firstAt = performance.now();
    const raw = request.logprobs === null ? null : logits.slice();
    const id = job.sampler.draw(logits);
    const logprob = raw && logprobsOf(raw, id, request.logprobs!);
    job.ids.push(id);
    const ends = !request.ignoreEos && this.#options.eos.includes(id) || request.stopIds?.includes(id);
    if (ends) return this.#finish(job, "stop", job.text.finish());
    const written = job.text.push(id, logprob);
    if (written.stopped) return this.#finish(job, "stop", written);
    if (job.ids.length - request.ids.length < job.maxTokens) {
      if (written.ids.length > 0 || written.text !== "") job.out.push(toPiece(job, written));
      return;
    }
    const rest = job.text.finish();
    this.#finish(job, rest.stopped ? "stop" : "length", {
      text: written.text + rest.text,
      ids: [...written.ids, ...rest.ids],
      logprobs: [...written.logprobs, ...rest.logprobs],
    });
  }

  #finish(job: Job, why: NonNullable<Piece["finish"]>, last: Written): void {
    this.#running.splice(this.#running.indexOf(job), 1);
    // Rows of a long sequence that is only half read again would pass for a short one's.
    const whole = !job.long || job.done > this.#runner.ropeTurn;
    this.#slots.release(job.slot, Int32Array.from(whole ? job.ids.slice(0, job.done) : []));
    finish(job, why, last);
  }
}

/** Turns a request away before any work. @throws as `RequestQueue.submit` */
export function checkRequest(
  { ids }: GenerateRequest,
  now: { contextLength: number; taken: number; limit: number },
): void {
  if (ids.length === 0) throw new RangeError("Cannot answer an empty prompt: it has no token");
  if (ids.length >= now.contextLength) throw new ContextLengthError(ids.length, now.contextLength);
  if (now.taken >= now.limit) throw new QueueFullError(now.limit);
}

function finish(job: Job, why: NonNullable<Piece["finish"]>, last: Written): void {
  job.deaf();
  const now = performance.now();
  const first = job.firstAt || now;
  const promptTokens = job.request.ids.length;
  job.out.push({
    ...toPiece(job, last),
    finish: why,
    usage: { promptTokens, completionTokens: job.ids.length - promptTokens, cachedTokens: job.cached },
    timings: {
      promptSeconds: job.startedAt === 0 ? 0 : (first - job.startedAt) / 1000,
      answerSeconds: (now - first) / 1000,
    },
  });
  job.out.end();
}

function toPiece(job: Job, w: Written): Piece {
  const { text, ids, logprobs } = w;
  return job.request.logprobs === null ? { text, ids } : { text, ids, logprobs };
}

function toStep(parts: readonly { job: Job; count: number }[]): Step {
  const ids: number[] = [], pos: number[] = [], seq: number[] = [], rows: number[] = [];
  for (const { job, count } of parts) {
    for (let i = job.done; i < job.done + count; i++) ids.push(job.ids[i]), pos.push(i), seq.push(job.slot);
    if (job.done + count === job.ids.length) rows.push(ids.length - 1);
  }
  return {
    ids: Int32Array.from(ids),
    pos: Int32Array.from(pos),
    seq: Int32Array.from(seq),
    rows: Int32Array.from(rows),
    length: parts[0].job.ids.length,
  };
}
