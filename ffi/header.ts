/**
 * Writes ffi/unsloth.h, unsloth_ops.h and unsloth_extras.h from the tables of abi.ts: `deno run -A ffi/header.ts` after a change there.
 * @module
 */
import { writeFileSync } from "node:fs";
import { ABI_VERSION, type Arg, OP_NAMES, opEntry, OPS, symbolOf } from "./abi.ts";
import { BASE, type CType, EXTRA_STRUCTS, extraEntry, EXTRAS, type Signature, STATUS, STRUCTS } from "./abi_base.ts";
import { DTYPES } from "../src/core/dtype.ts";

const HEAD = `// The C ABI that every native backend exports. Generated from ffi/abi.ts by ffi/header.ts: do not edit.
//
// Rules for a library
// - An operation is int32_t us_<op>(const us_<op>_args*): it checks, launches, and returns without waiting. 0 is success;
//   otherwise us_last_error has the sentence: action first, then state, wish and way out, no period. Nothing aborts.
// - Structs hold 4-byte words only. A size that may pass 32 bits is two words, low first. Pointers ("buf") are the
//   caller's memory, valid during the call only; a text is UTF-8, cut to cap-1 bytes and NUL-terminated, and the number
//   returned is its whole length.
// - Device memory is a u32 handle into the library's own table, never a pointer; 0 is "none". A freed handle must answer
//   US_STALE, so its slot carries a generation. Offset and bytes of every tensor are checked against the allocation.
// - The adapter has checked shapes and dtypes against each other; the library checks that it has a kernel for them and
//   answers US_UNSUPPORTED otherwise. An operation it lacks is exported with US_LACKS(us_<op>).
// - Outputs are written (=) unless marked +=; "in place" and "may be" name the only overlaps. No operation allocates,
//   reads device memory on the host, or takes what changes between steps as a scalar: a captured step replays.
// - Results do not depend on the launch: no float atomics where the order of sums would show.
// - Calls come from any thread and the library serialises them; us_last_error is the calling thread's.
#ifndef UNSLOTH_H
#define UNSLOTH_H
#include <stdint.h>
#include <stddef.h>
#if defined(_WIN32)
#define US_EXPORT __declspec(dllexport)
#else
#define US_EXPORT __attribute__((visibility("default")))
#endif
#ifdef __cplusplus
#define US_API extern "C" US_EXPORT
#else
#define US_API US_EXPORT
#endif
`;

/** What each base function does, in the header's words. */
const WORDS: Readonly<Record<keyof typeof BASE, string>> = {
  us_abi_version: "US_ABI_VERSION of the header that the library was built with.",
  us_ops: "US_OP_LIST of the header that the library was built with, as a text.",
  us_last_error: "The sentence of this thread's last failed call.",
  us_device_probe:
    "US_OK when a device of this kind can be used; otherwise US_NO_DEVICE and a sentence with the reason.",
  us_device_count: "Devices of this kind; 0 when there is none.",
  us_device_name: 'One line on a device, "NVIDIA H200, 139 GiB, driver 580".',
  us_open:
    "Takes the device. Opens are counted: a second one of the same device shares the table of handles; another device\n// while one is open answers US_BUSY.",
  us_close: "Undoes one us_open; the last frees all memory and graphs.",
  us_act_dtype: "The type activations are best stored in (a US_ dtype).",
  us_supports: "1 when dtype may be used as: US_AS_ACTIVATION, or US_AS_WEIGHT (matmul's b, embed's table, copy's x).",
  us_alloc: "Memory with undefined contents, aligned to 256 bytes. US_MEMORY when there is not as much left.",
  us_free: "Gives memory back once everything launched has finished with it.",
  us_upload: "Copies bytes from src to handle + off; returns when src may be reused.",
  us_download: "Waits for what was launched, then copies bytes from handle + off to dst.",
  us_fill: "Every element = value.",
  us_fence: "Waits for what was launched; reports what failed meanwhile.",
  us_memory: "Bytes in use, most ever in use, and what the device has.",
  us_graph_begin:
    "Starts recording: calls until us_graph_end are not run. US_UNSUPPORTED when the device has no graphs.",
  us_graph_end: "Ends recording; graph is a number for the two calls below.",
  us_graph_launch: "Runs what was recorded, without waiting.",
  us_graph_free: "Forgets a recording.",
};

