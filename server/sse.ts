/**
 * Server-sent events: one JSON value an event, under its name where it has one (`type`, as in /v1/responses), and a comment
 * when there has been nothing to say for long.
 * @module
 */
import { toApiError } from "./errors.ts";

/**
 * A response that sends each value as `data: …`. A failure of `values` is sent as a last event in the shape of an error;
 * a reader that goes away ends `values`.
 * @param onLeave called when the reader went away
 */
export function eventStream(values: AsyncGenerator<unknown>, pingSeconds: number, onLeave: () => void): Response {
  const utf8 = new TextEncoder();
  let next: Promise<IteratorResult<unknown>> | null = null, left = false;
  const body = new ReadableStream<Uint8Array>({
    async pull(out) {
      try {
        next ??= values.next();
        const result = await within(next, pingSeconds);
        if (left) return;
        if (result === null) return out.enqueue(utf8.encode(": still working\n\n"));
        next = null;
        if (result.done) return out.close();
        out.enqueue(utf8.encode(write(result.value)));
      } catch (e) {
        if (left) return;
        out.enqueue(utf8.encode(write(toApiError(e).body())));
        out.close();
      }
    },
    async cancel() {
      left = true;
      onLeave();
      await values.return(undefined);
    },
  });
  return new Response(body, {
    headers: {
      "content-type": "text/event-stream; charset=utf-8",
      "cache-control": "no-cache",
      "x-accel-buffering": "no",
    },
  });
}

function write(value: unknown): string {
  if (typeof value === "string") return `data: ${value}\n\n`;
  const { type } = value as { type?: string };
  return `${type === undefined ? "" : `event: ${type}\n`}data: ${JSON.stringify(value)}\n\n`;
}

/** What `promise` gives, or null after `seconds`. */
async function within<T>(promise: Promise<T>, seconds: number): Promise<T | null> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<null>((resolve) => timer = setTimeout(resolve, seconds * 1000, null));
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}
