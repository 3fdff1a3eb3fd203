/** The end of a run: adapter, loss curve, exports, and what to do next. @module */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Adapter } from "../formats/adapter.ts";
import { writePeft } from "../formats/peft.ts";
import type { Model } from "../models/mod.ts";
import { curveSvg, drawCurve, type Point, readMetrics, type TrainResult } from "../train/mod.ts";
import type { Config } from "./config.ts";
import type { CliContext } from "./context.ts";
import { bytesText, count, duration } from "./terminal.ts";
import type { TrainSetup } from "./train_setup.ts";

/** Writes what the settings ask for and prints what was written; the exit status. */
export async function finishRun(
  config: Config,
  setup: TrainSetup,
  model: Model,
  result: TrainResult,
  context: CliContext,
): Promise<number> {
  const { terminal, program } = context;
  await writePeft(config.output_dir, await trainedAdapter(model));
  terminal.out(`Saved final weights to ${join(config.output_dir, "adapter_model.safetensors")}.`);
  const points = showCurve(config, setup, context);
  const first = result.evaluations[0], last = result.evaluations.at(-1);
  if (first && last && first !== last) {
    terminal.out(`Held-out loss ${first.loss.toFixed(3)} before, ${last.loss.toFixed(3)} after`);
  }
  terminal.out(
    `${count(result.steps)} steps, ${count(result.trainedTokens)} trained tokens in ${duration(result.seconds)}; ` +
      `peak memory ${bytesText(result.peakBytes)}${
        points > 0 ? `; loss curve in ${join(config.output_dir, "loss.svg")}` : ""
      }`,
  );
  terminal.out("");
  terminal.out("Next:");
  for (const command of [`chat ${config.output_dir}`, `serve ${config.output_dir}`]) {
    terminal.out(`  ${program} ${command}`);
  }
  return 0;
}

/** The adapter as PEFT names it. */
export async function trainedAdapter(model: Model): Promise<Adapter> {
  const { seed: _seed, start: _start, layersToTransform: _layers, ...settings } = model.lora!;
  const name = (ours: string) => ours.replace(/\.lora_magnitude_vector\.weight$/, ".lora_magnitude_vector");
  return { settings, tensors: new Map([...await model.trained()].map(([n, t]) => [name(n), t])) };
}

function showCurve(config: Config, setup: TrainSetup, { terminal }: CliContext): number {
  const lines = readMetrics(join(config.output_dir, "metrics.jsonl"));
  const train = lines.flatMap((m): Point[] => m.loss === undefined ? [] : [[m.step, m.loss]]);
  const held = lines.flatMap((m): Point[] => m.evalLoss === undefined ? [] : [[m.step, m.evalLoss]]);
  if (train.length < 2) return 0;
  terminal.out("");
  for (const line of drawCurve(train, Math.min(72, terminal.columns - 12), 8)) terminal.out(line);
  terminal.out("");
  writeFileSync(join(config.output_dir, "loss.svg"), curveSvg(train, held, `Loss of ${setup.found.name}`));
  return train.length;
}
