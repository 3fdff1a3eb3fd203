/**
 * Counters for Prometheus, under the names that llama-server's dashboards read (tools/server/README.md, "GET /metrics").
 * @module
 */
import type { Engine, Piece } from "../src/infer/types.ts";

/** Sums over all answers since the start. */
export class Metrics {
  #promptTokens = 0;
  #cachedTokens = 0;
  #promptSeconds = 0;
  #answerTokens = 0;
  #answerSeconds = 0;
  #longest = 0;

  /** Adds the last piece of an answer. */
  count({ usage, timings }: Piece): void {
    if (!usage) return;
    this.#promptTokens += usage.promptTokens - usage.cachedTokens;
    this.#cachedTokens += usage.cachedTokens;
    this.#answerTokens += usage.completionTokens;
    this.#promptSeconds += timings?.promptSeconds ?? 0;
    this.#answerSeconds += timings?.answerSeconds ?? 0;
    this.#longest = Math.max(this.#longest, usage.promptTokens + usage.completionTokens);
  }

  /** The text of GET /metrics (Prometheus exposition format 0.0.4). */
  write(engine: Engine): string {
    const { running, waiting } = engine.stats();
    const rate = (n: number, seconds: number) => seconds > 0 ? n / seconds : 0;
    const rows: [name: string, type: "counter" | "gauge", help: string, value: number][] = [
      ["prompt_tokens_total", "counter", "Prompt tokens computed.", this.#promptTokens],
      ["prompt_tokens_cached_total", "counter", "Prompt tokens found in the cache.", this.#cachedTokens],
      ["prompt_seconds_total", "counter", "Seconds until first tokens.", this.#promptSeconds],
      ["prompt_tokens_seconds", "gauge", "Prompt tokens a second.", rate(this.#promptTokens, this.#promptSeconds)],
      ["tokens_predicted_total", "counter", "Tokens generated.", this.#answerTokens],
      ["tokens_predicted_seconds_total", "counter", "Seconds after first tokens.", this.#answerSeconds],
      [
        "predicted_tokens_seconds",
        "gauge",
        "Tokens generated a second.",
        rate(this.#answerTokens, this.#answerSeconds),
      ],
      ["requests_processing", "gauge", "Requests running.", running],
      ["requests_deferred", "gauge", "Requests waiting.", waiting],
      ["n_tokens_max", "counter", "Longest prompt and answer so far.", this.#longest],
    ];
    return rows.map(([name, type, help, value]) =>
      `# HELP llamacpp:${name} ${help}\n# TYPE llamacpp:${name} ${type}\nllamacpp:${name} ${value}\n`
    ).join("");
  }
}
