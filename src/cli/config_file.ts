/**
 * The config file: the table's names and values as YAML or JSON. Written beside the results, it can be given back with
 * --config and means the same run.
 * @module
 */
import { readFileSync } from "node:fs";
import { parse, stringify } from "yaml";
import { ConfigError, FormatError } from "../core/errors.ts";
import { type Config, type OptionName, OPTIONS, optionsOf } from "./config.ts";
import { nearest } from "./nearest.ts";
import { checkSetting, type Command, parseSetting, type Setting } from "./option.ts";

/**
 * Settings of a file; JSON is read as the YAML it is.
 * @throws {FormatError} when it does not parse
 * @throws {ConfigError} for a name that is no setting of the command, or a value that does not fit
 */
export function readConfigFile(path: string, command: Command): Map<OptionName, Setting> {
  const entries = parseFile(path);
  const known = new Set<string>(optionsOf(command));
  const given = new Map<OptionName, Setting>();
  for (const [key, value] of Object.entries(entries)) {
    const name = canonical(key);
    if (name === "config") throw new ConfigError(`Cannot read ${path}: a config file cannot name another`);
    if (!known.has(name)) throw new ConfigError(`Cannot read ${path}: ${explain(key, name, command)}`);
    if (given.has(name as OptionName)) throw new ConfigError(`Cannot read ${path}: it sets ${name} twice`);
    try {
      const option = OPTIONS[name as OptionName];
      // A text means what it means on the command line: None, lists by commas.
      const setting = typeof value === "string" ? parseSetting(name, option, value) : checkSetting(name, option, value);
      given.set(name as OptionName, setting);
    } catch (e) {
      throw new ConfigError(`${(e as Error).message} (in ${path})`);
    }
  }
  return given;
}

function parseFile(path: string): Record<string, unknown> {
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (e) {
    throw new ConfigError(`Cannot read the config file ${path}: ${(e as Error).message}`);
  }
  let value: unknown;
  try {
    value = parse(text) ?? {};
  } catch (e) {
    throw new FormatError(
      `Cannot read ${path}: ${(e as Error).message.split("\n")[0].replace(/; please use.*\(\)/, "")}`,
      path,
    );
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new FormatError(`Cannot read ${path}: it must hold names and values, as "max_steps: 60"`, path);
  }
  return value as Record<string, unknown>;
}

function canonical(key: string): string {
  const name = key.replaceAll("-", "_");
  const byAlias = (Object.keys(OPTIONS) as OptionName[]).find((n) => OPTIONS[n].also?.includes(name));
  return byAlias ?? name;
}

function explain(key: string, name: string, command: Command): string {
  if (name in OPTIONS) return `${key} is no setting of ${command}`;
  const close = nearest(name, optionsOf(command));
  return `unknown setting ${key}${close ? `, did you mean ${close}?` : ""}`;
}

/** What says how one call goes on, and nothing of the run it makes. */
const OF_THE_CALL: readonly OptionName[] = ["config", "dry_run", "resume"];

/** The settings of a command as YAML; secrets and what is of the call alone are left out. */
export function writeConfig(config: Config, command: Command): string {
  // Of two settings that replace each other the one that acts.
  const idle = config.num_train_epochs === null ? null : "max_steps";
  const names = optionsOf(command).filter((n) => !OF_THE_CALL.includes(n) && n !== idle && !OPTIONS[n].secret);
  return stringify(Object.fromEntries(names.map((n) => [n, config[n]])), { lineWidth: 0 });
}
