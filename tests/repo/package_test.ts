/** The published package: what is in it, how big it is, and that its tree holds nothing of one machine. */
import { execFileSync } from "node:child_process";
import { readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const git = (...args: string[]): string => execFileSync("git", args, { cwd: ROOT, encoding: "utf8" });
const tracked = git("ls-files", "-z").split("\0").filter(Boolean);

interface DenoConfig {
  publish: { include: string[]; exclude: string[] };
}
const config = JSON.parse(readFileSync(join(ROOT, "deno.json"), "utf8")) as DenoConfig;

/** Tracked files that `deno publish` would take. */
function published(): string[] {
  const inside = (file: string, pattern: string) => {
    const base = pattern.replace(/\/\*\*$/, "");
    return file === base || file.startsWith(`${base}/`);
  };
  return tracked.filter((f) =>
    config.publish.include.some((p) => inside(f, p)) && !config.publish.exclude.some((p) => inside(f, p))
  );
}

const MB = 1_000_000;
const bytes = (files: string[]): number => files.reduce((n, f) => n + statSync(join(ROOT, f)).size, 0);

describe("the published package", () => {
  const files = published();
  const part = (prefix: RegExp) => files.filter((f) => prefix.test(f));
  const budget: [string, RegExp, number][] = [
    ["the embedded model", /^models\//, 3 * MB],
    ["the CUDA library", /^cuda\//, 12 * MB],
    ["the Metal library", /^metal\//, 1 * MB],
  ];
  test.each(budget)("%s stays in its budget", (_name, prefix, most) => {
    expect(bytes(part(prefix))).toBeLessThanOrEqual(most);
  });
  test("the rest stays under 2 MB and all of it under 18 MB", () => {
    expect(bytes(part(/^(?!models\/|cuda\/|metal\/)/))).toBeLessThanOrEqual(2 * MB);
    expect(bytes(files)).toBeLessThan(18 * MB);
  });
  test("holds what it needs to run", () => {
    for (const f of ["mod.ts", "deno.json", "LICENSE", "README.md", "src/core/backend.ts", "server/app.ts"]) {
      expect(files).toContain(f);
    }
  });
});

const text = tracked.filter((f) =>
  /\.(ts|mjs|js|json|md|sh|c|h|cu|cuh|metal|rs|toml|yml|yaml|txt|py|lock)$|^\.ci\/|^\.npmrc$/.test(f)
);

test("no tracked file names a path of one machine", () => {
  const wrong = text.filter((f) => /(^|[^\w.])\/(work|root|home\/\w+)\//m.test(readFileSync(join(ROOT, f), "utf8")));
  expect(wrong).toEqual([]);
});

test("no tracked file names a registry host", () => {
  const hosts = new RegExp(
    ["registry\\.npmjs", "pypi\\.org", "files\\.pythonhosted", "static\\.crates", "deb\\.debian"].join("|"),
  );
  const wrong = text.filter((f) =>
    f !== "tests/repo/package_test.ts" && hosts.test(readFileSync(join(ROOT, f), "utf8"))
  );
  expect(wrong).toEqual([]);
});

test("source files stay under 400 lines", () => {
  const long = tracked.filter((f) =>
    /\.(ts|mjs|cu|cuh|cpp|inc|metal|c|h|rs|py|sh)$/.test(f) && !/\.wasm\.ts$|^wasm\/rust\/pkg\//.test(f)
  )
    .map((f) => [f, readFileSync(join(ROOT, f), "utf8").split("\n").length - 1] as const).filter(([, n]) => n > 400);
  expect(long.map(([f, n]) => `${f}: ${n}`)).toEqual([]);
});
