/**
 * A pause in which signals (Ctrl-C) and lost workers are heard, where work is done in this thread. Deno's loop polls
 * signals only when it waits for something: after setImmediate alone it hears one some sixteen turns later, which was
 * minutes with a real model, while a timer makes it wait. Timers cost a millisecond or two, so they are used at most every 50.
 * @module
 */
import { setImmediate, setTimeout } from "node:timers";

/** Milliseconds between two timers. */
const EVERY = 50;

let last = 0;

/**
 * Lets the event loop turn.
 * @param every milliseconds since the last timers after which to use them again
 */
export async function turn(every = EVERY): Promise<void> {
  if (performance.now() - last < every) return await new Promise<void>((resolve) => void setImmediate(resolve));
  // The first wait receives the signal, the second runs its listener.
  for (let i = 0; i < 2; i++) await new Promise<void>((resolve) => void setTimeout(resolve, 1));
  last = performance.now();
}
