/**
 * Where the command line writes: lines to stdout, notes and the progress bar to stderr. Commands take a Terminal, so that
 * tests read what a user would see.
 * @module
 */
import process from "node:process";

/** Output of a command. */
export interface Terminal {
  /** Whether the progress bar and colours have a screen. */
  readonly tty: boolean;
  /** Characters a line. */
  readonly columns: number;
  /** A line of the result. */
  out(line: string): void;
  /** Text of the result without a line's end. */
  write(text: string): void;
  /** A line beside the result: a notice, a refusal. */
  note(line: string): void;
  /** A line that the next line of any kind replaces; shown on a screen only. Empty: none. */
  status(line: string): void;
  /** Text in a colour, or bare where there is no screen. */
  paint(style: Style, text: string): string;
}

/** Select Graphic Rendition codes (ECMA-48). */
const STYLES = { bold: 1, dim: 2, red: 31, green: 32, yellow: 33, cyan: 36, inverse: 7 } as const;

/** A way to mark text. */
export type Style = keyof typeof STYLES;

/** The process's own output. NO_COLOR (no-color.org) turns colours off. */
export function processTerminal(): Terminal {
  const tty = process.stdout.isTTY === true && process.stderr.isTTY === true;
  const color = tty && !process.env.NO_COLOR;
  let status = "";
  // The reader of a pipe may leave early (`| head`): that is its right, and the end of our output.
  process.stdout.on("error", (e: NodeJS.ErrnoException) => {
    if (e.code === "EPIPE") process.exit(0);
    throw e;
  });
  const clear = () => {
    if (status !== "") process.stderr.write("\r\x1b[2K");
  };
  const redraw = () => {
    if (status !== "") process.stderr.write(status);
  };
  return {
    tty,
    columns: process.stdout.columns || 100,
    out: (line) => {
      clear();
      process.stdout.write(line + "\n");
      redraw();
    },
    write: (text) => {
      clear();
      status = "";
      process.stdout.write(text);
    },
    note: (line) => {
      clear();
      process.stderr.write(line + "\n");
      redraw();
    },
    status: (line) => {
      if (!tty) return;
      clear();
      status = line;
      redraw();
    },
    paint: (style, text) => color ? `\x1b[${STYLES[style]}m${text}\x1b[0m` : text,
  };
}

/** `1.2 GB`, decimal, as the log lines have it. */
export function bytesText(n: number): string {
  if (n < 1e6) return `${(n / 1e3).toFixed(1)} kB`;
  return n < 1e9 ? `${(n / 1e6).toFixed(1)} MB` : `${(n / 1e9).toFixed(2)} GB`;
}

/** `12,345`. */
export function count(n: number): string {
  return String(Math.round(n)).replace(/\B(?=(\d{3})+(?!\d))/g, ",");
}

/** `1:02:03`, `2:03`. */
export function duration(seconds: number): string {
  const s = Math.max(0, Math.round(seconds)), two = (n: number) => String(n).padStart(2, "0");
  const h = Math.floor(s / 3600), m = Math.floor(s / 60) % 60;
  return h > 0 ? `${h}:${two(m)}:${two(s % 60)}` : `${m}:${two(s % 60)}`;
}

/** `[####----] 40 %`-style bar of `width` characters. */
export function bar(share: number, width: number): string {
  const full = Math.round(Math.min(1, Math.max(0, share)) * width);
  return "█".repeat(full) + "░".repeat(width - full);
}
