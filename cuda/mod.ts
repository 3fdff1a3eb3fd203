/**
 * The CUDA backend: a prebuilt library over the C ABI of ffi/, which needs an NVIDIA driver (580 or later) and nothing else.
 * Kernels and their figures: docs/cuda.md.
 * @module
 */
import process from "node:process";
import { openNative } from "../ffi/adapter.ts";
import { locate } from "../ffi/locate.ts";
import type { Candidate, OpenOpts } from "../ffi/select.ts";
import type { Backend, WorkspaceShape } from "../src/core/backend.ts";
import { BackendError } from "../src/core/errors.ts";
import { LIBRARY_SHA256 } from "./prebuilt.ts";

/**
 * The ring of waiting products (64 MiB and an eighth, cuda/host/pending_state.cpp), and the largest of what is summed in parts: a
 * product's 48 MiB (cuda/kernels/gemm_sm90.cu), or dq in f32 (cuda/kernels/attention_sm90_bwd_once.cu; scratch grows by an eighth more);
 * sines and cosines of a pass (cuda/host/pending_rope.cpp); inputs in 8 bits, each 128 with a scale (cuda/kernels/fp8.h).
 */
function workspace({ tokens, heads, headDim, columns8 }: WorkspaceShape): number {
  const dq = headDim <= 128 ? 4.5 * tokens * heads * (headDim <= 64 ? 64 : 128) : 0;
  const rounded = 1.125 * tokens * columns8 * (1 + 4 / 128);
  return 72 * 2 ** 20 + Math.max(54 * 2 ** 20, Math.ceil(dq)) + Math.ceil(4.5 * tokens * headDim + rounded);
}

/** Opens CUDA where there is a driver and a device of compute capability 8.0 or later. */
export const candidate: Candidate = {
  name: "cuda",
  /**
   * @param o `actDtype` default bf16; f32 computes without TF32
   * @throws {BackendError} when there is no library for this platform, no driver, no device, or no such device
   */
  async open(o: OpenOpts): Promise<Backend> {
    const path = await locate({
      name: "cuda",
      prebuilt: prebuiltFor(process.platform, process.arch),
      sha256: LIBRARY_SHA256,
      explicit: o.library,
    });
    const { device, actDtype, memoryLimit } = o;
    return await openNative({ name: "cuda", path, device, actDtype, memoryLimit, workspace });
  },
};

/** Where the library for a platform lies beside this module. */
function prebuiltFor(platform: string, arch: string): URL {
  if (platform !== "linux" || arch !== "x64") {
    throw new BackendError(`Cannot use CUDA on ${platform} ${arch}: the library is built for linux x64`, "locate");
  }
  return new URL("./prebuilt/linux-x64/libunsloth_cuda.so", import.meta.url);
}
