/** The program of the engine's worker thread: it names the backends, as mod.ts does, and computes for src/infer/worker.ts. */
import { type MessagePort, parentPort } from "node:worker_threads";
import { selectBackend } from "./ffi/select.ts";
import { BACKENDS } from "./mod.ts";
import { hostEngine } from "./src/infer/host.ts";

parentPort?.once("message", ({ port }: { port: MessagePort }) => {
  hostEngine(port, ({ backend, ...o }, log) => selectBackend({ backend, ...o, candidates: BACKENDS, log }));
});
