/**
 * The Metal backend: a prebuilt library over the C ABI of ffi/ for Apple silicon, macOS 14 or later. Kernels, proofs and
 * what only a Mac can show: docs/metal.md.
 * @module
 */
import process from "node:process";
import { openNative } from "../ffi/adapter.ts";
import { locate } from "../ffi/locate.ts";
import type { Candidate, OpenOpts } from "../ffi/select.ts";
import type { Backend } from "../src/core/backend.ts";
import { BackendError } from "../src/core/errors.ts";
import { LIBRARY_SHA256 } from "./prebuilt.ts";

/** Opens Metal on Apple silicon; elsewhere only a library the user names, such as the simulator's (tests/metal/sim). */
export const candidate: Candidate = {
  name: "metal",
  /**
   * @param o `actDtype` default bf16, and f16 on M1 and M2, which have no bf16 arithmetic
   * @throws {BackendError} when this is no Mac with Apple silicon, or its GPU or library cannot be used
   */
  async open(o: OpenOpts): Promise<Backend> {
    const named = o.library ?? process.env.UNSLOTH_LIB_METAL;
    if (!named && (process.platform !== "darwin" || process.arch !== "arm64")) {
      throw new BackendError(
        `Cannot use Metal on ${process.platform} ${process.arch}: it needs a Mac with Apple silicon`,
      );
    }
    const path = await locate({
      name: "metal",
      prebuilt: new URL("./prebuilt/darwin-arm64/libunsloth_metal.dylib", import.meta.url),
      sha256: LIBRARY_SHA256,
      explicit: o.library,
    });
    const { device, actDtype, memoryLimit } = o, map = process.env.UNSLOTH_METAL_MAP !== "0";
    return await openNative({ name: "metal", path, device, actDtype, memoryLimit, map });
  },
  async examine(against: Backend, log: (line: string) => void): Promise<boolean> {
    const { examine } = await import("./examine.ts");
    return await examine({ open: (o) => this.open(o), against, log, speed: process.platform === "darwin" });
  },
};
