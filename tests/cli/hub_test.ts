import { afterAll, beforeAll, expect, test } from "vitest";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { instructions } from "../../tools/embedded/instructions.ts";
import { type Files, HubServer } from "../hub/hub_server.ts";
import { tinyModel } from "../train/tiny_model.ts";
import { cli } from "./cli.ts";

let tiny: Awaited<ReturnType<typeof tinyModel>>, hub: HubServer;
const before = { HF_ENDPOINT: process.env.HF_ENDPOINT, HF_HUB_CACHE: process.env.HF_HUB_CACHE };
beforeAll(async () => {
  tiny = await tinyModel();
  const model: Files = Object.fromEntries(readdirSync(tiny.model).map((f) => [f, readFileSync(join(tiny.model, f))]));
  const rows = instructions(1).train.slice(0, 12).map((r) => JSON.stringify(r)).join("\n");
  const pickled = { "config.json": model["config.json"], "pytorch_model.bin": new Uint8Array(9) };
  hub = new HubServer({
    "models/org/tiny": model,
    "models/org/pickled": pickled,
    "datasets/org/rows": { "train.jsonl": new TextEncoder().encode(rows) },
  });
  await hub.start();
  process.env.HF_ENDPOINT = hub.url;
  process.env.HF_HUB_CACHE = join(tiny.dir, "cache");
});
afterAll(async () => {
  await hub.stop();
  for (const [name, value] of Object.entries(before)) {
    if (value === undefined) delete process.env[name];
    else process.env[name] = value;
  }
  tiny.remove();
});

const train = (...more: string[]) =>
  cli([
    ...["train", "--dataset", "org/rows", "--max_steps", "2", "--samples", "0", "--r", "2"],
    ...["--output_dir", join(tiny.dir, "out"), ...more],
  ]);

test("--model_name org/name and --dataset org/name are downloaded, and the result is pushed", async () => {
  const { status, notes, out } = await train(
    ...[
      "--model_name",
      "org/tiny",
      "--save_path",
      join(tiny.dir, "saved"),
      "--save_model",
      "--save_method",
      "lora",
      "--save_gguf",
      "--quantization",
      "f16",
    ],
    ...["--push_model", "--push_gguf", "--hub_path", "me/mine", "--hub_token", "hf_secret"],
  );
  expect(status, notes.join("\n")).toBe(0);
  expect(notes.filter((n) => n.startsWith("Downloaded")).length).toBeGreaterThanOrEqual(4);
  expect(out.some((l) => l.startsWith("Pushed ") && l.includes("/me/mine/commit/"))).toBe(true);
  const [{ repo, files }] = hub.commits;
  expect(repo).toBe("me/mine");
  expect(Object.keys(files)).toEqual(
    expect.arrayContaining(["adapter_config.json", "adapter_model.safetensors", expect.stringMatching(/\.F16\.gguf$/)]),
  );
  const [gguf] = Object.keys(files).filter((f) => f.endsWith(".gguf"));
  expect(new TextDecoder().decode(files[gguf].subarray(0, 4))).toBe("GGUF");
  expect([...notes, ...out].join("\n")).not.toContain("hf_secret");
});

test("--offline trains from the cache without one request", async () => {
  hub.requests.length = 0;
  const { status, notes } = await train("--model_name", "org/tiny", "--offline");
  expect(status, notes.join("\n")).toBe(0);
  expect(hub.requests).toEqual([]);
});

test("a repository of pickles is refused with the way out", async () => {
  const { status, notes } = await train("--model_name", "org/pickled");
  expect(status).toBe(2);
  expect(notes.at(-1)).toMatch(/Cannot load org\/pickled: its weights are pickles .*safetensors/);
});

test("a name that is neither a path nor a Hub id is refused as such", async () => {
  const { notes } = await train("--model_name", "./nowhere/at/all");
  expect(notes.at(-1)).toContain("there is no such path, and it is no Hub id");
});
