/** Schedules against transformers' own numbers (make_schedules.py), past the last step too. */
import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { learningRate, SCHEDULE_NAMES } from "../../src/train/schedule.ts";
import type { ScheduleArgs, ScheduleName } from "../../src/train/types.ts";

interface Recorded {
  name: ScheduleName;
  args: Record<string, number | string>;
  warmup: number;
  total: number;
  lr: number;
  rates: number[];
}

const cases: Recorded[] = JSON.parse(readFileSync(new URL("../fixtures/schedules.json", import.meta.url), "utf8"));

/** num_cycles is numCycles. */
function camel(args: Recorded["args"]): ScheduleArgs {
  const name = (key: string) => key.replace(/_(.)/g, (_, c) => c.toUpperCase());
  return Object.fromEntries(Object.entries(args).map(([k, v]) => [name(k), v]));
}

test.each(cases)("$name $args with $warmup steps of warm-up is transformers'", (c) => {
  const o = { lr: c.lr, schedule: c.name, warmupSteps: c.warmup, totalSteps: c.total, scheduleArgs: camel(c.args) };
  c.rates.forEach((rate, i) => expect(learningRate(o, i + 1), `step ${i + 1}`).toBeCloseTo(rate, 15));
});

test("every schedule is held against a recorded one", () => {
  expect(new Set(cases.map((c) => c.name))).toEqual(new Set(SCHEDULE_NAMES));
});

test("a schedule that does not exist, and a decay that would rise, are refused", () => {
  const o = { lr: 1e-8, warmupSteps: 0, totalSteps: 3 };
  expect(() => learningRate({ ...o, schedule: "cosin" as ScheduleName }, 1)).toThrow(
    "Cannot use the schedule 'cosin': there are linear",
  );
  expect(() => learningRate({ ...o, schedule: "polynomial" }, 1)).toThrow("Cannot decay to 1e-7: it is not below");
});

test.each(
  [
    ["linear", { numCycles: 2 }, "Cannot use numCycles with the schedule 'linear': it has none"],
    ["cosine", { lrEnd: 1e-5 }, "Cannot use lrEnd with the schedule 'cosine': it has numCycles"],
    ["inverse_sqrt", { power: 2, timescale: 3 }, "Cannot use power with the schedule 'inverse_sqrt': it has timescale"],
  ] as const,
)("%s with %j is refused", (schedule, scheduleArgs, why) => {
  expect(() => learningRate({ lr: 1, schedule, warmupSteps: 0, totalSteps: 3, scheduleArgs }, 1)).toThrow(why);
});
