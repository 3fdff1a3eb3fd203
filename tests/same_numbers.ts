/**
 * Lists of numbers compared in one loop: Vitest's own walk takes 7 microseconds an element of a typed array (17 on Bun), a
 * third of the suite's time. Only what is equal is decided here; what differs is left to Vitest, which says where.
 */
import { expect } from "vitest";

/** True for two lists of one kind that hold the same numbers (NaN is NaN, 0 is not -0); undefined: not for this to say. */
export function sameNumbers(a: unknown, b: unknown): true | undefined {
  const typed = ArrayBuffer.isView(a) && !(a instanceof DataView);
  if (!(typed || Array.isArray(a)) || a.constructor !== (b as unknown[] | null | undefined)?.constructor) {
    return undefined;
  }
  const x = a as ArrayLike<unknown>, y = b as ArrayLike<unknown>;
  if (x.length !== y.length) return undefined;
  for (let i = 0; i < x.length; i++) if (typeof x[i] !== "number" || !Object.is(x[i], y[i])) return undefined;
  return true;
}

expect.addEqualityTesters([sameNumbers]);
