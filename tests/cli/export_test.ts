import { afterAll, beforeAll, expect, test } from "vitest";
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { openGguf } from "../../src/formats/gguf_read.ts";
import { openSafetensorsFolder } from "../../src/formats/safetensors.ts";
import { readFloats } from "../../src/formats/stored.ts";
import { instructions } from "../../tools/embedded/instructions.ts";
import { tinyModel } from "../train/tiny_model.ts";
import { cli } from "./cli.ts";

let tiny: Awaited<ReturnType<typeof tinyModel>>;
const at = (...parts: string[]) => join(tiny.dir, ...parts);
beforeAll(async () => {
  tiny = await tinyModel();
  writeFileSync(at("data.jsonl"), instructions(1).train.slice(0, 12).map((r) => JSON.stringify(r)).join("\n"));
});
afterAll(() => tiny.remove());

test("train --save_gguf writes each type, compares it, and proposes it for chat and serve", async () => {
  const { status, out, notes } = await cli([
    ...[
      "train",
      "--model_name",
      tiny.model,
      "--dataset",
      at("data.jsonl"),
      "--output_dir",
      at("out"),
      "--max_steps",
      "4",
    ],
    ...["--r", "2", "--samples", "0", "--learning_rate", "1e-2", "--report_to", "none"],
    ...["--save_gguf", "--quantization", "q8_0", "f16", "Q8_0", "--save_path", at("gguf")],
  ]);
  expect(status, notes.join("\n")).toBe(0);
  expect(readdirSync(at("gguf")).sort()).toEqual([
    ...["Modelfile.F16", "Modelfile.Q8_0", "model.F16.gguf", "model.Q8_0.gguf"],
  ]);
  expect(out.filter((l) => l.startsWith("Compared with the trained model"))).toHaveLength(2);
  expect(out.slice(-2)).toEqual([
    `  unsloth chat ${at("gguf", "model.Q8_0.gguf")}`,
    `  unsloth serve ${at("gguf", "model.Q8_0.gguf")}`,
  ]);
  const file = openGguf(at("gguf", "model.F16.gguf"));
  expect(file.meta.get("general.architecture")).toBe("llama");
  expect(file.tensors.get("blk.0.attn_q.weight")!.dtype).toBe("f16");
  file.close();
});

test("export merges an adapter into a Hugging Face folder, and what training changed is changed in it", async () => {
  const { status, notes } = await cli([
    "export",
    at("out"),
    "--save_method",
    "merged_16bit",
    "--save_path",
    at("merged"),
  ]);
  expect(status, notes.join("\n")).toBe(0);
  const [base, merged] = [tiny.model, at("merged")].map((d) => openSafetensorsFolder(d));
  const distance = (name: string) => {
    const [a, b] = [base, merged].map((f) => readFloats(f.tensors.get(name)!));
    return Math.max(...a.map((x, i) => Math.abs(x - b[i])));
  };
  expect(distance("model.layers.0.mlp.down_proj.weight")).toBeGreaterThan(1e-4);
  expect(distance("model.embed_tokens.weight")).toBeLessThan(1e-4); // f16 of small numbers
  base.close();
  merged.close();
  expect(existsSync(at("merged", "tokenizer.json"))).toBe(true);
});

test("export without an adapter writes the model itself, and refuses adapter formats by name", async () => {
  const { status } = await cli(["export", tiny.model, "--quantization", "q4_0", "--save_path", at("q4")]);
  expect(status).toBe(0);
  expect(readdirSync(at("q4")).sort()).toEqual(["Modelfile", "model.Q4_0.gguf"]);
  const refused = await cli(["export", tiny.model, "--save_method", "lora", "--save_path", at("no")]);
  expect(refused.notes.at(-1)).toContain("is no adapter");
  const unknown = await cli(["export", tiny.model, "--quantization", "q9", "--save_path", at("no")]);
  expect(unknown.notes.at(-1)).toContain("Cannot quantise to 'q9'");
  expect(existsSync(at("no"))).toBe(false);
});

test("export --imatrix makes an importance matrix of a text, uses it, and reads it again", async () => {
  writeFileSync(at("words.txt"), "The quick brown fox jumps over the lazy dog. ".repeat(40));
  const run = (name: string, ...flags: string[]) =>
    cli(["export", tiny.model, "--quantization", "q4_0", "--save_path", at(name), "--max_seq_length", "32", ...flags]);
  const [plain, made] = [await run("plain"), await run("weighed", "--imatrix", at("words.txt"))];
  expect([plain.status, made.status], made.notes.join("\n")).toEqual([0, 0]);
  expect(made.out.join("\n")).toMatch(/Wrote .*imatrix\.gguf from \d+ tokens/);
  expect((await run("again", "--imatrix", at("weighed", "imatrix.gguf"))).status).toBe(0);
  const bytes = (name: string) => readFileSync(at(name, "model.Q4_0.gguf"));
  expect(bytes("again")).toEqual(bytes("weighed"));
  expect(bytes("weighed")).not.toEqual(bytes("plain"));
});

test("export --save_method merged_4bit writes NF4 for bitsandbytes", async () => {
  const { status, out } = await cli(["export", tiny.model, "--save_method", "merged_4bit", "--save_path", at("nf4")]);
  expect(status).toBe(0);
  expect(out.join("\n")).toMatch(/Compared with the merged weights: relative error/);
  const file = openSafetensorsFolder(at("nf4"));
  expect(file.tensors.has("model.layers.0.mlp.down_proj.weight.absmax")).toBe(true);
  file.close();
});

test("inspect shows a GGUF, an adapter, a folder, and refuses anything else", async () => {
  const inspect = async (path: string) => (await cli(["inspect", path])).out.join("\n");
  expect(await inspect(at("gguf", "model.Q8_0.gguf"))).toMatch(
    /general\.architecture: "llama"[^]*token_embd\.weight +q8_0 +\[320,32\]/,
  );
  expect(await inspect(at("out"))).toMatch(
    /r 2, alpha 16[^]*14 pairs, 0 whole tensors[^]*q_proj +r 2, scale 8, \|B·A\| \d/,
  );
  expect(await inspect(tiny.model)).toMatch(/model\.embed_tokens\.weight +f32 +\[320,32\][^]*20 tensors/);
  await cli(["export", at("out"), "--save_method", "mlx", "--save_path", at("mlx")]);
  expect(await inspect(at("mlx"))).toMatch(/lora_a +f32 [^]*tensors/);
  expect((await cli(["inspect", at("gguf")])).notes.at(-1)).toMatch(/it holds model.*\.gguf, .*; name one/);
  const refused = await cli(["inspect", at("data.jsonl")]);
  expect(refused).toMatchObject({ status: 2 });
  expect(refused.notes.at(-1)).toContain(".gguf, .safetensors and folders");
});
