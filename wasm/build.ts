/**
 * Compiles assembly/ into kernels_{fma,mul}.wasm.ts and panel_kernel.ts's text into kernels_panels.wasm.ts, which are committed:
 * `deno run -A wasm/build.ts` (or node).
 * `sources` is the hash that the modules carry; tests/wasm/build_test.ts fails when it no longer fits.
 * @module
 */
import { createHash } from "node:crypto";
import { Buffer } from "node:buffer";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import process from "node:process";
import { microKernel, type Variant, VARIANTS } from "./micro_kernel.ts";
import { panelKernel } from "./panel_kernel.ts";

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

/** SHA-256 of panel_kernel.ts's text. */
export function hashPanels(): string {
  return createHash("sha256").update(panelKernel).digest("hex");
}

/**
 * Assembles panel_kernel.ts's text as it is written, without optimising.
 * @throws {Error} when it is no valid module
 */
export async function assemblePanels(): Promise<Uint8Array> {
  const { default: binaryen } = await import("binaryen");
  const module = binaryen.parseText(panelKernel);
  module.setFeatures(binaryen.Features.All);
  if (!module.validate()) throw new Error("Cannot assemble wasm/panel_kernel.ts: it is no valid module");
  return module.emitBinary();
}

/** The committed module of a binary made of sources with a hash. */
export function moduleText(sources: string, bytes: Uint8Array): string {
  const binary = createHash("sha256").update(bytes).digest("hex");
  return [
    `// Written by build.ts: ${bytes.length} bytes of WebAssembly. Do not edit.`,
    `export const sources: string = "${sources}";`,
    `export const binary: string = "${binary}";`,
    `export const base64: string = "${Buffer.from(bytes).toString("base64")}";`,
    "",
  ].join("\n");
}

function write(name: string, sources: string, bytes: Uint8Array): void {
  writeFileSync(new URL(`kernels_${name}.wasm.ts`, HERE), moduleText(sources, bytes));
  console.log(`kernels_${name}: ${bytes.length} bytes`);
}

async function main(): Promise<void> {
  for (const v of VARIANTS) write(v.name, hashSources(v), await compile(v));
  write("panels", hashPanels(), await assemblePanels());
}

if (process.argv[1] === new URL(import.meta.url).pathname) await main();
