/** Bun's FFI behind `openLibrary`. @module */
import type { CType } from "./abi_base.ts";
import type { Functions, Library, Table } from "./functions.ts";

/** The part of bun:ffi that is used. */
interface BunFfi {
  dlopen(
    path: string,
    symbols: Record<string, { args: string[]; returns: string }>,
  ): { symbols: unknown; close(): void };
}

/** Our words for a C type in Bun's; a "ptr" argument takes a typed array. */
export const TYPES: Readonly<Record<CType, string>> = { u32: "u32", i32: "i32", buf: "ptr" };

/** @throws {Error} when the file or a function is missing */
export async function open<T extends Table>(path: string, table: T): Promise<Library<T>> {
  const { dlopen } = (await import("bun:ffi")) as unknown as BunFfi;
  const symbols = Object.fromEntries(
    Object.entries(table).map(([k, s]) => [k, { args: s.args.map((a) => TYPES[a]), returns: TYPES[s.ret] }]),
  );
  const lib = dlopen(path, symbols);
  return { fn: lib.symbols as Functions<T>, close: () => lib.close() };
}
