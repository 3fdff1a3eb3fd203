import { afterAll, expect, test } from "vitest";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "../../src/cli/args.ts";
import { writeConfig } from "../../src/cli/config_file.ts";
import { refuse } from "../../src/cli/refuse.ts";
import { resolve } from "../../src/cli/settings.ts";

const dir = mkdtempSync(join(tmpdir(), "unsloth-config-"));
afterAll(() => rmSync(dir, { recursive: true, force: true }));
const file = (name: string, text: string) => {
  const path = join(dir, name);
  writeFileSync(path, text);
  return path;
};
const train = (...argv: string[]) => resolve("train", parseArgs("train", argv));

test("a YAML file sets what it names and the command line wins", () => {
  const path = file(
    "a.yaml",
    "model_name: m\nmax-steps: 9\nlearning_rate: 1e-3\nquantization: [q8_0, f16]\npacking: true\n",
  );
  const s = train("--config", path, "--max_steps", "4");
  expect(s.config).toMatchObject({
    model_name: "m",
    max_steps: 4,
    learning_rate: 1e-3,
    quantization: ["q8_0", "f16"],
    packing: true,
  });
  expect(s.preset).toBe("unsloth");
});

test("a JSON file is read the same way", () => {
  expect(train("--config", file("a.json", '{"epochs": 2, "dtype": null}')).config.num_train_epochs).toBe(2);
});

test("the config that a run writes gives the same config back, secrets left out", () => {
  const first = train("--model_name", "m", "--dataset", "d", "--r", "8", "--columns", "a=b", "--hub_token", "hf_x");
  const text = writeConfig(first.config, "train");
  expect(text).not.toContain("hf_x");
  const again = train("--config", file("written.yaml", text));
  expect({ ...again.config, config: null, hub_token: "hf_x" }).toEqual(first.config);
  expect(again.given.has("stride")).toBe(false); // a default in a file is not a wish that must act
});

test("the config of a dry or a resumed run is that of the run itself", () => {
  const text = writeConfig(train("--model_name", "m", "--dataset", "d", "--dry_run", "--resume").config, "train");
  expect(train("--config", file("dry.yaml", text)).config).toMatchObject({
    dry_run: false,
    resume: false,
    dataset: "d",
  });
});

test("a flag wins over the file's other way of saying the same", () => {
  const epochs = file("epochs.yaml", "epochs: 2\neval_split: 4\n");
  const s = train("--config", epochs, "--max_steps", "7", "--eval_file", "held.jsonl");
  expect([s.config.max_steps, s.config.num_train_epochs]).toEqual([7, null]);
  expect([s.config.eval_file, s.config.eval_split]).toEqual(["held.jsonl", 0]);
  expect(() => refuse(s)).not.toThrow();
  const both = file("both.yaml", "epochs: 2\nmax_steps: 7\n");
  expect(() => refuse(train("--config", both))).toThrow("each replaces the other");
});

test("the config of a preset's run with epochs can be given back", () => {
  const text = writeConfig(train("--epochs", "2").config, "train");
  expect(() => refuse(train("--config", file("preset.yaml", text)))).not.toThrow();
});

test("a text in a file means what it means on the command line", () => {
  const path = file("texts.yaml", 'dtype: None\nchat_template: None\nquantization: q8_0, f16\nlearning_rate: "1e-3"\n');
  expect(train("--config", path).config).toMatchObject({
    ...{ dtype: null, chat_template: null, quantization: ["q8_0", "f16"], learning_rate: 1e-3 },
  });
  expect(() => train("--config", file("twice.yaml", "epochs: 1\nnum_train_epochs: 2\n"))).toThrow(
    "it sets num_train_epochs twice",
  );
});

test("mistakes in a file name the file and the setting", () => {
  expect(() => train("--config", file("b.yaml", "max_step: 3"))).toThrow(
    "b.yaml: unknown setting max_step, did you mean max_steps?",
  );
  expect(() => train("--config", file("c.yaml", "max_steps: many"))).toThrow(/max_steps to "many".*c\.yaml/);
  expect(() => train("--config", file("d.yaml", "port: 1"))).toThrow("port is no setting of train");
  expect(() => train("--config", file("e.yaml", "- a\n- b"))).toThrow("names and values");
  expect(() => train("--config", file("f.yaml", "a: [1"))).toThrow("f.yaml");
  expect(() => train("--config", join(dir, "absent.yaml"))).toThrow("absent.yaml");
});
