/**
 * From a command line to a complete config: defaults, then the preset, then the config file, then the flags.
 * @module
 */
import type { Arguments } from "./args.ts";
import { readConfigFile } from "./config_file.ts";
import { type Config, defaults, type OptionName, OPTIONS } from "./config.ts";
import type { Command, Setting } from "./option.ts";
import { EMBEDDED, UNSLOTH } from "./presets.ts";

/** A config with where its values come from. */
export interface Settings {
  readonly command: Command;
  readonly config: Config;
  /** Named on the command line, or in the file with a value other than the default: these must be able to act. */
  readonly given: ReadonlySet<OptionName>;
  readonly preset: "embedded" | "unsloth" | null;
}

/** Settings of which each replaces the other. */
export const ALTERNATIVES: readonly (readonly [OptionName, OptionName])[] = [
  ["max_steps", "num_train_epochs"],
  ["dataset", "raw_text_file"],
  ["eval_file", "eval_split"],
];

/**
 * The settings of one run.
 * @throws {ConfigError | FormatError} from the config file
 */
export function resolve(command: Command, args: Arguments): Settings {
  const file = args.given.get("config");
  const fromFile = typeof file === "string" ? readConfigFile(file, command) : new Map<OptionName, Setting>();
  for (const [a, b] of ALTERNATIVES) {
    // The command line wins over the file's other way of saying it, too.
    if (args.given.has(a) && !args.given.has(b)) fromFile.delete(b);
    else if (args.given.has(b) && !args.given.has(a)) fromFile.delete(a);
  }
  const named = new Map([...fromFile, ...args.given]);
  const config = defaults();
  const preset = command === "train" ? choosePreset(named) : null;
  const base = preset === "embedded" ? EMBEDDED : preset === "unsloth" ? UNSLOTH : {};
  Object.assign(config, base, Object.fromEntries(named));
  settleLoss(config, named);
  const given = new Set<OptionName>(args.given.keys());
  for (const [name, value] of fromFile) {
    if (JSON.stringify(value) !== JSON.stringify(OPTIONS[name].default)) given.add(name);
  }
  return { command, config, given, preset };
}

function choosePreset(named: ReadonlyMap<OptionName, Setting>): Settings["preset"] {
  const has = (name: OptionName) => (named.get(name) ?? null) !== null;
  const data = has("dataset") || has("raw_text_file");
  if (!has("model_name") && !data) return "embedded";
  return has("model_name") && data ? null : "unsloth";
}

/** train_on_inputs and train_on_responses_only are one setting under two names: whichever was named decides. */
function settleLoss(config: Config, named: ReadonlyMap<OptionName, Setting>): void {
  if (named.has("train_on_inputs")) {
    if (!named.has("train_on_responses_only")) config.train_on_responses_only = !config.train_on_inputs;
  } else if (named.has("train_on_responses_only")) config.train_on_inputs = !config.train_on_responses_only;
}
