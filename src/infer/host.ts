/** The worker's side of a worker engine: an engine in its thread, driven by messages. @module */
import { type MessagePort, receiveMessageOnPort } from "node:worker_threads";
import type { Backend } from "../core/backend.ts";
import { type BackendChoice, type FromWorker, type OpenEngineOptions, toFailure, type ToWorker } from "./messages.ts";
import { DEFAULTS, openEngine } from "./open.ts";
import type { Engine } from "./types.ts";

/** Opens the backend that a choice names, in this thread. */
export type OpenBackend = (choice: BackendChoice, note: (sentence: string) => void) => Promise<Backend>;

/**
 * Answers the messages of `port` until it is told to close. Between two steps the port is asked directly: an abort or a
 * new request would otherwise wait, on Deno, for a dozen steps.
 */
export function hostEngine(port: MessagePort, openBackend: OpenBackend): void {
  let engine: Engine | null = null;
  const aborts = new Map<number, AbortController>();
  const send = (m: FromWorker) => port.postMessage(m);
  const hear = async (m: ToWorker) => {
    if (m.kind === "abort") aborts.get(m.id)?.abort();
    else if (m.kind === "generate") await answer(engine!, m, aborts, send);
    else if (m.kind === "open") engine = await open(m.options, { openBackend, send, poll });
    else {
      await engine?.close();
      send({ kind: "closed" });
    }
  };
  const poll = () => {
    for (let m; (m = receiveMessageOnPort(port)) !== undefined;) void hear(m.message);
  };
  port.on("message", hear);
}

async function open(
  options: OpenEngineOptions,
  { openBackend, send, poll }: { openBackend: OpenBackend; send(m: FromWorker): void; poll(): void },
): Promise<Engine | null> {
  const note = (sentence: string) => send({ kind: "note", sentence });
  try {
    const engine = await openEngine(options, {
      openBackend: () => openBackend(options.backend, note),
      note,
      poll,
      onProgress: (bytes, total) => send({ kind: "progress", bytes, total }),
    });
    const { model, created, contextLength } = engine, { limit } = engine.stats();
    send({ kind: "ready", model, created, contextLength, slots: options.slots ?? DEFAULTS.slots, limit });
    return engine;
  } catch (e) {
    send({ kind: "failed", error: toFailure(e) });
    return null;
  }
}

async function answer(
  engine: Engine,
  { id, request }: Extract<ToWorker, { kind: "generate" }>,
  aborts: Map<number, AbortController>,
  send: (m: FromWorker) => void,
): Promise<void> {
  const abort = new AbortController();
  aborts.set(id, abort);
  try {
    for await (const piece of engine.generate({ ...request, signal: abort.signal })) send({ kind: "piece", id, piece });
    send({ kind: "end", id });
  } catch (e) {
    send({ kind: "error", id, error: toFailure(e) });
  } finally {
    aborts.delete(id);
  }
}
