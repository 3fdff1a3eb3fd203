/**
 * Computes on three threads and never closes the backend: here, in a worker, or in a worker that is terminated while its
 * own workers sleep. pool_test.ts waits for the process to end.
 */
import process from "node:process";
import { isMainThread, parentPort, Worker } from "node:worker_threads";
import { createWasmBackend } from "../../wasm/mod.ts";

async function compute(): Promise<number> {
  const be = await createWasmBackend({ threads: 3 });
  const x = { handle: be.alloc(4 * 200_000), byteOffset: 0, dtype: "f32" as const, shape: [200_000] };
  be.fill(x, 6);
  be.scale(x, x, 2);
  const got = new Float32Array(200_000);
  await be.download(x, got);
  return got[199_999];
}

const where = process.argv[2];
if (!isMainThread) parentPort!.postMessage(await compute());
else if (where === "here") console.log("computed", await compute());
else {
  const worker = new Worker(new URL(import.meta.url));
  worker.once("message", async (result: number) => {
    console.log("computed", result);
    if (where.endsWith("terminated")) await worker.terminate();
    else worker.unref();
  });
}
