import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import process from "node:process";
import { downloadDataset, downloadModel, isDatasetId, isHubId, uploadFolder } from "../../src/hub/mod.ts";
import { modelFiles } from "../../src/hub/choose_files.ts";
import { HubServer } from "./hub_server.ts";

const text = (s: string) => new TextEncoder().encode(s);
const weights = new Uint8Array(50_000).map((_, i) => (i * 7) % 251);
const repos = () => ({
  "models/org/tiny": {
    "config.json": text("{}"),
    "tokenizer.json": text('{"a":1}'),
    "model.safetensors": weights,
    "README.md": text("# read me"),
    "onnx/model.onnx": weights,
    "pytorch_model.bin": weights,
  },
  "models/org/pickled": { "config.json": text("{}"), "pytorch_model.bin": weights },
  "models/org/quants": { "a-q4_0.gguf": weights, "a-q8_0.gguf": weights.subarray(1) },
  "models/org/one": { "only.gguf": weights },
  "datasets/org/rows": {
    "README.md": text("x"),
    "data/train-00000-of-00001.parquet": weights,
    "data/test-00000-of-00001.parquet": weights.subarray(2),
  },
  "datasets/org/parts": {
    "main/train-0.jsonl": text("{}"),
    "main/test-0.jsonl": text("{}"),
    "socratic/train-0.jsonl": text("{}"),
    "socratic/train-1.jsonl": text("{}"),
  },
  "datasets/org/plain": { "alpaca.json": text("[]"), "dataset_infos.json": text("{}") },
});

const root = mkdtempSync(join(tmpdir(), "unsloth-hub-"));
let hub: HubServer, cacheDir: string, n = 0;
beforeAll(async () => {
  hub = new HubServer(repos());
  await hub.start();
});
afterAll(async () => {
  await hub.stop();
  rmSync(root, { recursive: true, force: true });
});
afterEach(() => {
  hub.requests.length = 0;
  hub.token = hub.cut = null;
});
const options = () => {
  cacheDir = join(root, `cache${n++}`);
  return { endpoint: hub.url, cacheDir, token: null, offline: false };
};

test("downloadModel() takes settings, tokenizer and safetensors, and nothing else", async () => {
  const o = options(), dir = await downloadModel("org/tiny", o);
  expect(dir).toBe(join(cacheDir, "models--org--tiny", "snapshots", hub.commit));
  expect(new Uint8Array(readFileSync(join(dir, "model.safetensors")))).toEqual(weights);
  expect(existsSync(join(dir, "config.json")) && existsSync(join(dir, "tokenizer.json"))).toBe(true);
  expect(["README.md", "pytorch_model.bin", "onnx"].filter((f) => existsSync(join(dir, f)))).toEqual([]);
  expect(readFileSync(join(cacheDir, "models--org--tiny", "refs", "main"), "utf8")).toBe(hub.commit);
});

test("a second download asks for no file again, and offline asks for nothing at all", async () => {
  const o = options(), dir = await downloadModel("org/tiny", o);
  hub.requests.length = 0;
  expect(await downloadModel("org/tiny", o)).toBe(dir);
  expect(hub.requests.filter((r) => r.path.includes("/resolve/"))).toEqual([]);
  hub.requests.length = 0;
  expect(await downloadModel("org/tiny", { ...o, offline: true })).toBe(dir);
  expect(hub.requests).toEqual([]);
});

test("offline refuses what the cache does not hold, by name", async () => {
  const o = { ...options(), offline: true };
  await expect(downloadModel("org/tiny", o)).rejects.toThrow("Cannot use org/tiny offline");
});

test("a download that was cut goes on from where it stopped", async () => {
  const o = options(), seen: number[] = [];
  hub.cut = { path: "model.safetensors", after: 20_000 };
  await expect(downloadModel("org/tiny", o)).rejects.toThrow();
  hub.requests.length = 0;
  const dir = await downloadModel("org/tiny", {
    ...o,
    onProgress: (f, done) => f === "model.safetensors" && seen.push(done),
  });
  expect(new Uint8Array(readFileSync(join(dir, "model.safetensors")))).toEqual(weights);
  expect(seen[0]).toBeGreaterThan(0);
  expect(hub.requests.some((r) => r.range === `bytes=${seen[0]}-49999`)).toBe(true);
});

test("content that is not what the Hub's hash says is refused and removed", async () => {
  const o = options(), blobs = join(o.cacheDir, "models--org--one", "blobs");
  await downloadModel("org/one", o);
  const [hash] = (await import("node:fs")).readdirSync(blobs);
  rmSync(blobs, { recursive: true });
  mkdirSync(blobs);
  writeFileSync(join(blobs, `${hash}.incomplete`), new Uint8Array(10)); // ten wrong bytes to go on from
  await expect(downloadModel("org/one", o)).rejects.toThrow("its SHA-256 is");
  expect(existsSync(join(blobs, `${hash}.incomplete`))).toBe(false);
  expect(statSync(await downloadModel("org/one", o)).size).toBe(weights.length);
});

