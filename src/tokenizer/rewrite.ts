/**
 * Pre-tokenizers of tokenizer.json that the library does otherwise than Rust's tokenizers, written in parts that both do alike.
 * @module
 */
import { ConfigError } from "../core/errors.ts";
import { GPT2 } from "./pre_tokenizers.ts";

/** A part of tokenizer.json. */
export interface Node {
  type: string;
  [key: string]: unknown;
}

/** The pre-tokenizer in parts that the library does as Rust does. @throws {ConfigError} when there are none */
export function rewritePreTokenizer(node: Node | null, source: string): Node | null {
  switch (node?.type) {
    case "Sequence":
      return {
        type: "Sequence",
        pretokenizers: (node.pretokenizers as Node[]).flatMap((n) => stepsOf(rewritePreTokenizer(n, source))),
      };
    case "Digits":
      // The library takes ASCII digits; Rust takes what Unicode calls numbers.
      return split(node.individual_digits ? "\\p{N}" : "\\p{N}+", false);
    case "Metaspace":
      // The library does not cut; Rust does before each replaced space, unless told otherwise.
      return node.split === false ? node : { type: "Sequence", pretokenizers: [node, split("▁?[^▁]+|▁", true)] };
    case "Split":
      return rewriteSplit(node, source);
    case "ByteLevel":
      // Alike in both; but in two steps, words can be cached before they are written as bytes.
      if (node.use_regex === false || node.add_prefix_space === true) return node;
      return { type: "Sequence", pretokenizers: [split(GPT2, false), { ...node, use_regex: false }] };
    default:
      return node;
  }
}

/** The parts of a sequence, or the one part that is none. */
function stepsOf(node: Node | null): Node[] {
  return node?.type === "Sequence" ? node.pretokenizers as Node[] : node ? [node] : [];
}

/** `matches`: words are the matches alone, which must cover the text; else also what lies between them. */
function split(regex: string, matches: boolean): Node {
  return { type: "Split", pattern: { Regex: regex }, behavior: "Isolated", invert: matches };
}

/** The library knows Isolated and Removed only; merging with a neighbour is written as a pattern that covers the text. */
function rewriteSplit(node: Node, source: string): Node {
  const behavior = String(node.behavior), invert = node.invert === true;
  if ((behavior === "Isolated" || behavior === "Removed") && !invert) return node;
  if (behavior === "Removed" && invert) return node;
  const text = (node.pattern as { String?: string }).String;
  if (text !== undefined && !invert && (behavior === "MergedWithPrevious" || behavior === "MergedWithNext")) {
    const p = text.replace(/[\\^$.*+?()[\]{}|/-]/g, "\\$&"), other = `(?:(?!${p})[\\s\\S])`;
    return split(behavior === "MergedWithPrevious" ? `${other}*${p}|${other}+` : `${p}${other}*|${other}+`, true);
  }
  throw new ConfigError(
    `Cannot use the tokenizer of '${source}': its pre-tokenizer splits with behavior '${behavior}'` +
      `${invert ? " inverted" : ""}, which this build does not do`,
  );
}
