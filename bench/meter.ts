/** A backend that keeps book: calls, time and floating-point operations by name; products are named by their shape. @module */
import process from "node:process";
import type { Backend } from "../src/core/backend.ts";
import { cols, rowsOf, type Tensor } from "../src/core/tensor.ts";

/** What one kind of call added up to. */
export interface Entry {
  calls: number;
  ms: number;
  flops: number;
}

/** The middle one; of an even number the higher of two. */
export const median = (x: readonly number[]): number => x.toSorted((a, b) => a - b)[x.length >> 1];

/** Milliseconds of this process's CPU, all threads together: what other work on the machine does not add to. */
export function cpuTime(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
}

/** `be`, with every call noted in `book`. @param clock in milliseconds; null: calls and operations only */
export function metered(be: Backend, book: Map<string, Entry>, clock: (() => number) | null): Backend {
  return new Proxy(be, {
    get(target, key) {
      const value = Reflect.get(target, key, target);
      if (typeof value !== "function") return value;
      return (...args: unknown[]) => {
        const start = clock?.() ?? 0, result = value.apply(target, args);
        note(book, String(key), args, clock ? clock() - start : 0);
        return result;
      };
    },
  });
}

function note(book: Map<string, Entry>, op: string, args: unknown[], ms: number): void {
  let name = op, flops = 0;
  if (op === "matmul") {
    const [c, a, b, , o] = args as [Tensor, Tensor, Tensor, unknown, { transA?: boolean; transB?: boolean }];
    const k = o.transA ? rowsOf(a) : cols(a);
    flops = 2 * rowsOf(c) * cols(c) * k;
    name = `matmul ${rowsOf(c)}x${cols(c)}x${k} ${o.transA ? "T" : "N"}${o.transB ? "T" : "N"} ${b.dtype}`;
  }
  const entry = book.get(name) ?? { calls: 0, ms: 0, flops: 0 };
  entry.calls++;
  entry.ms += ms;
  entry.flops += flops;
  book.set(name, entry);
}

/** Floating-point operations of all products. */
export function totalFlops(book: ReadonlyMap<string, Entry>): number {
  return [...book.values()].reduce((s, e) => s + e.flops, 0);
}

/** Prints the book, the longest first. */
export function printBook(book: ReadonlyMap<string, Entry>, lines = 30): void {
  const total = [...book.values()].reduce((s, e) => s + e.ms, 0);
  for (const [name, e] of [...book].sort((a, b) => b[1].ms - a[1].ms).slice(0, lines)) {
    const cells = [name.padEnd(36), String(e.calls).padStart(6), `${e.ms.toFixed(1)} ms`.padStart(12)];
    const rate = e.flops ? `  ${(e.flops / e.ms / 1e6).toFixed(1)} GFLOP/s` : "";
    console.log(`${cells.join("")}${`${(100 * e.ms / total).toFixed(1)} %`.padStart(9)}${rate}`);
  }
}
