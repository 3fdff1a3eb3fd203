/**
 * A pause in which signals (Ctrl-C), sockets and other threads are heard, where work is done in this thread. Deno's loop looks
 * for them only when it waits for something: after setImmediate alone it heard a signal some sixteen turns later, which was
 * minutes with a real model. A timer makes it wait, and costs 2.4 ms; so does work of another thread, for 0.3 ms
 * (bench/between_steps.ts), unless that is done at once, as now and then on a busy machine: then the next turn hears.
 * @module
 */
import { setImmediate } from "node:timers";

/** Milliseconds between two waits. */
const EVERY = 50;
const BYTE = new Uint8Array(1);

let last = 0;

/** Lets the event loop turn. */
export async function turn(): Promise<void> {
  if (performance.now() - last >= EVERY) {
    // The shortest work of another thread that every runtime has, and that needs no permission.
    await crypto.subtle.digest("SHA-256", BYTE);
    last = performance.now();
  }
  await new Promise<void>((resolve) => void setImmediate(resolve));
}
