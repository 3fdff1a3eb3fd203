/** Help on the terminal and docs/flags.md, both from the table. @module */
import { GROUPS, type OptionName, OPTIONS, optionsOf } from "./config.ts";
import type { Command, Option, Setting } from "./option.ts";
import { COMMANDS, EMBEDDED } from "./presets.ts";

/** What `unsloth --help` prints. */
export function generalHelp(program: string): string {
  const width = Math.max(...Object.keys(COMMANDS).map((c) => c.length));
  const verbs = Object.entries(COMMANDS).map(([c, info]) => `  ${c.padEnd(width)}  ${info.summary}`);
  const examples = Object.values(COMMANDS).map((info) => `  ${program} ${info.examples[0]}`);
  return [
    `Usage: ${program} <command> [flags]`,
    "",
    "Commands:",
    ...verbs,
    "",
    "Examples:",
    ...examples,
    "",
    `${program} <command> --help lists a command's flags.`,
  ].join("\n");
}

/** What `unsloth <command> --help` prints, at most `columns` wide. */
export function commandHelp(program: string, command: Command, columns: number): string {
  const info = COMMANDS[command];
  const mine = new Set<string>(optionsOf(command));
  const lines = [
    `Usage: ${program} ${command}${info.positional ? " [MODEL]" : ""} [flags]`,
    "",
    `${info.summary}.`,
    "",
    "Examples:",
    ...info.examples.map((e) => `  ${program} ${e}`),
  ];
  for (const [group, options] of Object.entries(GROUPS)) {
    const names = Object.keys(options).filter((n) => mine.has(n)) as OptionName[];
    if (names.length === 0) continue;
    lines.push("", `${group}:`, ...names.flatMap((n) => flagLines(n, columns)));
  }
  return lines.join("\n");
}

/** A flag's usage, then its help wrapped and indented. */
function flagLines(name: OptionName, columns: number): string[] {
  const o = OPTIONS[name];
  const head = `  --${name}${o.kind === "flag" ? "" : ` ${metavar(o)}`}`;
  const words = `${o.help}${o.choices && o.kind === "text" ? ` One of ${o.choices.join(", ")}.` : ""} ${
    defaultNote(o)
  }`;
  return [head, ...wrap(words.trim(), Math.max(40, columns - 6)).map((l) => `      ${l}`)];
}

function metavar(o: Option): string {
  return { flag: "", int: "N", number: "X", text: "TEXT", list: "A B …" }[o.kind];
}

function defaultNote(o: Option): string {
  if (o.default === null || (Array.isArray(o.default) && o.default.length === 0)) return "";
  return `(default ${show(o.default)})`;
}

function show(value: Setting): string {
  if (typeof value === "boolean") return value ? "on" : "off";
  return Array.isArray(value) ? value.join(" ") : String(value);
}

/** Breaks at spaces. */
export function wrap(text: string, width: number): string[] {
  const lines: string[] = [];
  let line = "";
  for (const word of text.split(" ")) {
    if (line !== "" && line.length + 1 + word.length > width) {
      lines.push(line);
      line = word;
    } else line = line === "" ? word : `${line} ${word}`;
  }
  return [...lines, line];
}

/** docs/flags.md: every flag of every command. */
export function flagsMarkdown(): string {
  const out = [
    "# Flags",
    "",
    "Made from `src/cli/config.ts` by `deno run -A tools/flags.ts`; a test holds the two together. ● marks flags of",
    "unsloth-cli.py, under the same name and with the same default.",
    "",
    "A flag may be written `--max_steps 60`, `--max-steps=60` or by a unique beginning (`--max_st 60`); yes-or-no flags also",
    "`--no_packing` and `--packing=false`. `--config FILE` reads the same names from YAML or JSON; the command line wins. A",
    "flag that cannot act in a run is refused by name.",
  ];
  for (const [group, options] of Object.entries(GROUPS)) {
    out.push(
      "",
      `## ${group}`,
      "",
      "| flag | | type | default | commands | meaning |",
      "| --- | --- | --- | --- | --- | --- |",
    );
    for (const [name, o] of Object.entries(options)) out.push(markdownRow(name, o));
  }
  const preset = Object.entries(EMBEDDED).map(([n, v]) => `\`${n} ${show(v as Setting)}\``).join(", ");
  out.push("", "## Without a model and a dataset", "", `\`train\` alone takes the preset \`embedded\`: ${preset}.`, "");
  return out.join("\n");
}

function markdownRow(name: string, o: Option): string {
  const names = [name, ...(o.also ?? [])].map((n) => `\`--${n}\``).join(", ");
  const kind = o.choices && o.kind === "text" ? o.choices.join(", ") : o.kind;
  const value = o.default === null || o.default === "" ? "None" : show(o.default) || "none";
  const on = (o.on ?? ["train"]).join(", ");
  return `| ${names} | ${o.unsloth ? "●" : ""} | ${kind} | ${value} | ${on} | ${o.help.replaceAll("|", "\\|")} |`;
}
