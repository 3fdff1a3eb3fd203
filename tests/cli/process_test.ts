import { afterAll, beforeAll, expect, test } from "vitest";
import { existsSync, mkdirSync, readdirSync, readFileSync, symlinkSync } from "node:fs";
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { start, tinyTask } from "./process.ts";

let tiny: Awaited<ReturnType<typeof tinyTask>>;
beforeAll(async () => {
  tiny = await tinyTask();
});
afterAll(() => tiny.remove());

const argv = (name: string, ...more: string[]) => tiny.train(name, ...more);
const adapter = (name: string) => tiny.adapter(name);

test("a run killed with SIGKILL goes on from its last checkpoint and ends as if nothing had happened", async () => {
  const whole = start(argv("whole"));
  expect(await whole.ended, whole.output()).toBe(0);
  const killed = start(argv("killed", "--save_steps", "7"));
  await killed.prints("Iter 17: Train loss");
  killed.kill("SIGKILL");
  expect(await killed.ended).toBe(null);
  expect(existsSync(join(tiny.dir, "killed", "adapter_model.safetensors"))).toBe(false);
  const rest = start(argv("killed", "--save_steps", "7", "--resume"));
  expect(await rest.ended, rest.output()).toBe(0);
  expect(rest.output()).toMatch(/Going on after step (14|21|28|35|42|49|56) /);
  expect(adapter("killed").equals(adapter("whole"))).toBe(true);
});

test("SIGINT ends a run after its step, with a checkpoint and status 130", async () => {
  const run = start(argv("interrupted", "--max_steps", "100000"));
  await run.prints("Iter 3: Train loss");
  run.kill("SIGINT");
  expect(await run.ended, run.output()).toBe(130);
  expect(run.output()).toMatch(/Saved checkpoint to .*\nStopped after step \d+; .*--resume/);
  expect(readdirSync(join(tiny.dir, "interrupted")).filter((f) => f.startsWith("checkpoint"))).toHaveLength(1);
});

test("help, version and mistakes end with the status a shell expects", async () => {
  const run = async (...args: string[]) => {
    const p = start(args);
    return { status: await p.ended, output: p.output() };
  };
  expect((await run("--version")).output.trim()).toBe(
    JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8")).version,
  );
  expect(await run("trian")).toMatchObject({
    status: 2,
    output: "Error: Unknown command trian: did you mean train?\n",
  });
  const [help, doctor] = await Promise.all([run("serve", "--help"), run("doctor", "--num_threads", "1")]);
  expect(help.output).toContain("--port N");
  expect(doctor).toMatchObject({ status: 0 });
  expect(doctor.output).toMatch(/Runtime +(Deno|Bun|Node) \d+[^]*wasm +works: /);
});

test("chat answers a prompt, and piped lines as a conversation", async () => {
  const once = start([
    "chat",
    tiny.model,
    "--prompt",
    "What can the owl do?",
    "--max_tokens",
    "4",
    "--num_threads",
    "1",
  ]);
  expect(await once.ended, once.output()).toBe(0);
  const several = start(["chat", tiny.model, "--max_tokens", "3", "--num_threads", "1"]);
  several.child.stdin!.end("one\n/clear\ntwo\n");
  expect(await several.ended, several.output()).toBe(0);
  expect(several.output().match(/The answer was cut after 3 tokens/g)).toHaveLength(2);
  const short = start(["chat", tiny.model, "--max_tokens", "3", "--num_threads", "1", "--max_seq_length", "32"]);
  short.child.stdin!.end(`${"What can the owl do? ".repeat(9)}\nHi\n`);
  expect(await short.ended, short.output()).toBe(0);
  expect(short.output()).toMatch(
    /the context holds 32, one of them for the answer; \/clear starts anew\n[^]*cut after/,
  );
});

test("serve answers over HTTP until SIGINT, which ends it with status 0", async () => {
  const server = start(["serve", tiny.model, "--port", "0", "--num_threads", "1"]);
  await server.prints(/at http:\/\/127\.0\.0\.1:\d+\/v1/);
  const [, url] = /at (http:\S+)\/v1/.exec(server.output())!;
  const body = { messages: [{ role: "user", content: "Hello" }], max_tokens: 2 };
  const answer = await fetch(`${url}/v1/chat/completions`, { method: "POST", body: JSON.stringify(body) });
  expect((await answer.json()).usage.completion_tokens).toBe(2);
  server.kill("SIGINT");
  expect(await server.ended, server.output()).toBe(0);
});

// Deno looks for packages beside the link and not where it leads; `bun x` and Node follow it.
if (!("Deno" in globalThis)) {
  test("the program runs through a link in node_modules/.bin, as bun x does", () => {
    const bin = join(tiny.dir, "node_modules", ".bin");
    mkdirSync(bin, { recursive: true });
    symlinkSync(fileURLToPath(new URL("../../mod.ts", import.meta.url)), join(bin, "unsloth.ts"));
    const run = spawnSync(process.execPath, [join(bin, "unsloth.ts"), "--version"], { encoding: "utf8" });
    expect(run.stdout.trim(), run.stderr).toMatch(/^\d+\.\d+\.\d+$/);
  });
}
