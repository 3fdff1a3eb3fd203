/**
 * The rest of the C ABI: the functions that are no operation, their structs, and what a call answers.
 * @module
 */
import { type Arg, args, hashText } from "./abi.ts";

/** Scalars by value, and "buf": a pointer to bytes of the caller, valid during the call only. */
export type CType = "u32" | "i32" | "buf";

/** Signature of one C function. */
export interface Signature {
  readonly args: readonly CType[];
  readonly ret: CType;
}

/** Everything that is not an operation; header.ts says in words what each does. */
export const BASE = {
  us_abi_version: { args: [], ret: "u32" },
  us_ops: { args: ["buf", "u32"], ret: "u32" },
  us_last_error: { args: ["buf", "u32"], ret: "u32" },
  us_device_probe: { args: [], ret: "i32" },
  us_device_count: { args: [], ret: "u32" },
  us_device_name: { args: ["u32", "buf", "u32"], ret: "u32" },
  us_open: { args: ["u32"], ret: "i32" },
  us_close: { args: [], ret: "i32" },
  us_act_dtype: { args: [], ret: "u32" },
  us_supports: { args: ["u32", "u32"], ret: "u32" },
  us_alloc: { args: ["buf"], ret: "i32" },
  us_free: { args: ["u32"], ret: "i32" },
  us_upload: { args: ["buf", "buf"], ret: "i32" },
  us_download: { args: ["buf", "buf"], ret: "i32" },
  us_fill: { args: ["buf"], ret: "i32" },
  us_fence: { args: [], ret: "i32" },
  us_memory: { args: ["buf"], ret: "i32" },
  us_graph_begin: { args: [], ret: "i32" },
  us_graph_end: { args: ["buf"], ret: "i32" },
  us_graph_launch: { args: ["u32"], ret: "i32" },
  us_graph_free: { args: ["u32"], ret: "i32" },
} as const satisfies Record<string, Signature>;

/** Fields of the base functions' structs; those marked "out" are written by the library. */
export const STRUCTS: Readonly<Record<string, readonly Arg[]>> = {
  us_alloc: args("bytes_lo: u32", "bytes_hi: u32", "handle: u32, out"),
  us_upload: args("handle: u32", "off_lo: u32", "off_hi: u32", "bytes_lo: u32", "bytes_hi: u32"),
  us_download: args("handle: u32", "off_lo: u32", "off_hi: u32", "bytes_lo: u32", "bytes_hi: u32"),
  us_fill: args("dst: tensor, dense", "value: f32, for float types", "integer: i32, for i32 and u8"),
  us_memory: args(
    "active_lo: u32, out",
    "active_hi: u32, out",
    "peak_lo: u32, out",
    "peak_hi: u32, out",
    "limit_lo: u32, out; 0 = unknown",
    "limit_hi: u32, out",
  ),
  us_graph_end: args("graph: u32, out"),
};

/**
 * Functions that a library may have and need not: `us_ops` names those it has after the operations, so that a library
 * without them, or built before they were, opens all the same.
 */
export const EXTRAS = {
  us_map: { args: ["buf", "buf"], ret: "i32" },
  us_read: { args: ["buf", "buf"], ret: "i32" },
  us_cache: { args: ["buf"], ret: "i32" },
  us_peak_reset: { args: [], ret: "i32" },
  us_forget: { args: ["buf"], ret: "i32" },
  us_renorm: { args: ["buf"], ret: "i32" },
} as const satisfies Record<string, Signature>;

/** Fields of their structs. */
export const EXTRA_STRUCTS: Readonly<Record<string, readonly Arg[]>> = {
  us_map: args(
    "off_lo: u32",
    "off_hi: u32",
    "bytes_lo: u32",
    "bytes_hi: u32",
    "handle: u32, out",
    "skip: u32, out; where the file's byte off lies in the handle's memory",
  ),
  us_read: args(
    "handle: u32",
    "off_lo: u32, in the handle's memory",
    "off_hi: u32",
    "file_lo: u32, in the file",
    "file_hi: u32",
    "bytes_lo: u32",
    "bytes_hi: u32",
  ),
  us_cache: args(
    "keep_lo: u32, bytes to keep at most; all ones: give nothing back",
    "keep_hi: u32",
    "cached_lo: u32, out",
    "cached_hi: u32, out",
  ),
  us_forget: args("x: tensor"),
  us_renorm: args(
    "out: tensor, = [N,D]",
    "x: tensor, [N,D]",
    "stat: tensor, f32 [N,2] as us_norm gave it",
    "w: tensor, [D]",
    "b: tensor?, [D]",
    "plus_one: u32, 1: the weight is 1 + w",
  ),
};

/** `symbol:hash`, one extra of what `us_ops` answers. */
export function extraEntry(name: keyof typeof EXTRAS): string {
  const fields = (EXTRA_STRUCTS[name] ?? []).map((a) => `${a.kind} ${a.name}`).join(",");
  return `${name}:${hashText(`${name}(${fields})`)}`;
}

/** What a call answers. The numbers are the C ABI's. */
export const STATUS = {
  ok: 0,
  unsupported: 1,
  invalid: 2,
  stale: 3,
  memory: 4,
  device: 5,
  noDevice: 6,
  busy: 7,
} as const;
