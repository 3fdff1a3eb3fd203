/**
 * Settings that cannot act: each is refused by name with the way out, never ignored. Here is what the settings alone
 * tell; what needs the model, the data or the backend is refused by preflight.
 * @module
 */
import { ConfigError } from "../core/errors.ts";
import { hubToken, isHubId } from "../hub/mod.ts";
import { OPTIMIZER_NAMES } from "../train/optimizers.ts";
import type { Config, OptionName } from "./config.ts";
import { ALTERNATIVES, type Settings } from "./settings.ts";

/** A reason, or null when there is none. */
type Rule = (c: Config, given: ReadonlySet<OptionName>) => string | null;

const REPORTERS = ["tensorboard", "none"];

/** Acts only together with another setting. */
function needs(name: OptionName, what: string, holds: (c: Config) => boolean): Rule {
  return (c, given) => given.has(name) && !holds(c) ? `Cannot use --${name}: it acts only with ${what}` : null;
}

/** Two settings that say the same thing. */
function excludes(a: OptionName, b: OptionName): Rule {
  return (_, given) => given.has(a) && given.has(b) ? `Cannot use --${a} with --${b}: each replaces the other` : null;
}

const ADAPTER_FILES: readonly string[] = ["lora", "lora_gguf", "mlx"];

const TRAIN_RULES: readonly Rule[] = [
  (c) =>
    REPORTERS.includes(c.report_to)
      ? null
      : `Cannot report to ${c.report_to}: --report_to takes tensorboard or none here; ` +
        `every step is in ${c.output_dir}/metrics.jsonl, which its own tools can import`,
  (c) =>
    OPTIMIZER_NAMES.includes(c.optim)
      ? null
      : `Cannot use --optim ${c.optim}: this build has ${OPTIMIZER_NAMES.join(", ")}`,
  (c) =>
    c.loftq_config !== null
      ? "Cannot use --loftq_config: LoftQ is --init_lora_weights loftq with --load_in_4bit here, and has no settings"
      : null,
  (c) =>
    c.init_lora_weights === "loftq" && !c.load_in_4bit
      ? "Cannot use --init_lora_weights loftq: it makes up for what --load_in_4bit takes, which is not set"
      : null,
  (c) =>
    c.init_lora_weights === "pissa" && c.adaptive_rank
      ? "Cannot use --adaptive_rank with --init_lora_weights pissa: it rewrites the base for the ranks it starts with"
      : null,
  (c) => c.lora_alpha === 0 && !c.full_finetuning ? "Cannot use --lora_alpha 0: the adapters would never act" : null,
  (c) =>
    c.full_finetuning && c.save_model && ADAPTER_FILES.includes(c.save_method)
      ? `Cannot use --save_method ${c.save_method} with --full_finetuning: there is no adapter to save`
      : null,
  (c) =>
    c.use_dora && c.save_model && c.save_method === "lora_gguf"
      ? "Cannot use --save_method lora_gguf with --use_dora: llama.cpp knows no magnitudes; save the merged model"
      : null,
  (c) =>
    c.bias !== "none" && c.save_model && ["lora_gguf", "mlx"].includes(c.save_method)
      ? `Cannot use --save_method ${c.save_method} with --bias ${c.bias}: the file holds low-rank pairs only`
      : null,
  ...(["adam_beta1", "adam_beta2"] as const).map((name) =>
    needs(name, "--optim adamw_* or lion_32bit", (c) => /^(paged_)?(adamw|lion)/.test(c.optim))
  ),
  needs("adam_epsilon", "--optim adamw_*", (c) => /^(paged_)?adamw/.test(c.optim)),
  needs(
    "warmup_steps",
    "a schedule that has a warm-up (--lr_scheduler_type constant_with_warmup)",
    (c) => c.lr_scheduler_type !== "constant" || c.warmup_steps === 0,
  ),
  needs("load_in_4bit", "adapters (--no_full_finetuning)", (c) => !(c.load_in_4bit && c.full_finetuning)),
  needs("load_in_fp8", "adapters (--no_full_finetuning)", (c) => !(c.load_in_fp8 && c.full_finetuning)),
  excludes("load_in_4bit", "load_in_fp8"),
  (c) =>
    c.load_in_fp8 && (c.use_dora || c.init_lora_weights === "pissa")
      ? `Cannot use --load_in_fp8 with ${
        c.use_dora ? "--use_dora" : "--init_lora_weights pissa"
      }: it reads the base in more than 8 bits`
      : null,
  (c) =>
    c.adaptive_rank && (c.adaptive_rank_target ?? 1) >= c.r
      ? `Cannot use --adaptive_rank: ranks of ${c.r} cannot come down to ${c.adaptive_rank_target ?? 1}; raise --r`
      : null,
  ...([
    "r",
    "lora_alpha",
    "lora_dropout",
    "bias",
    "target_modules",
    "layers",
    "use_rslora",
    "use_dora",
    "adaptive_rank",
    "init_lora_weights",
    "loraplus_lr_ratio",
    "random_state",
  ] as const).map((name) => needs(name, "adapters (--no_full_finetuning)", (c) => !c.full_finetuning)),
  needs("adaptive_rank_target", "--adaptive_rank", (c) => c.adaptive_rank),
  needs("adaptive_rank_interval", "--adaptive_rank", (c) => c.adaptive_rank),
  ...ALTERNATIVES.map(([a, b]) => excludes(a, b)),
  (c, given) =>
    given.has("train_on_inputs") && given.has("train_on_responses_only") &&
      c.train_on_inputs === c.train_on_responses_only
      ? "Cannot use --train_on_inputs with --train_on_responses_only: each is the other's opposite"
      : null,
  needs("response_turns", "--train_on_responses_only", (c) => c.train_on_responses_only),
  needs("chunk_size", "--raw_text_file", (c) => c.raw_text_file !== null),
  needs("stride", "--raw_text_file", (c) => c.raw_text_file !== null),
  needs("columns", "--dataset", (c) => c.raw_text_file === null),
  needs("per_device_eval_batch_size", "--eval_file or --eval_split", hasEval),
  needs("eval_steps", "--eval_file or --eval_split", hasEval),
  needs("early_stopping_patience", "--eval_file or --eval_split", (c) => c.early_stopping_patience === 0 || hasEval(c)),
  (c) =>
    c.early_stopping_patience > 0 && c.eval_steps === 0
      ? "Cannot use --early_stopping_patience: it acts only with --eval_steps"
      : null,
  needs("save_total_limit", "--save_steps", (c) => c.save_steps > 0),
  needs("save_method", "--save_model", (c) => c.save_model),
  needs("save_path", "--save_model or --save_gguf", (c) => c.save_model || c.save_gguf),
  needs("quantization", "--save_gguf", (c) => c.save_gguf),
  needs("imatrix", "--save_gguf", (c) => c.save_gguf),
  needs("push_model", "--save_model", (c) => !c.push_model || c.save_model),
  needs("push_gguf", "--save_gguf", (c) => !c.push_gguf || c.save_gguf),
  needs("hub_path", "--push_model or --push_gguf", (c) => c.push_model || c.push_gguf),
  (c) =>
    (c.push_model || c.push_gguf) && c.hub_path === "hf/model"
      ? "Cannot push: name the repository with --hub_path org/name"
      : null,
  (c) =>
    (c.push_model || c.push_gguf) && c.hub_path !== "hf/model" && !isHubId(c.hub_path)
      ? `Cannot push to --hub_path ${c.hub_path}: it looks like org/name`
      : null,
  (c) => (c.push_model || c.push_gguf) && c.offline ? "Cannot push with --offline: each forbids the other" : null,
  (c) =>
    (c.push_model || c.push_gguf) && !hubToken(c.hub_token)
      ? "Cannot push: a token is needed (--hub_token or HF_TOKEN)"
      : null,
  needs("group_by_length", "rows that are not packed (--no_packing)", (c) => !(c.packing && c.group_by_length)),
  (c) =>
    c.stride >= c.chunk_size && c.raw_text_file !== null
      ? `Cannot use --stride ${c.stride}: it must be less than --chunk_size ${c.chunk_size}`
      : null,
];

const ANY_RULES: readonly Rule[] = [
  needs("device", "--backend cuda, metal or auto", (c) => c.backend !== "wasm"),
  needs("num_threads", "--backend wasm or auto", (c) => c.backend === "auto" || c.backend === "wasm"),
];

function hasEval(c: Config): boolean {
  return c.eval_file !== null || c.eval_split > 0 || c.dataset === "embedded";
}

/**
 * Holds the settings against every rule.
 * @throws {ConfigError} with all reasons
 */
export function refuse({ command, config, given }: Settings): void {
  const rules = command === "train" ? [...TRAIN_RULES, ...ANY_RULES] : ANY_RULES;
  const reasons = rules.map((rule) => rule(config, given)).filter((r) => r !== null);
  if (reasons.length > 0) throw new ConfigError(reasons.join("\n       "));
}
