/**
 * Jobs in lanes: a lane's jobs run one after another, the lanes side by side, so that what keeps one core busy runs beside
 * what keeps two. Each job's output is printed whole when it ends; alone in its run, as it comes.
 */
import { spawn } from "node:child_process";

/** What one job says and finds. */
export class Report {
  total = { passed: 0, failed: 0, skipped: 0 };
  /** What was skipped, and why. */
  notes = [];
  /** The names of what failed. */
  failures = [];
  #held = "";

  /** @param live whether output is shown as it comes */
  constructor(name, live) {
    this.name = name;
    this.live = live;
  }
  write(text) {
    if (this.live) process.stdout.write(text);
    else this.#held += text;
  }
  say(line) {
    this.write(`${line}\n`);
  }
  fail(what) {
    this.total.failed++;
    this.failures.push(`${this.name}: ${what}`);
  }
  skip(why) {
    this.total.skipped++;
    this.notes.push(`${this.name}: ${why}`);
  }
  /** What was held back. */
  take() {
    const text = this.#held;
    this.#held = "";
    return text;
  }

  /** Runs a command; resolves to its status and output. */
  run(command, args, o) {
    return new Promise((done) => {
      const child = spawn(command, args, { ...o, stdio: ["ignore", "pipe", "pipe"] });
      let out = "";
      for (const from of [child.stdout, child.stderr]) {
        from.setEncoding("utf8");
        from.on("data", (text) => {
          out += text;
          this.write(text);
        });
      }
      child.on("error", (e) => done({ status: 127, out: String(e) }));
      child.on("close", (status) => done({ status: status ?? 1, out }));
    });
  }
}

const seconds = (since) => `${((Date.now() - since) / 1000).toFixed(1)} s`;

async function runJob({ name, work }, live) {
  const report = new Report(name, live), start = Date.now();
  console.log(live ? `\n# ${name}` : `> ${name} starts`);
  try {
    await work(report);
  } catch (e) {
    report.fail(String(e?.stack ?? e));
  }
  const { passed, failed } = report.total;
  const end = `${failed ? "FAIL" : "ok  "} ${name}: ${passed} passed, ${failed} failed (${seconds(start)})`;
  console.log(live ? end : `\n# ${name}\n${report.take()}${end}`);
  return report;
}

/**
 * Runs the lanes to their ends, whatever fails.
 * @param lanes lists of { name, work(report), after? }; `after` names a job of another lane to wait for, if it runs at all
 * @returns a report a job
 */
export async function runLanes(lanes) {
  const jobs = lanes.flat(), ends = new Map();
  for (const job of jobs) job.ended = new Promise((end) => ends.set(job, end));
  const reports = await Promise.all(lanes.map(async (lane) => {
    const done = [];
    for (const job of lane) {
      await jobs.find(({ name }) => name === job.after)?.ended;
      done.push(await runJob(job, jobs.length === 1));
      ends.get(job)();
    }
    return done;
  }));
  return reports.flat();
}
