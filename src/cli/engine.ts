/** The engine behind `chat` and `serve`: the model the settings name, computed in a worker of its own. @module */
import { existsSync, readFileSync, statSync } from "node:fs";
import { ConfigError } from "../core/errors.ts";
import type { Engine } from "../infer/types.ts";
import { startEngine } from "../infer/worker.ts";
import type { CliContext } from "./context.ts";
import { findModel } from "./find_model.ts";
import type { Settings } from "./settings.ts";
import { bytesText } from "./terminal.ts";

/** Loads the model. `slots` requests are answered at once, `waiting` may wait. */
export async function openSettingsEngine(
  { config, given }: Settings,
  context: CliContext,
  { slots, waiting }: { slots: number; waiting: number },
): Promise<Engine> {
  const found = await findModel(config, context), { terminal } = context;
  const engine = await startEngine(new URL("engine_worker.ts", context.packageUrl), {
    modelPath: found.path,
    name: found.name,
    slots,
    waiting,
    backend: {
      backend: config.backend,
      ...(config.device === null ? {} : { device: config.device }),
      ...(config.num_threads === null ? {} : { threads: config.num_threads }),
    },
    ...(found.adapter === null ? {} : { adapterPath: found.adapter }),
    ...(given.has("max_seq_length") ? { contextLength: config.max_seq_length } : {}),
    ...(config.chat_template === null ? {} : { template: readTemplate(config.chat_template) }),
  }, {
    note: (sentence) => terminal.note(sentence),
    onProgress: (done, total) =>
      terminal.status(done < total ? `Loading ${bytesText(done)} of ${bytesText(total)}` : ""),
  });
  terminal.status("");
  return engine;
}

function readTemplate(wanted: string): string {
  if (wanted === "chatml") return wanted;
  if (wanted === "alpaca") return ALPACA;
  if (existsSync(wanted) && statSync(wanted).isFile()) return readFileSync(wanted, "utf8");
  throw new ConfigError(`Cannot use --chat_template ${wanted}: it is neither alpaca, chatml nor a file`);
}

/** The published alpaca prompt without an input as a chat template, one question after the other. */
const ALPACA =
  "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n" +
  "{% for m in messages %}{% if m.role == 'user' %}### Instruction:\n{{ m.content }}\n\n" +
  "{% elif m.role == 'assistant' %}### Response:{{ m.content }}{{ eos_token }}\n\n{% endif %}{% endfor %}" +
  "{% if add_generation_prompt %}### Response:{% endif %}";
