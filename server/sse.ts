/** Server-sent events: one JSON value an event, a comment when there has been nothing to say for long. @module */
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
        const { value } = result;
        out.enqueue(utf8.encode(`data: ${typeof value === "string" ? value : JSON.stringify(value)}\n\n`));
      } catch (e) {
        if (left) return;
        out.enqueue(utf8.encode(`data: ${JSON.stringify(toApiError(e).body())}\n\n`));
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
