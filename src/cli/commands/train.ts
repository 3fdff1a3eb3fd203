/** `train`: data to rows, preflight, samples, the run, samples, adapter, export. @module */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Backend } from "../../core/backend.ts";
import { closeAll } from "../../core/close.ts";
import { MemoryError } from "../../core/errors.ts";
import { loadModel, type Model } from "../../models/mod.ts";
import { latestCheckpoint, train } from "../../train/mod.ts";
import { type CliContext, openBackend } from "../context.ts";
import { writeConfig } from "../config_file.ts";
import { checkFolders, showPlan } from "../preflight.ts";
import { UNSLOTH } from "../presets.ts";
import { finishRun, saveTrained } from "../finish.ts";
import { runReport } from "../run_report.ts";
import { answerSamples, type Sample, type SamplePrompt, samplePrompts, showSamples } from "../samples.ts";
import type { Settings } from "../settings.ts";
import { bytesText } from "../terminal.ts";
import { trainedBy, withPlan } from "../plan_run.ts";
import { setUp, type TrainSetup } from "../train_setup.ts";
import { checkExport, trainFormats } from "../export_plan.ts";

/** Runs the command. */
export async function run(settings: Settings, context: CliContext): Promise<number> {
  const { config } = settings, { terminal } = context;
  if (settings.preset === "embedded") {
    terminal.out(
      "Neither --model_name nor --dataset was given: training the embedded model on the embedded instructions",
    );
  } else if (settings.preset === "unsloth") {
    const [given, other, value] = config.model_name === UNSLOTH.model_name
      ? ["a dataset", "model_name", config.model_name]
      : ["a model", "dataset", config.dataset];
    terminal.out(`Only ${given} was given: --${other} is ${value}, as in unsloth-cli.py`);
  }
  const be = await openBackend(settings, context);
  let setup: TrainSetup | null = null;
  try {
    setup = await setUp(settings, be, context);
    checkExport(setup.source, setup.tokenizer, trainFormats(config), config);
    checkFolders(config, setup.run.settings);
    showPlan(setup, config, be, terminal);
    terminal.out("Data is formatted and ready!");
    if (config.dry_run) {
      terminal.out("");
      terminal.out(writeConfig(config, "train").trimEnd());
      return 0;
    }
    return await trainAndSave(settings, setup, be, context);
  } finally {
    setup?.source.close();
    setup?.run.rows.close();
    setup?.run.heldOut?.close();
    be.close();
  }
}

async function trainAndSave(settings: Settings, setup: TrainSetup, be: Backend, context: CliContext): Promise<number> {
  const { config } = settings, { terminal, signal } = context, { source, tokenizer, lora, checkpoint } = setup;
  writeFileSync(join(config.output_dir, "config.yaml"), writeConfig(config, "train"));
  terminal.note("Loading pretrained model");
  let model: Model | null = null, failure: unknown;
  try {
    model = await loadModel(source, {
      ...{ backend: be, ...trainedBy(lora), checkpoint, maxLength: setup.run.feed.packTo ?? config.max_seq_length },
      note: (sentence) => terminal.note(sentence),
      onProgress: (done, total) =>
        terminal.status(done < total ? `Loading ${bytesText(done)} of ${bytesText(total)}` : ""),
    });
    const prompts = samplePrompts(setup.run.heldOut ?? setup.run.rows, tokenizer, config.samples);
    const before = await answerSamples(model, tokenizer, prompts, signal);
    signal.addEventListener("abort", () => {
      terminal.note("Stopping after this step; press Ctrl-C again to leave at once");
    }, { once: true });
    terminal.out(`Starting training..., iters: ${setup.run.optim.totalSteps}`);
    const result = await train({ ...setup.run, model, on: runReport(terminal) }).catch((e) => {
      throw withCheckpoint(e, config.output_dir);
    });
    terminal.status("");
    if (result.ended === "interrupted") {
      terminal.out(`Stopped after step ${result.steps}; the same command with --resume goes on from there`);
      return 130;
    }
    const trained = await saveTrained(config, setup, model, context);
    await compareSamples(model, setup, prompts, before, context);
    return await finishRun(config, setup, model, trained, result, context);
  } catch (e) {
    failure = e instanceof MemoryError ? withPlan(e, setup.memory) : e;
    throw failure;
  } finally {
    closeAll([model], failure);
  }
}

/** The failure, with what is left of the run where it does not say so itself. */
function withCheckpoint(e: unknown, dir: string): unknown {
  const last = latestCheckpoint(dir);
  if (!(e instanceof Error) || e.name === "AbortError" || last === null || e.message.includes(last)) return e;
  e.message += `; ${last} is intact, and the same command with --resume goes on from there`;
  return e;
}

async function compareSamples(
  model: Model,
  { tokenizer, run }: TrainSetup,
  prompts: readonly SamplePrompt[],
  before: readonly Sample[],
  { terminal, signal }: CliContext,
): Promise<void> {
  if (prompts.length === 0 || signal.aborted) return;
  const after = await answerSamples(model, tokenizer, prompts, signal);
  terminal.out("");
  terminal.out(run.heldOut ? "Held-out prompts, before and after:" : "Prompts of the training data, before and after:");
  showSamples(prompts, before, after, terminal);
  terminal.out("");
}
