/** Deno's FFI behind `openLibrary`. @module */
import type { CType } from "./abi_base.ts";
import type { Functions, Library, Table } from "./functions.ts";

/** The part of Deno that is used: no Deno types are needed to check this file. */
interface DenoFfi {
  dlopen(path: string, symbols: Record<string, { parameters: string[]; result: string }>): {
    symbols: unknown;
    close(): void;
  };
}

/** Our words for a C type in Deno's. */
export const TYPES: Readonly<Record<CType, string>> = { u32: "u32", i32: "i32", buf: "buffer" };

/** @throws {Error} when the file or a function is missing, or --allow-ffi is not given */
export function open<T extends Table>(path: string, table: T): Library<T> {
  const { Deno } = globalThis as unknown as { Deno: DenoFfi };
  const symbols = Object.fromEntries(
    Object.entries(table).map(([k, s]) => [k, { parameters: s.args.map((a) => TYPES[a]), result: TYPES[s.ret] }]),
  );
  const lib = Deno.dlopen(path, symbols);
  return { fn: lib.symbols as Functions<T>, close: () => lib.close() };
}
