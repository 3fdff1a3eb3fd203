/**
 * `tokenizer.ggml.pre` for a tokenizer.json: the name whose patterns and rules are the file's own. llama.cpp's converter
 * goes by a hash of one text's ids instead, which knows published vocabularies only.
 * @module
 */
import { ConfigError } from "../core/errors.ts";
import { PRE_TOKENIZERS } from "../tokenizer/pre_tokenizers.ts";
import { type Node, rewritePreTokenizer } from "../tokenizer/rewrite.ts";

/** The patterns text is cut by, one after the other; null where a part is none. */
function patternsOf(node: Node | null): string[] | null {
  const steps = node?.type === "Sequence" ? node.pretokenizers as Node[] : node ? [node] : [];
  const patterns: string[] = [];
  for (const step of steps) {
    if (step.type === "ByteLevel" && step.use_regex === false && step.add_prefix_space !== true) continue;
    const pattern = (step.pattern as { Regex?: string } | undefined)?.Regex;
    if (step.type !== "Split" || pattern === undefined || step.invert === true) return null;
    patterns.push(pattern);
  }
  return patterns;
}

/** What decides. */
interface ByteLevelJson {
  readonly model: { readonly ignore_merges?: boolean };
  readonly pre_tokenizer?: unknown;
}

/**
 * The name llama.cpp knows the pre-tokenizer by.
 * @throws {ConfigError} when it knows none, which would make it cut text otherwise than the model was trained with
 */
export function preTokenizerName(json: ByteLevelJson, source: string): string {
  const patterns = patternsOf(rewritePreTokenizer((json.pre_tokenizer ?? null) as Node | null, source));
  const whole = json.model.ignore_merges ?? false;
  for (const [name, pre] of PRE_TOKENIZERS) {
    if (patterns?.join("\n") === pre.split.join("\n") && (pre.ignoreMerges ?? false) === whole) return name;
  }
  throw new ConfigError(
    `Cannot write the tokenizer of '${source}' as GGUF: its pre-tokenizer (${JSON.stringify(json.pre_tokenizer)}) ` +
      `is none of those llama.cpp has a name for`,
  );
}
