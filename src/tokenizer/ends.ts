/**
 * Which ids end a text. Files name one, sometimes a list; chat models end turns with markers that no key names, so generation
 * would run on. As llama.cpp does (src/llama-vocab.cpp, special_eog_ids), markers are also known by their texts.
 * @module
 */

/** Texts that end a turn or a text in every vocabulary that has them as special tokens. */
export const ENDS: ReadonlySet<string> = new Set([
  ...["</s>", "<eos>", "<|endoftext|>", "<|end_of_text|>", "<｜end▁of▁sentence｜>"],
  ...["<|eot_id|>", "<|eom_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<end_of_utterance>", "<EOT>"],
]);

/**
 * All ids that end a text, each once: the one to train, those the files name, those known by their texts.
 * @param special whether an id is a special token
 */
export function findEnds(
  trained: number | null,
  named: readonly number[],
  pieces: readonly string[],
  special: (id: number) => boolean,
): number[] {
  if (trained === null && named.length === 0) return [];
  const ids = new Set(trained === null ? named : [trained, ...named]);
  pieces.forEach((piece, id) => {
    if (ENDS.has(piece) && special(id)) ids.add(id);
  });
  return [...ids];
}
