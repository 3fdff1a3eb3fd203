/**
 * What is shown before step 1: the first example as tokens with its loss mask, the counts, what is trained, the memory
 * planned, steps and epochs; and the checks of what would otherwise fail only at the end.
 * @module
 */
import { accessSync, constants, existsSync, mkdirSync, statSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import type { Backend } from "../core/backend.ts";
import { ConfigError } from "../core/errors.ts";
import { describeCounts, showExample } from "../data/mod.ts";
import { recomputes } from "../nn/checkpoint.ts";
import { checkResume, latestCheckpoint } from "../train/mod.ts";
import type { Config } from "./config.ts";
import { bytesText, count, type Terminal } from "./terminal.ts";
import type { TrainSetup } from "./train_setup.ts";

/** Tokens of the example shown; the middle of a longer one is left out. */
const SHOWN = 160;

/** Prints what will be done. */
export function showPlan(s: TrainSetup, config: Config, be: Backend, terminal: Terminal): void {
  const { counts, memory, run: { rows, feed, optim } } = s;
  for (const note of s.notes) terminal.out(note);
  terminal.out(`First example, trained tokens ${terminal.tty ? "in green" : "in [brackets]"}:`);
  terminal.out(showExample(rows.at(0), s.tokenizer, { color: terminal.tty, limit: SHOWN }));
  for (const line of describeCounts(counts)) terminal.out(line);
  if (counts.truncatedRows > 0) {
    const most = Math.min(config.max_seq_length, s.source.config.maxPos);
    terminal.out(
      `[WARNING] Some sequences are longer than ${most} tokens. The longest sentence ${counts.longest} ` +
        `will be truncated to ${most}. Consider pre-splitting your data to save memory.`,
    );
  }
  const base = s.source.tensors.reduce((n, t) => n + t.shape.reduce((a, b) => a * b, 1), 0);
  const total = s.lora ? base + memory.trained : base;
  const share = (100 * memory.trained / total).toFixed(3);
  terminal.out(
    `Trainable parameters: ${share}% (${(memory.trained / 1e6).toFixed(3)}M/${(total / 1e6).toFixed(3)}M)`,
  );
  const { limit } = be.memory();
  terminal.out(
    `Memory ${bytesText(memory.total)}${limit ? ` of ${bytesText(limit)}` : ""}: weights ${
      bytesText(memory.weights)
    }, ` +
      `adapters and optimiser ${bytesText(memory.params + memory.grads + memory.optimizer)}, ` +
      `activations ${bytesText(memory.arena)}${recomputes(s.checkpoint) ? " (recomputed in the backward)" : ""}`,
  );
  const epochs = (optim.totalSteps / s.stepsPerEpoch).toFixed(2);
  terminal.out(
    `Steps ${count(optim.totalSteps)}, ${epochs} epochs of ${s.stepsPerEpoch}; ` +
      `${feed.batchSize}${feed.packTo ? " packs" : " rows"} x ${feed.accumulation} a step; ` +
      `${optim.name}, learning rate ${optim.lr}, ${optim.schedule}, warm-up ${optim.warmupSteps}`,
  );
  for (const warning of warnings(s, config)) terminal.out(`[WARNING] ${warning}`);
}

/** What of the settings will not act as it reads, once the steps are known. */
function warnings({ run: { rows, feed, optim }, stepsPerEpoch }: TrainSetup, config: Config): string[] {
  const out: string[] = [], steps = optim.totalSteps;
  if (optim.lr === 0) out.push("The learning rate is 0: nothing will be learnt");
  if (stepsPerEpoch === 1 && !feed.packTo && feed.batchSize * feed.accumulation > rows.length) {
    out.push(
      `A step would take ${feed.batchSize} x ${feed.accumulation} rows and there are ${rows.length}: each takes them all`,
    );
  }
  if (config.eval_steps > steps) {
    out.push(
      `The run ends before --eval_steps ${config.eval_steps}: it is evaluated before the first step and after the last alone` +
        (config.early_stopping_patience ? ", and never stopped early" : ""),
    );
  }
  if (config.save_steps > steps) {
    out.push(`The run ends before --save_steps ${config.save_steps}: no checkpoint is written`);
  }
  if (optim.schedule !== "constant" && optim.warmupSteps >= optim.totalSteps) {
    out.push(`The warm-up takes all ${steps} steps: the learning rate never reaches ${optim.lr}; lower --warmup_steps`);
  }
  return out;
}

/**
 * Whether the run can begin in its folders; makes them, but for --dry_run.
 * @throws {ConfigError | DataError | FormatError} naming the flag or the checkpoint
 */
export function checkFolders(config: Config, settings: Readonly<Record<string, unknown>>): void {
  const flags = (["output_dir", "save_path"] as const)
    .filter((flag) => flag === "output_dir" || config.save_model || config.save_gguf);
  for (const flag of flags) checkWritable(flag, config[flag], false);
  checkStart(config, settings);
  if (!config.dry_run) { for (const flag of flags) checkWritable(flag, config[flag], true); }
}

/**
 * Whether the run can begin in its folder: with --resume from a checkpoint of this same run, without it only where no
 * unfinished run would lose its checkpoints.
 * @throws {ConfigError | DataError | FormatError} naming the checkpoint
 */
function checkStart({ output_dir, resume }: Config, settings: Readonly<Record<string, unknown>>): void {
  if (resume) return checkResume(output_dir, settings);
  const last = latestCheckpoint(output_dir);
  if (last === null) return;
  const saved = statSync(last).mtimeMs;
  const ended = ["adapter_model.safetensors", "model.safetensors", "model.safetensors.index.json"]
    .map((name) => join(output_dir, name)).some((path) => existsSync(path) && statSync(path).mtimeMs >= saved);
  if (ended) return;
  throw new ConfigError(
    `Cannot start anew in ${output_dir}: ${last} is of a run that did not end; go on with --resume, give another ` +
      "--output_dir, or remove it",
  );
}

/**
 * Makes the folder, or sees that it could be made, and that it can be written.
 * @throws {ConfigError} naming the flag
 */
export function checkWritable(flag: string, path: string, make: boolean): void {
  try {
    if (make) mkdirSync(path, { recursive: true });
    let at = resolve(path);
    while (!existsSync(at)) at = dirname(at);
    if (!statSync(at).isDirectory()) throw new Error(`${at} is a file`);
    accessSync(at, constants.W_OK);
  } catch (e) {
    throw new ConfigError(`Cannot write to --${flag} ${path}: ${(e as Error).message}`);
  }
}
