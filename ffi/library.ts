/**
 * Opens a shared library in whichever runtime this is. One table of signatures serves Deno, Bun and Node 26; pointers
 * are typed arrays, whose memory no collector moves or frees during a call.
 * @module
 */
import type { Library, Table } from "./functions.ts";

/** Where this program runs. */
export type Runtime = "deno" | "bun" | "node" | "other";

/** The runtime, by what is there and not by what it calls itself; node only where `node:ffi` exists (26 and later). */
export function runtime(): Runtime {
  const g = globalThis as { Bun?: unknown; Deno?: { dlopen?: unknown }; process?: { versions?: { node?: string } } };
  if (g.Bun !== undefined) return "bun";
  if (typeof g.Deno?.dlopen === "function") return "deno";
  return parseInt(g.process?.versions?.node ?? "0") >= 26 ? "node" : "other";
}

/**
 * Opens the library at `path` with the functions of `table`; all must be there.
 * @throws {Error} the runtime's own, when the file or a function is missing or FFI is not allowed
 */
export async function openLibrary<T extends Table>(path: string, table: T): Promise<Library<T>> {
  switch (runtime()) {
    case "deno":
      return (await import("./open_deno.ts")).open(path, table);
    case "bun":
      return await (await import("./open_bun.ts")).open(path, table);
    case "node":
      return await (await import("./open_node.ts")).open(path, table);
    default:
      throw new Error("this runtime has no FFI; use Deno, Bun, or Node 26 or later");
  }
}
