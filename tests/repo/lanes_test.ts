/** What the test command runs its parts with: output that does not mix, failures that are named, one part after another. */
import process from "node:process";
import { afterEach, beforeEach, expect, test, vi } from "vitest";

interface Report {
  name: string;
  total: { passed: number; failed: number; skipped: number };
  notes: string[];
  failures: string[];
  say(line: string): void;
  fail(what: string): void;
  skip(why: string): void;
  run(command: string, args: string[], o?: object): Promise<{ status: number; out: string }>;
}
interface Job {
  name: string;
  after?: string;
  work(r: Report): unknown;
}
// By a name that compilers do not follow: it is JavaScript, which Node runs before anything is installed.
const { runLanes }: { runLanes(lanes: Job[][]): Promise<Report[]> } = await import(
  new URL("../lanes.mjs", import.meta.url).href
);
const turn = () => new Promise((go) => setTimeout(go));

let printed: string[];
beforeEach(() => {
  printed = [];
  vi.spyOn(console, "log").mockImplementation((s: string) => void printed.push(s));
});
afterEach(() => void vi.restoreAllMocks());

test("lanes run side by side, a lane's jobs in order, and each job's lines stay together", async () => {
  const order: string[] = [];
  const job = (name: string) => ({
    name,
    work: async (r: Report) => {
      order.push(name);
      r.say(`${name} 1`);
      await turn();
      r.say(`${name} 2`);
      r.total.passed++;
    },
  });
  const reports = await runLanes([[job("a"), job("b")], [job("c")]]);
  expect(order).toEqual(["a", "c", "b"]);
  expect(reports.map((r) => r.name)).toEqual(["a", "b", "c"]);
  for (const name of ["a", "b", "c"]) {
    const text = printed.filter((s) => s.includes(`# ${name}`));
    expect(text).toHaveLength(1);
    expect(text[0]).toMatch(
      new RegExp(`^\n# ${name}\n${name} 1\n${name} 2\nok   ${name}: 1 passed, 0 failed \\(\\d+\\.\\d s\\)$`),
    );
  }
});

test("a job that fails, skips or throws is in the reports, and the others still run", async () => {
  const reports = await runLanes([[
    { name: "a", work: (r: Report) => r.fail("format") },
    { name: "b", work: () => Promise.reject(new Error("lost")) },
    { name: "c", work: (r: Report) => r.skip("needs a Mac") },
  ]]);
  expect(reports.map((r) => r.total.failed)).toEqual([1, 1, 0]);
  expect(reports[0].failures).toEqual(["a: format"]);
  expect(reports[1].failures[0]).toContain("b: Error: lost");
  expect([reports[2].total.skipped, reports[2].notes]).toEqual([1, ["c: needs a Mac"]]);
  expect(printed.filter((s) => s.includes("FAIL"))).toHaveLength(2);
});

test("a job waits for the one it names, and not for one that is not run", async () => {
  const order: string[] = [];
  const job = (name: string, turns: number, after?: string) => ({
    ...{ name, after },
    work: async () => {
      for (let i = 0; i < turns; i++) await turn();
      order.push(name);
    },
  });
  await runLanes([[job("deno", 0, "python"), job("node", 0)], [job("python", 5)], [job("gate", 1, "nobody")]]);
  expect(order).toEqual(["gate", "python", "deno", "node"]);
});

test("a command's status and both of its streams are kept, and one that is not there is a failure", async () => {
  let found: { status: number; out: string }[] = [];
  const work = async (r: Report) => {
    const program = "console.log('to stdout'); console.error('to stderr'); process.exit(3)";
    const args = "Deno" in globalThis ? ["eval", program] : ["-e", program];
    found = [await r.run(process.execPath, args), await r.run("no-such-program", [])];
  };
  await runLanes([[{ name: "a", work }], [{ name: "b", work: turn }]]);
  expect(found[0].status).toBe(3);
  expect(found[0].out).toContain("to stdout");
  expect(found[0].out).toContain("to stderr");
  expect(found[1].status).toBe(127);
});