/** What each extra does. */
const EXTRA_WORDS: Readonly<Record<keyof typeof EXTRAS, string>> = {
  us_map:
    "Bytes off.. of the file at path (UTF-8, NUL-terminated) as device memory, read only, without a copy: a handle like\n// any other, which no operation, upload or fill may write to. It holds the file's pages until it is freed; the file must\n// not change meanwhile. US_UNSUPPORTED when the device cannot use these pages: upload them instead.",
  us_read:
    "Bytes of the file at path (UTF-8, NUL-terminated) to device memory, read by several threads; what is launched after\n// the call sees them.",
  us_cache: "Gives cached memory (freed, and kept for the next us_alloc) back to the system; cached is what is left.",
  us_forget:
    "What x holds is read by nobody any more but by calls made before: the library need not write it, if it has not yet.",
  us_renorm: "us_norm's out once more, from the statistics it gave.",
  us_peak_reset: "From now on us_memory's peak counts from what is in use now.",
};

const C_TYPES: Readonly<Record<CType, string>> = { u32: "uint32_t", i32: "int32_t", buf: "void*" };

function struct(name: string, list: readonly Arg[]): string {
  const type = (a: Arg): string =>
    a.kind.startsWith("tensor")
      ? "us_tensor"
      : a.kind === "f32"
      ? "float"
      : `${a.kind.replace("u32", "uint32").replace("i32", "int32")}_t`;
  const fields = list.map((a) => {
    const note = [a.kind === "tensor?" ? "or none" : "", a.note].filter((s) => s).join("; ");
    return `  ${type(a)} ${a.name};${note ? ` // ${note}` : ""}`;
  });
  return `typedef struct {\n${fields.join("\n")}\n} ${name}_args;\n`;
}

/** A base function's prototype: structs by name, texts and bytes as pointers. */
function prototype(name: string, { args, ret }: Signature, words: string): string {
  const own = name in STRUCTS || name in EXTRA_STRUCTS;
  const list = args.map((t, i) => {
    if (own && i === 0) return `${name}_args*`;
    if (name === "us_upload") return "const void* src";
    if (name === "us_download") return "void* dst";
    if (name === "us_map" || name === "us_read") return "const char* path";
    if (t === "buf") return "char* out";
    if (args[i - 1] === "buf") return "uint32_t cap";
    const nouns: Record<string, string> = {
      us_free: "handle",
      us_graph_launch: "graph",
      us_graph_free: "graph",
      us_supports: i ? "as" : "dtype",
    };
    return `uint32_t ${nouns[name] ?? "device"}`;
  });
  return `// ${words}\nUS_API ${C_TYPES[ret]} ${name}(${list.join(", ") || "void"});\n`;
}

