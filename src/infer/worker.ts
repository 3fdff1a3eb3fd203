/**
 * An engine in a thread of its own, so that a server goes on answering while a token is computed: this thread keeps the
 * tokenizer and the queue's limit, the worker the model. The worker's file is at the root, because it names the backends.
 * @module
 */
import { MessageChannel, type MessagePort, Worker } from "node:worker_threads";
import { encodeChat } from "../tokenizer/mod.ts";
import type { Tokenizer } from "../tokenizer/types.ts";
import { type FromWorker, type OpenEngineOptions, toError, type ToWorker } from "./messages.ts";
import { type EngineContext, openTokenizer } from "./open.ts";
import { Outlet } from "./outlet.ts";
import { checkRequest } from "./queue.ts";
import type { Engine, GenerateRequest, Piece } from "./types.ts";

/**
 * Starts a worker and loads the model in it.
 * @param program the package's engine_worker.ts
 * @throws {ConfigError | FormatError | MemoryError | BackendError} what loading throws in the worker
 */
export async function startEngine(
  program: URL,
  options: OpenEngineOptions,
  context: Pick<EngineContext, "note" | "onProgress"> = {},
): Promise<Engine> {
  const link = new Link(new Worker(program), context);
  try {
    link.send({ kind: "open", options });
    const tokenizer = openTokenizer(options);
    return engineOver(link, await link.ready, tokenizer);
  } catch (e) {
    await link.close();
    throw e;
  }
}

type Ready = Extract<FromWorker, { kind: "ready" }>;

/** An answer under way: where its pieces go, and how to stop listening to its signal. */
interface Open {
  out: Outlet<Piece>;
  deaf(): void;
}

/** One end of the conversation: answers by number, and what to do when the other end is gone. */
class Link {
  readonly ready: Promise<Ready>;
  readonly open = new Map<number, Open>();
  /** Why nothing more can be asked; null while all is well. */
  broken: Error | null = null;
  #worker: Worker;
  #port: MessagePort;
  #settleReady!: { resolve(r: Ready): void; reject(e: unknown): void };
  #onClosed: () => void = () => {};
  #closing: Promise<void> | null = null;

  constructor(worker: Worker, context: Pick<EngineContext, "note" | "onProgress">) {
    this.#worker = worker;
    this.ready = new Promise((resolve, reject) => this.#settleReady = { resolve, reject });
    this.ready.catch(() => {}); // told by whoever awaits it
    const { port1, port2 } = new MessageChannel();
    this.#port = port1;
    port1.on("message", (m: FromWorker) => this.#hear(m, context));
    worker.postMessage({ port: port2 }, [port2]);
    worker.on("error", (e: unknown) => this.#break(e instanceof Error ? e : new Error(String(e))));
    worker.on("exit", () => this.#break(new Error("Cannot go on: the engine's worker has ended")));
  }

  send(message: ToWorker): void {
    this.#port.postMessage(message);
  }

  /** Has the worker finish, and waits for it: it must end its own threads, since killing it would leave them asleep. */
  close(): Promise<void> {
    return this.#closing ??= this.#close();
  }

  async #close(): Promise<void> {
    await this.ready.catch(() => {});
    if (this.broken === null) {
      this.broken = new RangeError("Cannot take a request: the engine is closed");
      const closed = new Promise<void>((resolve) => this.#onClosed = resolve);
      this.send({ kind: "close" });
      await closed;
    }
    this.#port.close();
    await this.#worker.terminate();
  }

  #hear(m: FromWorker, context: Pick<EngineContext, "note" | "onProgress">): void {
    if (m.kind === "note") context.note?.(m.sentence);
    else if (m.kind === "progress") context.onProgress?.(m.bytes, m.total);
    else if (m.kind === "ready") this.#settleReady.resolve(m);
    else if (m.kind === "failed") this.#break(toError(m.error));
    else if (m.kind === "closed") this.#onClosed();
    else if (m.kind === "piece") this.open.get(m.id)?.out.push(m.piece);
    else this.#end(m.id, m.kind === "error" ? toError(m.error) : null);
  }

  #end(id: number, error: Error | null): void {
    const answer = this.open.get(id);
    this.open.delete(id);
    answer?.deaf();
    if (error) answer?.out.fail(error);
    else answer?.out.end();
  }

  #break(error: Error): void {
    this.broken ??= error;
    this.#settleReady.reject(error);
    for (const id of [...this.open.keys()]) this.#end(id, error);
    this.#onClosed();
  }
}

function engineOver(link: Link, ready: Ready, tokenizer: Tokenizer): Engine {
  const { model, created, contextLength, slots, limit } = ready;
  let last = 0;
  const generate = ({ signal, ...request }: GenerateRequest): AsyncIterable<Piece> => {
    if (link.broken) throw link.broken;
    checkRequest(request, { contextLength, limit, taken: link.open.size });
    const id = ++last;
    const abort = () => link.open.has(id) && link.send({ kind: "abort", id });
    const out = new Outlet<Piece>(abort);
    link.open.set(id, { out, deaf: () => signal?.removeEventListener("abort", abort) });
    link.send({ kind: "generate", id, request });
    if (signal?.aborted) abort();
    else signal?.addEventListener("abort", abort, { once: true });
    return out;
  };
  const stats = () => {
    const running = Math.min(link.open.size, slots);
    return { running, waiting: link.open.size - running, limit };
  };
  const prompt: Engine["prompt"] = (messages, o = {}) => encodeChat(tokenizer, messages, { addPrompt: true, ...o });
  return { model, created, contextLength, tokenizer, prompt, generate, stats, close: () => link.close() };
}
