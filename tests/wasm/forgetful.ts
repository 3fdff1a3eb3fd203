/** Computes on three threads and ends without closing the backend; pool_test.ts waits for the process. */
import { createWasmBackend } from "../../wasm/mod.ts";

const be = await createWasmBackend({ threads: 3 });
const x = { handle: be.alloc(4 * 200_000), byteOffset: 0, dtype: "f32" as const, shape: [200_000] };
be.fill(x, 6);
be.scale(x, x, 2);
const got = new Float32Array(200_000);
await be.download(x, got);
console.log("computed", got[199_999]);
