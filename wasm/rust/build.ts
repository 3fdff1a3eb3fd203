/**
 * Builds pkg/ from src/ with wasm-pack, where cargo, wasm-pack and wasm-bindgen are there; says what is missing where
 * they are not. Nothing else in the project needs Rust: pkg/ is committed with the hash of what it was built from.
 *
 *     rustup target add wasm32-unknown-unknown
 *     cargo install --locked wasm-pack@0.15.1 wasm-bindgen-cli@0.2.129
 *     deno run -A wasm/rust/build.ts
 * @module
 */
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

const HERE = new URL("./", import.meta.url);
const PKG = new URL("pkg/", HERE);

/** The wasm-bindgen command must be the crate's version (Cargo.toml). */
const BINDGEN = "0.2.129";

/** SHA-256 over every source file, by name. */
export function hashSources(): string {
  const names = readdirSync(new URL("src/", HERE)).filter((n) => n.endsWith(".rs")).sort().map((n) => `src/${n}`);
  const hash = createHash("sha256");
  for (const name of ["Cargo.toml", ".cargo/config.toml", ...names]) {
    hash.update(`${name}\n${readFileSync(new URL(name, HERE), "utf8")}\n`);
  }
  return hash.digest("hex");
}

/** SHA-256 of the built module. */
export function hashBinary(): string {
  return createHash("sha256").update(readFileSync(new URL("unsloth_blocks_bg.wasm", PKG))).digest("hex");
}

/** What pkg/ says it was built from. */
export interface Origin {
  readonly sources: string;
  readonly binary: string;
  readonly rustc: string;
}

/** pkg/origin.json. */
export function readOrigin(): Origin {
  return JSON.parse(readFileSync(new URL("origin.json", PKG), "utf8"));
}

/** The version a command prints; null when it is not installed. */
function version(command: string): string | null {
  try {
    return execFileSync(command, ["--version"], { encoding: "utf8" }).trim();
  } catch (e) {
    if ((e as { code?: string }).code === "ENOENT") return null;
    throw e;
  }
}

/** What keeps this machine from building; null when nothing does. */
export function missing(): string | null {
  for (const command of ["cargo", "wasm-pack", "wasm-bindgen"]) if (!version(command)) return `no ${command} on PATH`;
  if (version("wasm-bindgen") !== `wasm-bindgen ${BINDGEN}`) return `wasm-bindgen must be ${BINDGEN}`;
  return null;
}

/** Runs wasm-pack. `no-install` and `no-opt`: it downloads nothing, and the result is the same everywhere. */
export function build(): void {
  const options = ["build", "--release", "--no-opt", "--mode", "no-install", "--target", "web", "--out-dir", "pkg"];
  execFileSync("wasm-pack", options, { cwd: fileURLToPath(HERE), stdio: "inherit" });
  for (const name of ["package.json", ".gitignore"]) rmSync(new URL(name, PKG), { force: true });
  const origin: Origin = { sources: hashSources(), binary: hashBinary(), rustc: version("rustc") ?? "" };
  writeFileSync(new URL("origin.json", PKG), JSON.stringify(origin, null, 2) + "\n");
}

if (import.meta.main) {
  const why = missing();
  if (why) console.log(`wasm/rust was not built: ${why}`);
  else build();
}
