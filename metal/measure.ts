/**
 * Speeds on the real GPU, for the report of `doctor --metal`: products with dense and 4-bit weights, one row against a
 * 4-bit weight, attention both ways, and one block of Llama-3.2-3B forward and backward. Ceilings: bench/metal_roofline.ts.
 * @module
 */
import type { OpenOpts } from "../ffi/select.ts";
import type { Backend } from "../src/core/backend.ts";
import { bytesOf, type DType } from "../src/core/dtype.ts";
import type { Tensor } from "../src/core/tensor.ts";

/** Milliseconds of `work`: the best of three after one to warm up, each long enough to measure. */
async function time(be: Backend, work: () => void): Promise<number> {
  let best = Infinity;
  for (let round = 0; round < 4; round++) {
    await be.fence();
    const start = performance.now();
    for (let i = 0; i < 5; i++) work();
    await be.fence();
    if (round > 0) best = Math.min(best, (performance.now() - start) / 5);
  }
  return best;
}

/** Zeros of a type on the device; zeros multiply as fast as anything. */
function zeros(be: Backend, dtype: DType, ...shape: number[]): Tensor {
  const count = shape.reduce((a, b) => a * b, 1), bytes = bytesOf(dtype, count);
  const t: Tensor = { handle: be.alloc(bytes), byteOffset: 0, dtype, shape };
  be.fill({ ...t, dtype: "u8", shape: [bytes] }, 0);
  return t;
}

/** Writes one line a measurement. */
export async function measure(open: (o: OpenOpts) => Promise<Backend>, log: (line: string) => void): Promise<void> {
  const be = await open({});
  const row = (name: string, ms: number, flop: number, bytes: number): void => {
    log(
      `${name.padEnd(44)} ${ms.toFixed(2).padStart(8)} ms ${(flop / ms / 1e9).toFixed(2).padStart(7)} TFLOP/s ${
        (bytes / ms / 1e6).toFixed(0).padStart(5)
      } GB/s`,
    );
  };
  try {
    log(`Speed with ${be.actDtype} activations`);
    const A = be.actDtype, N = 2048, D = 3072, F = 8192, H = 24, K = 8, d = 128;
    const x = zeros(be, A, N, D),
      wide = zeros(be, A, N, F),
      y = zeros(be, A, N, D),
      one = zeros(be, A, 1, D),
      few = zeros(be, A, 1, F);
    let block = 0;
    for (const q of [A, "q8_0", "q4_k"] as const) {
      const w = zeros(be, q, F, D), flop = 2 * N * F * D, bytes = bytesOf(q, F * D);
      const forward = await time(be, () => be.matmul(wide, x, w, null, { transB: true }));
      const backward = await time(be, () => be.matmul(y, wide, w, null, {}));
      const token = await time(be, () => be.matmul(few, one, w, null, { transB: true }));
      row(`matmul [${N},${D}]x[${D},${F}] ${q}`, forward, flop, bytes);
      row(`its input gradient, ${q}`, backward, flop, bytes);
      row(`one token against it, ${q}`, token, 2 * F * D, bytes);
      // a block has 3 such products and q, k, v, o: 3 F D + (2 D + 2 K d) D elements
      if (q === "q4_k") block = (forward + backward) * (3 + (2 * D + 2 * K * d) / F);
      be.free(w.handle);
    }
    const q = zeros(be, A, N, H, d), k = zeros(be, A, N, K, d), v = zeros(be, A, N, K, d), lse = zeros(be, "f32", H, N);
    const out = zeros(be, A, N, H, d),
      dq = zeros(be, A, N, H, d),
      dk = zeros(be, A, N, K, d),
      dv = zeros(be, A, N, K, d);
    const cu = zeros(be, "i32", 2), o = { scale: 0.1, window: 0, softcap: 0 }, flop = 2 * N * N * H * d;
    be.upload(cu, Int32Array.of(0, N));
    const s = { cu, maxLen: N };
    const there = await time(be, () => be.attention(out, lse, q, k, v, s, o));
    const back = await time(be, () => be.attentionBwd(dq, dk, dv, out, q, k, v, out, lse, s, o));
    row(`attention, ${N} tokens, ${H}/${K} heads of ${d}`, there, flop, 0);
    row("its backward", back, 2.5 * flop, 0);
    const p = zeros(be, "f32", 1 << 24), hyper = zeros(be, "f32", 8);
    row("adamw, 16.8 M parameters", await time(be, () => be.adamw(p, p, p, p, hyper)), 0, 28 * (1 << 24));
    const step = 28 * (block + there + back);
    log(
      `A LoRA step of Llama-3.2-3B in q4_k over ${N} tokens, by these: ${step.toFixed(0)} ms, ${
        (N / step * 1000).toFixed(0)
      } tokens/s`,
    );
  } finally {
    be.close();
  }
}
