/** The fields that both completion endpoints share: how tokens are chosen, and when an answer ends. @module */
import type { Engine, GenerateRequest, SampleOptions } from "../src/infer/types.ts";
import { ApiError, invalid } from "./errors.ts";
import { type Field, flag, list, number, object, optional, type Others, type Reader, text, wrong } from "./fields.ts";

/** OpenAI allows 4 stop strings; other servers more. 16 keeps the search for them cheap. */
const MOST_STOPS = 16;
/** Choices of one request. OpenAI's own bound is 128; here each takes a slot of the queue. */
const MOST_CHOICES = 16;

const token = number({ min: 0, integer: true });

const stops: Reader<string[]> = (value, path) => {
  const all = list(text, { max: MOST_STOPS })(typeof value === "string" ? [value] : value, path);
  if (all.includes("")) throw wrong(path, "without empty strings", value);
  return all;
};

const biases: Reader<Map<number, number>> = (value, path) =>
  new Map(
    Object.entries(object(value, path)).map(([key, bias]) => {
      if (!/^\d+$/.test(key)) throw wrong(path, "an object from token ids to numbers", value);
      return [Number(key), number({ min: -100, max: 100 })(bias, `${path}.${key}`)];
    }),
  );

/** Shared by /v1/chat/completions and /v1/completions. Beyond OpenAI: vLLM's names. */
export const SAMPLING = {
  model: optional<string | null>(text, null),
  temperature: optional(number({ min: 0 }), 1),
  top_p: optional(number({ over: 0, max: 1 }), 1),
  top_k: optional(number({ min: -1, integer: true }), 0),
  min_p: optional(number({ min: 0, max: 1 }), 0),
  repetition_penalty: optional(number({ over: 0 }), 1),
  presence_penalty: optional(number({ min: -2, max: 2 }), 0),
  frequency_penalty: optional(number({ min: -2, max: 2 }), 0),
  logit_bias: optional(biases, new Map<number, number>()),
  seed: optional<number | null>(number({ integer: true }), null),
  stop: optional(stops, []),
  stop_token_ids: optional(list(token), []),
  ignore_eos: optional(flag, false),
  n: optional(number({ min: 1, max: MOST_CHOICES, integer: true }), 1),
  max_tokens: optional<number | null>(number({ min: 0, integer: true }), null),
  stream: optional(flag, false),
  stream_options: optional<{ usage: boolean }>(streamOptions, { usage: false }),
} as const satisfies Record<string, Field<unknown>>;

function streamOptions(value: unknown, path: string): { usage: boolean } {
  const { include_usage, include_obfuscation: _padding, ...rest } = object(value, path);
  const [unknown] = Object.keys(rest);
  if (unknown) {
    throw invalid(`${path}.${unknown}`, `Cannot take the field '${path}.${unknown}': this server does not know it`);
  }
  return { usage: include_usage == null ? false : flag(include_usage, `${path}.include_usage`) };
}

const is = (...allowed: unknown[]) => (value: unknown) => allowed.includes(value);
const isText = (value: unknown) => (value as { type?: unknown })?.type === "text";

/**
 * What the two endpoints do with fields beside the known ones. Ignored: bookkeeping of the caller, billing, caching,
 * hints for speed. Taken only when they ask for nothing unusual: the rest that clients are seen to send.
 */
export const OTHERS: Others = {
  ignored: new Set([
    "user",
    "safety_identifier",
    "metadata",
    "store",
    "service_tier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "prediction",
    "priority",
    "request_id",
    "cache_prompt",
  ]),
  usual: {
    response_format: isText,
    best_of: is(1),
    suffix: is(""),
    min_tokens: is(0),
    length_penalty: is(1),
    use_beam_search: is(false),
    skip_special_tokens: is(true),
    spaces_between_special_tokens: is(true),
    include_stop_str_in_output: is(false),
    add_generation_prompt: is(true),
    continue_final_message: is(false),
    modalities: (v) => Array.isArray(v) && v.every(is("text")),
    verbosity: is("medium"),
    guided_json: () => false,
    structured_outputs: () => false,
    bad_words: (v) => Array.isArray(v) && v.length === 0,
    allowed_token_ids: () => false,
    functions: (v) => Array.isArray(v) && v.length === 0,
    function_call: is("none", "auto"),
    web_search_options: () => false,
    audio: () => false,
    reasoning_effort: () => false,
    typical_p: is(1),
    repeat_penalty: is(1),
    mirostat: is(0),
    grammar: is(""),
  },
};

/** What `SAMPLING` gives, as far as it says how to choose tokens. */
export interface Sampling {
  temperature: number;
  top_p: number;
  top_k: number;
  min_p: number;
  repetition_penalty: number;
  presence_penalty: number;
  frequency_penalty: number;
  logit_bias: ReadonlyMap<number, number>;
  seed: number | null;
  stop: readonly string[];
  stop_token_ids: readonly number[];
  ignore_eos: boolean;
}

/**
 * One request to the engine. Choice `i` of a seeded request draws with seed + i, as in vLLM.
 * @param size ids the tokenizer has
 */
export function toRequest(
  v: Sampling,
  o: { ids: Int32Array; maxTokens: number; logprobs: number | null; choice: number; signal: AbortSignal; size: number },
): GenerateRequest {
  for (const id of v.logit_bias.keys()) {
    if (id >= o.size) throw invalid("logit_bias", `Cannot honour 'logit_bias' of token ${id}: the model has ${o.size}`);
  }
  const sample: SampleOptions = {
    temperature: v.temperature,
    topK: Math.max(0, v.top_k),
    topP: v.top_p,
    minP: v.min_p,
    repetitionPenalty: v.repetition_penalty,
    presencePenalty: v.presence_penalty,
    frequencyPenalty: v.frequency_penalty,
    logitBias: v.logit_bias,
    seed: v.seed === null ? null : v.seed + o.choice,
  };
  return {
    ids: o.ids,
    maxTokens: o.maxTokens,
    stop: v.stop,
    stopIds: v.stop_token_ids,
    ignoreEos: v.ignore_eos,
    sample,
    logprobs: o.logprobs,
    signal: o.signal,
  };
}

/** Refuses a request for another model; a request that names none means the one there is. */
export function checkModel(model: string | null, engine: Engine): void {
  if (model === null || model === engine.model) return;
  throw new ApiError("not_found_error", `Cannot find the model '${model}': this server has '${engine.model}'`, "model");
}
