/**
 * Reads a command line against the table: --flag value, --flag=value, --no_flag, kebab-case, unique prefixes (argparse's
 * rule), several values for a list. What it does not know it refuses with the nearest name.
 * @module
 */
import { ConfigError } from "../core/errors.ts";
import { type OptionName, OPTIONS, optionsOf } from "./config.ts";
import { nearest } from "./nearest.ts";
import { type Command, parseSetting, type Setting } from "./option.ts";
import { COMMANDS } from "./presets.ts";

/** What a command line said. */
export interface Arguments {
  readonly given: ReadonlyMap<OptionName, Setting>;
  readonly help: boolean;
}

/**
 * Settings of one command from its arguments (the command's own name left out).
 * @throws {ConfigError} for an unknown or ambiguous flag, a missing or wrong value, an argument too many
 */
export function parseArgs(command: Command, argv: readonly string[]): Arguments {
  const given = new Map<OptionName, Setting>();
  let help = false, before: string | null = null;
  for (let i = 0; i < argv.length; i++) {
    const word = argv[i];
    if (word === "-h" || word === "--help") {
      help = true;
      continue;
    }
    if (!word.startsWith("--")) {
      setPositional(command, word, given, before);
      continue;
    }
    const eq = word.indexOf("=");
    const flag = eq < 0 ? word : word.slice(0, eq);
    const { name, negated } = findFlag(command, flag);
    const inline = eq < 0 ? null : word.slice(eq + 1);
    const taken = inline === null ? valuesAfter(name, negated, argv, i + 1) : [inline];
    if (inline === null) i += taken.length;
    given.set(name, readValue(name, flag, taken, negated)); // as argparse: the last one counts
    before = OPTIONS[name].kind === "flag" && taken.length === 0 ? flag : null;
  }
  return { given, help };
}

/** Words that belong to the flag: up to the next flag for a list, one for a value, true/false after a yes-or-no flag. */
function valuesAfter(name: OptionName, negated: boolean, argv: readonly string[], from: number): string[] {
  const { kind } = OPTIONS[name];
  const isValue = (w: string | undefined) => w !== undefined && !w.startsWith("--");
  if (kind === "flag") return !negated && /^(true|false)$/i.test(argv[from] ?? "") ? [argv[from]] : [];
  if (kind !== "list") return isValue(argv[from]) ? [argv[from]] : [];
  let to = from;
  while (isValue(argv[to])) to++;
  return argv.slice(from, to);
}

function readValue(name: OptionName, flag: string, words: readonly string[], negated: boolean): Setting {
  const option = OPTIONS[name];
  if (option.kind === "flag") {
    const value = words.length === 0 ? true : parseSetting(name, option, words[0]);
    return negated ? !value : value;
  }
  if (words.length === 0) {
    const choices = option.choices ? `, one of ${option.choices.join(", ")}` : "";
    throw new ConfigError(`Cannot read ${flag}: a value must follow${choices}`);
  }
  if (option.kind === "list") return words.flatMap((w) => parseSetting(name, option, w) as readonly string[]);
  return parseSetting(name, option, words[0]);
}

/** A word that belongs to no flag; `before`: the yes-or-no flag it follows, for which it may have been meant. */
function setPositional(
  command: Command,
  word: string,
  given: Map<OptionName, Setting>,
  before: string | null,
): void {
  const { positional } = COMMANDS[command];
  if (/^-\w/.test(word)) throw new ConfigError(`Unknown flag ${word}: flags have two dashes, as -${word}`);
  if (positional === null || given.has(positional)) {
    throw new ConfigError(
      `Cannot use ${JSON.stringify(word)}: ${command} takes ${positional ? "one" : "no"} bare argument` +
        (before ? `, and ${before} nothing but true or false` : "") +
        (before?.startsWith("--resume") ? "; it goes on from the newest checkpoint in --output_dir" : ""),
    );
  }
  given.set(positional, word);
}

/** The names a flag may be given by: its own, and those in `also`. */
function namesOf(command: Command): Map<string, OptionName> {
  const names = new Map<string, OptionName>();
  for (const name of optionsOf(command)) {
    for (const alias of [name, ...(OPTIONS[name].also ?? [])]) names.set(alias, name);
  }
  return names;
}

function findFlag(command: Command, flag: string): { name: OptionName; negated: boolean } {
  const word = flag.slice(2).replaceAll("-", "_");
  const names = namesOf(command);
  const plain = lookUp(names, word, flag);
  if (plain) return { name: plain, negated: false };
  if (word.startsWith("no_")) {
    const name = lookUp(names, word.slice(3), flag);
    if (name && OPTIONS[name].kind === "flag") return { name, negated: true };
    if (name) throw new ConfigError(`Cannot read ${flag}: ${name} takes a value, so there is no ${flag}`);
  }
  throw new ConfigError(unknown(command, flag, word, names));
}

/** Exact name, else the one name that starts so. */
function lookUp(names: ReadonlyMap<string, OptionName>, word: string, flag: string): OptionName | undefined {
  const exact = names.get(word);
  if (exact || word === "") return exact;
  const found = [...names].filter(([n]) => n.startsWith(word));
  if (new Set(found.map(([, name]) => name)).size > 1) {
    throw new ConfigError(`Cannot read ${flag}: it may be ${found.map(([n]) => `--${n}`).join(" or ")}`);
  }
  return found[0]?.[1];
}

function unknown(command: Command, flag: string, word: string, names: ReadonlyMap<string, OptionName>): string {
  const elsewhere = (Object.keys(COMMANDS) as Command[]).filter((c) => namesOf(c).has(word));
  if (elsewhere.length > 0) return `Cannot use ${flag} with ${command}: it belongs to ${elsewhere.join(", ")}`;
  const close = nearest(word, [...names.keys()]);
  return `Unknown flag ${flag}${close ? `: did you mean --${close}?` : `; see ${command} --help`}`;
}
