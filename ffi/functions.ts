/** What an opened library looks like in TypeScript: functions typed by the signatures they were asked for. @module */
import type { CType, Signature } from "./abi_base.ts";

/** C functions by name. */
export type Table = Readonly<Record<string, Signature>>;

type In<T extends CType> = T extends "buf" ? ArrayBufferView : number;
type Ins<A extends readonly CType[]> = { [K in keyof A]: In<A[K]> };

/** The opened functions, typed by their signatures. */
export type Functions<T extends Table> = {
  readonly [K in keyof T]: (...args: Ins<T[K]["args"]>) => number;
};

/** An open library. */
export interface Library<T extends Table> {
  readonly fn: Functions<T>;
  close(): void;
}
