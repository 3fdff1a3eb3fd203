/* tslint:disable */
/* eslint-disable */

/**
 * Encodes `rows` rows of `cols` floats at `x` into the bytes at `out`; `importance` is null, or the address of `cols`
 * weights. Returns the number of bytes written; 0 for a format or a row length there is none of.
 *
 * # Safety
 * The addresses lie in memory that `reserve` gave, with room for what they stand for.
 */
export function quantize(code: number, rows: number, cols: number, x: number, importance: number, out: number): number;

/**
 * The address of at least `bytes` bytes, the same memory each time; what it held may be gone.
 */
export function reserve(bytes: number): number;

export type InitInput = RequestInfo | URL | Response | BufferSource | WebAssembly.Module;

export interface InitOutput {
    readonly memory: WebAssembly.Memory;
    readonly quantize: (a: number, b: number, c: number, d: number, e: number, f: number) => number;
    readonly reserve: (a: number) => number;
    readonly __wbindgen_externrefs: WebAssembly.Table;
    readonly __wbindgen_start: () => void;
}

export type SyncInitInput = BufferSource | WebAssembly.Module;

/**
 * Instantiates the given `module`, which can either be bytes or
 * a precompiled `WebAssembly.Module`.
 *
 * @param {{ module: SyncInitInput }} module - Passing `SyncInitInput` directly is deprecated.
 *
 * @returns {InitOutput}
 */
export function initSync(module: { module: SyncInitInput } | SyncInitInput): InitOutput;

/**
 * If `module_or_path` is {RequestInfo} or {URL}, makes a request and
 * for everything else, calls `WebAssembly.instantiate` directly.
 *
 * @param {{ module_or_path: InitInput | Promise<InitInput> }} module_or_path - Passing `InitInput` directly is deprecated.
 *
 * @returns {Promise<InitOutput>}
 */
export default function __wbg_init (module_or_path?: { module_or_path: InitInput | Promise<InitInput> } | InitInput | Promise<InitInput>): Promise<InitOutput>;
