/* tslint:disable */
/* eslint-disable */
export const memory: WebAssembly.Memory;
export const quantize: (a: number, b: number, c: number, d: number, e: number, f: number) => number;
export const reserve: (a: number) => number;
export const __wbindgen_externrefs: WebAssembly.Table;
export const __wbindgen_start: () => void;