/** unsloth.h: rules, types, and everything that is not an operation. */
export function writeHeader(): string {
  const upper = (s: string): string => s.replace(/[A-Z]/g, (c) => `_${c}`).toUpperCase();
  const statuses = Object.entries(STATUS).map(([k, v]) => `US_${upper(k)} = ${v}`).join(", ");
  const dtypes = Object.entries(DTYPES).map(([k, v]) => `US_${upper(k)} = ${v.code}`);
  const sizes = Object.entries(DTYPES).map(([k, v]) => `    case US_${upper(k)}: return n / ${v.block} * ${v.bytes};`);
  const base = (Object.keys(BASE) as (keyof typeof BASE)[]).map((name) => {
    return (STRUCTS[name] ? struct(name, STRUCTS[name]) : "") + prototype(name, BASE[name], WORDS[name]);
  });
  return `${HEAD}
#define US_ABI_VERSION ${ABI_VERSION}u

enum { ${statuses} };
enum {
  ${dtypes.join(", ").replace(/(.{90}[^,]*,) /g, "$1\n  ")}
};
enum { US_SILU = 0, US_GELU = 1, US_GELU_TANH = 2 };
enum { US_RMS = 0, US_LAYER = 1 };
enum { US_AS_ACTIVATION = 0, US_AS_WEIGHT = 1 };

// Contiguous, row-major; blocks run along the last axis. Unused sizes are 1; handle 0 is an absent tensor.
typedef struct {
  uint32_t handle, dtype, off_lo, off_hi, ndim, shape[4];
} us_tensor;

static inline uint64_t us_offset(const us_tensor* t) { return (uint64_t)t->off_hi << 32 | t->off_lo; }
static inline uint64_t us_numel(const us_tensor* t) {
  return (uint64_t)t->shape[0] * t->shape[1] * t->shape[2] * t->shape[3];
}
static inline uint32_t us_cols(const us_tensor* t) { return t->ndim ? t->shape[t->ndim - 1] : 1; }
static inline uint64_t us_rows(const us_tensor* t) { return us_cols(t) ? us_numel(t) / us_cols(t) : 0; }
// Bytes of n elements; 0 for an unknown dtype.
static inline uint64_t us_bytes(uint32_t dtype, uint64_t n) {
  switch (dtype) {
${sizes.join("\n")}
    default: return 0;
  }
}

// ---- library, device, memory, graphs ----
${base.join("\n")}
#include "unsloth_ops.h"
#endif
`;
}

/** unsloth_ops.h: a struct and a function for each operation. */
export function writeOpsHeader(): string {
  const ops = OP_NAMES.map((op) => {
    const name = symbolOf(op);
    return `${struct(name, OPS[op].args)}US_API int32_t ${name}(const ${name}_args*);\n`;
  });
  return `// The operations; core/backend.ts says what each computes. Generated from ffi/abi.ts by ffi/header.ts: do not edit.
#ifndef UNSLOTH_OPS_H
#define UNSLOTH_OPS_H
#include "unsloth.h"

#define US_OP_LIST \\
${OP_NAMES.map((op, i) => `  "${i ? " " : ""}${opEntry(op)}"`).join(" \\\n")}

// Exports an operation that this library does not have. us_lacks is the library's own: it keeps a sentence for
// us_last_error that names the symbol, and returns US_UNSUPPORTED.
int32_t us_lacks(const char* symbol);
#define US_LACKS(name) \\
  US_API int32_t name(const name##_args* a) { (void)a; return us_lacks(#name); }

${ops.join("\n")}#endif
`;
}

/** unsloth_extras.h: what a library may have besides. */
export function writeExtrasHeader(): string {
  const names = Object.keys(EXTRAS) as (keyof typeof EXTRAS)[];
  const entries = names.map((name) => `#define US_HAS_${name.slice(3).toUpperCase()} " ${extraEntry(name)}"`);
  const extras = names.map((name) => {
    const fields = EXTRA_STRUCTS[name];
    return (fields ? struct(name, fields) : "") + prototype(name, EXTRAS[name], EXTRA_WORDS[name]);
  });
  return `// What a library may have besides unsloth.h. One that has some answers us_ops with US_OP_LIST followed by their
// entries: US_OP_LIST US_HAS_MAP, say. Generated from ffi/abi_base.ts by ffi/header.ts: do not edit.
#ifndef UNSLOTH_EXTRAS_H
#define UNSLOTH_EXTRAS_H
#include "unsloth.h"

${entries.join("\n")}

${extras.join("\n")}#endif
`;
}

if (import.meta.main) {
  writeFileSync(new URL("./unsloth.h", import.meta.url), writeHeader());
  writeFileSync(new URL("./unsloth_ops.h", import.meta.url), writeOpsHeader());
  writeFileSync(new URL("./unsloth_extras.h", import.meta.url), writeExtrasHeader());
}
