/**
 * An answer of /v1/responses as it grows: the object it becomes, and the events that tell of each change. The order of the
 * events is that of OpenAI's API reference ("Streaming events"); each carries its number.
 * @module
 */
import type { Piece } from "../src/infer/types.ts";
import { freshId, type Usage } from "./answers.ts";
import { type ToolCall, ToolCallReader } from "./tools.ts";

/** An event; `type` is also its name. */
export type ResponseEvent = { type: string; sequence_number: number } & Record<string, unknown>;

/** Text of the assistant's. */
interface TextPart {
  type: "output_text";
  text: string;
  annotations: never[];
  logprobs: never[];
}

type Status = "in_progress" | "completed" | "incomplete";

/** What is in `output`. */
type Item =
  | { type: "message"; id: string; status: Status; role: "assistant"; content: TextPart[] }
  | { type: "function_call"; id: string; status: Status; call_id: string; name: string; arguments: string };

/** Builds the response and its events. */
export class ResponseWriter {
  #output: Item[] = [];
  /** The text that is growing; null between items. */
  #part: TextPart | null = null;
  #calls: ToolCallReader | null;
  #number = 0;
  readonly #head: Readonly<Record<string, unknown>>;

  /**
   * @param head what is known from the start: id, model, and the request's settings
   * @param tools whether the answer may hold calls
   */
  constructor(head: Readonly<Record<string, unknown>>, tools: boolean) {
    this.#head = head;
    this.#calls = tools ? new ToolCallReader() : null;
  }

  /** Before the first token. */
  begin(): ResponseEvent[] {
    const response = this.response("in_progress", null);
    return [this.#event("response.created", { response }), this.#event("response.in_progress", { response })];
  }

  /** What `piece` adds. */
  add(piece: Piece): ResponseEvent[] {
    if (!this.#calls) return this.#write(piece.text);
    const now = this.#calls.push(piece.text), rest = piece.finish ? this.#calls.flush() : { text: "", calls: [] };
    const calls = [...now.calls, ...rest.calls];
    return [...this.#write(now.text + rest.text), ...calls.flatMap((call) => this.#call(call))];
  }

  /** After the last token. */
  end(finish: Piece["finish"], usage: Usage): ResponseEvent[] {
    const status: Status = finish === "length" ? "incomplete" : "completed";
    const events = this.#output.length === 0 ? this.#open() : [];
    events.push(...this.#close(status));
    return [...events, this.#event(`response.${status}`, { response: this.response(status, usage) })];
  }

  /** The whole object. */
  response(status: Status, usage: Usage | null): Record<string, unknown> {
    return {
      ...this.#head,
      object: "response",
      status,
      error: null,
      incomplete_details: status === "incomplete" ? { reason: "max_output_tokens" } : null,
      output: structuredClone(this.#output),
      usage: usage && {
        input_tokens: usage.prompt_tokens,
        input_tokens_details: usage.prompt_tokens_details,
        output_tokens: usage.completion_tokens,
        output_tokens_details: { reasoning_tokens: 0 },
        total_tokens: usage.total_tokens,
      },
    };
  }

  #event(type: string, fields: Record<string, unknown>): ResponseEvent {
    return { type, sequence_number: this.#number++, ...fields };
  }

  get #index(): number {
    return this.#output.length - 1;
  }

  /** Begins a message. */
  #open(): ResponseEvent[] {
    const item: Item = { type: "message", id: freshId("msg"), status: "in_progress", role: "assistant", content: [] };
    this.#output.push(item);
    const added = this.#event("response.output_item.added", { output_index: this.#index, item: structuredClone(item) });
    this.#part = { type: "output_text", text: "", annotations: [], logprobs: [] };
    item.content.push(this.#part);
    return [added, this.#event("response.content_part.added", { ...this.#place(item), part: { ...this.#part } })];
  }

  #place(item: Item): Record<string, unknown> {
    return { item_id: item.id, output_index: this.#index, content_index: 0 };
  }

  #write(text: string): ResponseEvent[] {
    if (text === "") return [];
    const events = this.#part ? [] : this.#open();
    this.#part!.text += text;
    const place = this.#place(this.#output[this.#index]);
    return [...events, this.#event("response.output_text.delta", { ...place, delta: text, logprobs: [] })];
  }

  /** Ends the message that is open, if one is. */
  #close(status: Status): ResponseEvent[] {
    const item = this.#output[this.#index], part = this.#part;
    if (!part || item.type !== "message") return [];
    this.#part = null;
    item.status = status;
    const place = this.#place(item);
    return [
      this.#event("response.output_text.done", { ...place, text: part.text, logprobs: [] }),
      this.#event("response.content_part.done", { ...place, part: { ...part } }),
      this.#event("response.output_item.done", { output_index: this.#index, item: structuredClone(item) }),
    ];
  }

  #call({ id, function: { name, arguments: args } }: ToolCall): ResponseEvent[] {
    const events = this.#close("completed");
    const item: Item = {
      type: "function_call",
      id: freshId("fc"),
      status: "in_progress",
      call_id: id,
      name,
      arguments: "",
    };
    this.#output.push(item);
    const place = { item_id: item.id, output_index: this.#index };
    events.push(this.#event("response.output_item.added", { output_index: this.#index, item: { ...item } }));
    events.push(this.#event("response.function_call_arguments.delta", { ...place, delta: args }));
    Object.assign(item, { arguments: args, status: "completed" });
    events.push(this.#event("response.function_call_arguments.done", { ...place, name, arguments: args }));
    events.push(this.#event("response.output_item.done", { output_index: this.#index, item: { ...item } }));
    return events;
  }
}
