/** The committed dylib: the one its sources give, small enough, and refused in words where it cannot run. */
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { readdirSync, readFileSync, statSync } from "node:fs";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { runtime } from "../../ffi/library.ts";
import { candidate } from "../../metal/mod.ts";
import { LIBRARY_SHA256, SOURCES_SHA256 } from "../../metal/prebuilt.ts";

const METAL = fileURLToPath(new URL("../../metal/", import.meta.url));
const DYLIB = `${METAL}prebuilt/darwin-arm64/libunsloth_metal.dylib`;
const named = process.env.UNSLOTH_LIB_METAL !== undefined, mac = process.platform === "darwin";

test("the dylib is the file that prebuilt.ts names", () => {
  expect(createHash("sha256").update(readFileSync(DYLIB)).digest("hex")).toBe(LIBRARY_SHA256);
});

test.skipIf(process.platform !== "linux")("the sources are those that the dylib was built from", () => {
  expect(execFileSync(`${METAL}build.sh`, ["--hash"], { encoding: "utf8" }).trim()).toBe(SOURCES_SHA256);
});

test("metal/ takes at most a megabyte", () => {
  const files = readdirSync(METAL, { recursive: true, withFileTypes: true }).filter((f) => f.isFile());
  const bytes = files.reduce((n, f) => n + statSync(`${f.parentPath}/${f.name}`).size, 0);
  expect(bytes).toBeLessThan(1 << 20);
});

test.skipIf(mac || named)("Metal is refused where there is no Apple silicon", async () => {
  await expect(candidate.open({})).rejects.toThrow(/^Cannot use Metal on \w+ \w+: it needs a Mac with Apple silicon$/);
});

test.skipIf(mac || runtime() === "other")("the dylib itself is refused by another system with its path", async () => {
  await expect(candidate.open({ library: DYLIB })).rejects.toThrow(/^Cannot open the metal library .*\.dylib: /);
});
