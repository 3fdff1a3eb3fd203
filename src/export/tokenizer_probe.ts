/** Whether a tokenizer that was written cuts texts as the one it was made from. @module */
import { ConfigError } from "../core/errors.ts";
import type { Tokenizer } from "../tokenizer/mod.ts";

/** Texts that tell tokenizers apart: scripts, digits, spaces, line ends, contractions, code, emoji. */
export const PROBES: readonly string[] = [
  "Hello world! It's 2024, isn't it? I'LL say: 1234567.89 §±",
  "  two  spaces\tand\ttabs\n\n\nlines \r\n end   ",
  "Привет, мир; 你好，世界！ こんにちは 안녕하세요 مرحبا नमस्ते ไทย",
  "def f(x):\n    return x**2 + 0x1F  # naïve café\n",
  "🦙🚀👩‍👩‍👧 x₁²½ \u00a0\u200b ʼn",
];

/** @throws {ConfigError} with the first text that `written` cuts otherwise */
export function refuseDifferences(original: Tokenizer, written: Tokenizer, what: string): void {
  const specials = original.eos.map((id) => `a${original.piece(id)}b`);
  for (const text of [...PROBES, ...specials]) {
    const [a, b] = [original.encode(text), written.encode(text)];
    if (a.join() === b.join()) continue;
    throw new ConfigError(
      `Cannot write the tokenizer of '${original.source}' as ${what}: ${JSON.stringify(text.slice(0, 40))}… would be ` +
        `[${b.slice(0, 12)}…] where the model knows [${a.slice(0, 12)}…]`,
    );
  }
  const ids = (t: Tokenizer) => [t.bos, t.addBos, t.eos[0]].join();
  if (ids(original) !== ids(written)) {
    throw new ConfigError(
      `Cannot write the tokenizer of '${original.source}' as ${what}: BOS, its use and EOS would be ` +
        `${ids(written)} and are ${ids(original)}`,
    );
  }
}
