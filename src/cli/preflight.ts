/**
 * What is shown before step 1: the first example as tokens with its loss mask, the counts, what is trained, the memory
 * planned, steps and epochs; and the checks of what would otherwise fail only at the end.
 * @module
 */
import { accessSync, constants, existsSync, mkdirSync, statSync } from "node:fs";
import { dirname, resolve } from "node:path";
import type { Backend } from "../core/backend.ts";
import { ConfigError } from "../core/errors.ts";
import { describeCounts, showExample } from "../data/mod.ts";
import { recomputes } from "../nn/checkpoint.ts";
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
    terminal.out(
      `[WARNING] Some sequences are longer than ${config.max_seq_length} tokens. The longest sentence ${counts.longest} ` +
        `will be truncated to ${config.max_seq_length}. Consider pre-splitting your data to save memory.`,
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
