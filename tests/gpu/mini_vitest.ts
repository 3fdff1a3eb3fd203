/**
 * As much of Vitest as the operation tests use, for a machine that has a GPU and no node_modules: tests run at the end,
 * one after the other; failures are printed and counted. Used through tests/gpu/import_map.json.
 * @module
 */
import process from "node:process";

type Work = (context: { skip(why?: string): void }) => unknown;
class Skip extends Error {}
const queue: { name: string; work: Work }[] = [], after: (() => unknown)[] = [];
let prefix = "";

/** Runs the declarations inside at once, their names under this one. */
export function describe(name: string, body: () => void): void {
  const outer = prefix;
  prefix = `${prefix}${name} > `;
  body();
  prefix = outer;
}

/** Declares a test. */
export function test(name: string, work: Work): void {
  queue.push({ name: prefix + name, work });
}
test.skip = (_name: string, _work: Work): void => {};

/** Runs when all tests have run. */
export function afterAll(work: () => unknown): void {
  after.push(work);
}

/** The two assertions that the operation tests make. */
export function expect(got: unknown, message = ""): { toBe(want: unknown): void } {
  return {
    toBe(want): void {
      if (!Object.is(got, want)) throw new Error(`${message}: got ${String(got)}, must be ${String(want)}`);
    },
  };
}

/**
 * Runs what was declared on backends whose name holds `filter`.
 * @returns how many failed
 */
export async function runAll(filter: string): Promise<number> {
  const tally = { passed: 0, skipped: 0, failed: 0 }, skips = new Map<string, number>();
  for (const { name, work } of queue.filter((t) => t.name.includes(filter))) {
    try {
      await work({
        skip(why = ""): void {
          throw new Skip(why);
        },
      });
      tally.passed++;
    } catch (e) {
      if (e instanceof Skip) {
        tally.skipped++;
        skips.set(e.message, (skips.get(e.message) ?? 0) + 1);
        continue;
      }
      tally.failed++;
      if (tally.failed <= 40) console.log(`FAIL ${name}\n     ${(e as Error).message.split("\n")[0]}`);
    }
  }
  for (const work of after) await work();
  for (const [why, n] of skips) console.log(`skipped ${n}: ${why}`);
  console.log(`${filter}: ${tally.passed} passed, ${tally.skipped} skipped, ${tally.failed} failed`);
  if (tally.passed === 0) {
    console.log("no test ran");
    return 1;
  }
  return tally.failed;
}

/** So that a script can end with the right status. */
export function exit(failed: number): never {
  process.exit(failed > 0 ? 1 : 0);
}
