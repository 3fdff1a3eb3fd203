/** The end of a run: adapter, loss curve, exports, and what to do next. @module */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { type Trained, trainedPart } from "../export/mod.ts";
import { writePeft } from "../formats/peft.ts";
import type { Model } from "../models/mod.ts";
import { curveSvg, drawCurve, type Point, readMetrics, type TrainResult } from "../train/mod.ts";
import type { Config } from "./config.ts";
import type { CliContext } from "./context.ts";
import { exportTo, push, trainFormats } from "./export_plan.ts";
import { bytesText, count, duration } from "./terminal.ts";
import type { TrainSetup } from "./train_setup.ts";

/** Writes what was trained to output_dir, before anything else can fail. */
export async function saveTrained(
  config: Config,
  { source, tokenizer }: TrainSetup,
  model: Model,
  context: CliContext,
): Promise<Trained> {
  const trained = await trainedPart(model);
  if (trained.kind === "adapter") {
    await writePeft(config.output_dir, trained.adapter);
    context.terminal.out(`Saved final weights to ${join(config.output_dir, "adapter_model.safetensors")}.`);
  } else {
    const input = { source, tokenizer, trained, backend: model.be, model };
    await exportTo(input, ["merged_16bit"], { ...config, save_path: config.output_dir }, context);
  }
  return trained;
}

/** Writes what else the settings ask for and prints what was written; the exit status. */
export async function finishRun(
  config: Config,
  setup: TrainSetup,
  model: Model,
  trained: Trained,
  figures: TrainResult,
  context: CliContext,
): Promise<number> {
  const { terminal, program } = context, { source, tokenizer } = setup;
  const input = { source, tokenizer, trained, backend: model.be, model };
  showCurve(config, setup, context);
  const { kept } = figures, first = figures.evaluations[0], last = kept ?? figures.evaluations.at(-1);
  if (first && last && first !== last) {
    const whose = kept ? `: step ${kept.step}, whose weights are kept, had the best` : "";
    terminal.out(`Held-out loss ${first.loss.toFixed(3)} before, ${last.loss.toFixed(3)} after${whose}`);
  }
  terminal.out(
    `${count(figures.steps)} steps, ${count(figures.trainedTokens)} trained tokens in ${duration(figures.seconds)}; ` +
      `peak memory ${bytesText(figures.peakBytes)}; loss curve in ${join(config.output_dir, "loss.svg")}`,
  );
  const files = await exportTo(input, trainFormats(config), config, context);
  await push(files, config, context);
  const result = files.find((f) => f.format === "gguf")?.path ?? config.output_dir;
  const next = [`chat ${result}`, `serve ${result}`, ...(files.length === 0 ? [`export ${config.output_dir}`] : [])];
  terminal.out("");
  terminal.out("Next:");
  for (const command of next) terminal.out(`  ${program} ${command}`);
  return 0;
}

/** The curve on the terminal and as loss.svg. */
function showCurve(config: Config, setup: TrainSetup, { terminal }: CliContext): void {
  const lines = readMetrics(join(config.output_dir, "metrics.jsonl"));
  const train = lines.flatMap((m): Point[] => m.loss === undefined ? [] : [[m.step, m.loss]]);
  const held = lines.flatMap((m): Point[] => m.evalLoss === undefined ? [] : [[m.step, m.evalLoss]]);
  terminal.out("");
  for (const line of drawCurve(train, Math.min(72, terminal.columns - 12), 8)) terminal.out(line);
  terminal.out("");
  writeFileSync(join(config.output_dir, "loss.svg"), curveSvg(train, held, `Loss of ${setup.found.name}`));
}
