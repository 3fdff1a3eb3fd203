/**
 * Compiles assembly/ into the two committed modules kernels_{fma,mul}.wasm.ts: `deno run -A wasm/build.ts` (or node).
 * `sources` is the hash that the modules carry; tests/wasm/build_test.ts fails when it no longer fits.
 * @module
 */
import { createHash } from "node:crypto";
import { Buffer } from "node:buffer";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import process from "node:process";
import { microKernel, type Variant, VARIANTS } from "./micro_kernel.ts";

const HERE = new URL("./", import.meta.url);
const ASSEMBLY = new URL("assembly/", HERE);

/** Options of asc. Memory is imported, shared and at most 4 GiB; static data starts after the job's page. */
const OPTIONS = [
  "-O3",
  "--noAssert",
  "--runtime",
  "stub",
  "--importMemory",
  "--sharedMemory",
  "--initialMemory",
  "1",
  "--maximumMemory",
  "65536",
  "--memoryBase",
  "4096",
  "--enable",
  "simd",
  "--enable",
  "threads",
];

/** Every source file by name, the written `micro.ts` included. */
export function sources(v: Variant): Map<string, string> {
  const files = new Map<string, string>();
  for (const name of readdirSync(ASSEMBLY).filter((f) => f.endsWith(".ts")).sort()) {
    files.set(name, readFileSync(new URL(name, ASSEMBLY), "utf8"));
  }
  return files.set("micro.ts", microKernel(v));
}

/** SHA-256 over the options and the sources of a variant. */
export function hashSources(v: Variant): string {
  const hash = createHash("sha256").update([...OPTIONS, v.fused].join("\n"));
  for (const [name, text] of sources(v)) hash.update(`\n${name}\n${text}`);
  return hash.digest("hex");
}

/**
 * Compiles a variant.
 * @param index text in place of index.ts: tests export what the kernels keep to themselves
 * @throws {Error} with asc's messages
 */
export async function compile(v: Variant, index?: string): Promise<Uint8Array> {
  const asc = await import("assemblyscript/asc");
  const files = sources(v);
  if (index !== undefined) files.set("index.ts", index);
  let binary: Uint8Array | null = null;
  const relaxed = v.fused ? ["--enable", "relaxed-simd"] : [];
  const { error, stderr } = await asc.main(["index.ts", "--outFile", "out.wasm", ...OPTIONS, ...relaxed], {
    readFile: (name: string) => files.get(name) ?? null,
    writeFile: (name: string, data: Uint8Array | string) => {
      if (name === "out.wasm") binary = data as Uint8Array;
    },
    listFiles: () => [],
  });
  if (error || !binary) throw new Error(`Cannot compile wasm/assembly:\n${stderr.toString()}`);
  return binary;
}

/** The committed module of a binary. */
export function moduleText(v: Variant, bytes: Uint8Array): string {
  const binary = createHash("sha256").update(bytes).digest("hex");
  return [
    `// Written by build.ts from assembly/: ${bytes.length} bytes of WebAssembly. Do not edit.`,
    `export const sources: string = "${hashSources(v)}";`,
    `export const binary: string = "${binary}";`,
    `export const base64: string = "${Buffer.from(bytes).toString("base64")}";`,
    "",
  ].join("\n");
}

/** Where a variant's module lies. */
export function moduleUrl(v: Variant): URL {
  return new URL(`kernels_${v.name}.wasm.ts`, HERE);
}

async function main(): Promise<void> {
  for (const v of VARIANTS) {
    const bytes = await compile(v);
    writeFileSync(moduleUrl(v), moduleText(v, bytes));
    console.log(`kernels_${v.name}: ${bytes.length} bytes`);
  }
}

if (process.argv[1] === new URL(import.meta.url).pathname) await main();
