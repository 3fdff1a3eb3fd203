/** Node's FFI (node:ffi, 26.1 and later, marked experimental there) behind `openLibrary`. @module */
import type { CType } from "./abi_base.ts";
import type { Functions, Library, Table } from "./functions.ts";

/** The part of node:ffi that is used. */
interface NodeFfi {
  dlopen(path: string, symbols: Record<string, { arguments: string[]; return: string }>): {
    lib: { close(): void };
    functions: unknown;
  };
}

/** Our words for a C type in Node's. */
export const TYPES: Readonly<Record<CType, string>> = { u32: "uint32", i32: "int32", buf: "buffer" };

/** @throws {Error} when the file or a function is missing */
export async function open<T extends Table>(path: string, table: T): Promise<Library<T>> {
  // A variable, because neither Deno nor Bun knows this module and both read literal imports ahead of time.
  const name = "node:ffi";
  const { dlopen } = (await import(name)) as NodeFfi;
  const symbols = Object.fromEntries(
    Object.entries(table).map(([k, s]) => [k, { arguments: s.args.map((a) => TYPES[a]), return: TYPES[s.ret] }]),
  );
  const { lib, functions } = dlopen(path, symbols);
  return { fn: functions as Functions<T>, close: () => lib.close() };
}