test("a repository of pickles alone is refused with the way out", async () => {
  await expect(downloadModel("org/pickled", options())).rejects.toThrow(/pickles \(pytorch_model.bin\).*safetensors/);
});

test("one GGUF is taken, several must be named", async () => {
  const o = options();
  expect(basename(await downloadModel("org/one", o))).toBe("only.gguf");
  await expect(downloadModel("org/quants", o)).rejects.toThrow("name one, as org/quants/a-q4_0.gguf");
  expect(statSync(await downloadModel("org/quants/a-q8_0.gguf", o)).size).toBe(weights.length - 1);
  await expect(downloadModel("org/quants/b.gguf", o)).rejects.toThrow("has no file b.gguf");
});

test("a dataset gives its train split: the one file", async () => {
  const o = options();
  expect(basename(await downloadDataset("org/rows", o))).toBe("train-00000-of-00001.parquet");
  expect(basename(await downloadDataset("org/plain", o))).toBe("alpaca.json");
});

test("a dataset of several parts is not joined: one must be named", async () => {
  const o = options();
  await expect(downloadDataset("org/parts", o)).rejects.toThrow(
    "Cannot choose a part of the dataset org/parts: it holds main, socratic; name one, as org/parts/main",
  );
  const folder = await downloadDataset("org/parts/socratic", o);
  expect([basename(folder), readdirSync(folder).sort()]).toEqual(["socratic", ["train-0.jsonl", "train-1.jsonl"]]);
  expect(basename(await downloadDataset("org/parts/main", o))).toBe("train-0.jsonl");
  await expect(downloadDataset("org/parts/none", o)).rejects.toThrow("Cannot read the dataset org/parts/none");
  expect(["org/parts/main", "org/parts", "./org/parts", "org"].map(isDatasetId)).toEqual([true, true, false, false]);
});

test("the token is sent, and its absence is explained", async () => {
  const o = options();
  hub.token = "hf_secret";
  await expect(downloadModel("org/tiny", o)).rejects.toThrow("it needs a token");
  await downloadModel("org/tiny", { ...o, token: "hf_secret" });
  expect(hub.requests.at(-1)!.token).toBe("hf_secret");
});

test("an unknown repository and a dead address are sentences, not stack traces", async () => {
  await expect(downloadModel("org/none", options())).rejects.toThrow("there is none of that name or revision");
  await expect(downloadModel("org/tiny", { ...options(), endpoint: "http://127.0.0.1:1" })).rejects.toThrow(
    "--offline",
  );
});

test("names from the network cannot leave the cache", async () => {
  const evil = new HubServer({ "models/org/evil": { "../../x.gguf": weights } });
  await evil.start();
  try {
    await expect(downloadModel("org/evil", { ...options(), endpoint: evil.url })).rejects.toThrow("leave the cache");
  } finally {
    await evil.stop();
  }
});

test("uploadFolder() creates the repository and commits small and large files", async () => {
  const dir = join(root, "upload");
  mkdirSync(join(dir, "sub"), { recursive: true });
  writeFileSync(join(dir, "adapter_config.json"), "{}");
  writeFileSync(join(dir, "sub", "w.safetensors"), weights);
  const url = await uploadFolder("me/mine", dir, { endpoint: hub.url, token: "hf_t" });
  expect(url).toContain("/me/mine/commit/");
  expect(hub.created).toEqual(["me/mine"]);
  const { files } = hub.commits[0];
  expect(new TextDecoder().decode(files["adapter_config.json"])).toBe("{}");
  expect(new Uint8Array(files["sub/w.safetensors"])).toEqual(weights);
});

test("pushing without a token is refused before anything is asked", async () => {
  const { HF_TOKEN } = process.env;
  delete process.env.HF_TOKEN;
  try {
    await expect(uploadFolder("me/mine", root, { endpoint: hub.url })).rejects.toThrow("a token is needed");
    expect(hub.requests).toEqual([]);
  } finally {
    if (HF_TOKEN) process.env.HF_TOKEN = HF_TOKEN;
  }
});

test("isHubId() tells Hub ids from paths", () => {
  expect(["org/name", "a-b/c.d_e", "org/name/file.gguf"].map(isHubId)).toEqual([true, true, true]);
  expect(["model", "./a/b", "../a", "a/b/c", "/a/b", "a b/c"].map(isHubId)).toEqual(new Array(6).fill(false));
});

test("modelFiles() refuses a repository without weights", () => {
  const file = { path: "README.md", size: 1, hash: "h", sha256: null };
  expect(() => modelFiles("org/empty", [file], null)).toThrow("neither safetensors nor GGUF");
});
