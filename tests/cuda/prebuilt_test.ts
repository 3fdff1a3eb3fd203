/** The committed library: the one its sources give, and one that any Linux of the last ten years can load. */
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, readFileSync, statSync } from "node:fs";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import { LIBRARY_SHA256, SOURCES_SHA256 } from "../../cuda/prebuilt.ts";
import { OPS, symbolOf } from "../../ffi/abi.ts";
import { BASE } from "../../ffi/abi_base.ts";
import { readElf } from "./elf.ts";

const CUDA = fileURLToPath(new URL("../../cuda/", import.meta.url));
const LIBRARY = `${CUDA}prebuilt/linux-x64/libunsloth_cuda.so`;
const absent = !existsSync(LIBRARY);

describe.skipIf(absent)(`the CUDA library${absent ? " (not in this checkout)" : ""}`, () => {
  const elf = absent ? null : readElf(readFileSync(LIBRARY));

  test("is the file that prebuilt.ts names", () => {
    expect(createHash("sha256").update(readFileSync(LIBRARY)).digest("hex")).toBe(LIBRARY_SHA256);
  });

  test.skipIf(process.platform !== "linux")("was built from the sources of this checkout", () => {
    expect(execFileSync(`${CUDA}build.sh`, ["--hash"], { encoding: "utf8" }).trim()).toBe(SOURCES_SHA256);
  });

  test("is smaller than 12 MB", () => {
    expect(statSync(LIBRARY).size).toBeLessThan(12_000_000);
  });

  test("exports the ABI and nothing that is not ours", () => {
    const names = elf!.exported;
    expect(names.filter((n) => !n.startsWith("us_"))).toEqual([]);
    const wanted = [...Object.keys(BASE), ...(Object.keys(OPS) as (keyof typeof OPS)[]).map(symbolOf)];
    expect(wanted.filter((n) => !names.includes(n))).toEqual([]);
  });

  test("needs the C library and its loader only: no driver, no CUDA, no C++ runtime", () => {
    const own = /^(libc|libm|libdl|libpthread|librt)\.so\.\d+$|^ld-linux-x86-64\.so\.2$/;
    expect(elf!.needed.filter((n) => !own.test(n))).toEqual([]);
    expect(elf!.needed.length).toBeGreaterThan(0);
  });

  test("asks for no glibc later than 2.17", () => {
    const minor = elf!.versions.map((v) => /^GLIBC_2\.(\d+)/.exec(v)?.[1]).filter((m) => m !== undefined).map(Number);
    expect(minor.length).toBeGreaterThan(0);
    expect(Math.max(...minor)).toBeLessThanOrEqual(17);
    expect(elf!.versions.filter((v) => !v.startsWith("GLIBC_2."))).toEqual([]);
  });
});
