/** The ABI's three faces (header, declarations, TypeScript) held together. */
import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { type Arg, layoutOf, OP_NAMES, OPS, symbolOf } from "../../ffi/abi.ts";
import { BASE, EXTRA_STRUCTS, EXTRAS, type Signature, STRUCTS } from "../../ffi/abi_base.ts";
import { writeExtrasHeader, writeHeader, writeOpsHeader } from "../../ffi/header.ts";
import { TYPES as BUN } from "../../ffi/open_bun.ts";
import { TYPES as DENO } from "../../ffi/open_deno.ts";
import { TYPES as NODE } from "../../ffi/open_node.ts";
import { check } from "../../src/core/check.ts";
import { DTYPES } from "../../src/core/dtype.ts";
import { hasGcc, runProgram } from "./build.ts";

const read = (name: string): string => readFileSync(new URL(`../../ffi/${name}`, import.meta.url), "utf8");
const header = read("unsloth.h"), ops = read("unsloth_ops.h"), extras = read("unsloth_extras.h");
const structs: [string, readonly Arg[]][] = [
  ...Object.entries(STRUCTS),
  ...Object.entries(EXTRA_STRUCTS),
  ...OP_NAMES.map((op): [string, readonly Arg[]] => [symbolOf(op), OPS[op].args]),
];

test("the committed headers are those that the tables give", () => {
  expect(header).toBe(writeHeader());
  expect(ops).toBe(writeOpsHeader());
  expect(extras).toBe(writeExtrasHeader());
});

test("the table has every operation that backends check, and no other", () => {
  expect([...OP_NAMES].sort()).toEqual(Object.keys(check).sort());
});

test("the header declares every function with as many arguments as the declarations have", () => {
  const found = new Map<string, number>();
  for (const [, name, list] of (header + ops + extras).matchAll(/^US_API \w+ (us_\w+)\((.*)\);$/gm)) {
    found.set(name, list === "void" ? 0 : list.split(",").length);
  }
  const wanted = new Map<string, number>(
    Object.entries({ ...BASE, ...EXTRAS } as Record<string, Signature>).map(([k, s]) => [k, s.args.length]),
  );
  for (const op of OP_NAMES) wanted.set(symbolOf(op), 1);
  expect([...found].sort()).toEqual([...wanted].sort());
});

test("each C type has a name in each runtime, and different types have different names", () => {
  for (const types of [DENO, BUN, NODE]) {
    expect(Object.keys(types).sort()).toEqual(["buf", "i32", "u32"]);
    expect(new Set(Object.values(types)).size).toBe(3);
  }
});

test("no struct is larger than the packer's block", () => {
  for (const [name, list] of structs) expect(layoutOf(list).words, name).toBeLessThanOrEqual(256);
});

describe.skipIf(!hasGcc)("a C compiler (skipped without gcc)", () => {
  test("lays every struct out as the tables say", () => {
    const lines = structs.flatMap(([name, list]) => [
      ...list.map((a) => `printf("${name}.${a.name} %zu\\n", offsetof(${name}_args, ${a.name}) / 4);`),
      `printf("${name} %zu\\n", sizeof(${name}_args) / 4);`,
    ]);
    const wanted = structs.flatMap(([name, list]) => {
      const { at, words } = layoutOf(list);
      return [...list.map((a, i) => `${name}.${a.name} ${at[i]}`), `${name} ${words}`];
    });
    const source = `#include "unsloth_extras.h"\n#include <stdio.h>\nint main(void) { ${lines.join("\n")} return 0; }`;
    expect(runProgram("layout.c", source).trim().split("\n")).toEqual(wanted);
  });

  test("knows every dtype's code and bytes", () => {
    const rows = Object.values(DTYPES);
    const lines = rows.map((d) => `printf("%u\\n", (unsigned)us_bytes(${d.code}, ${d.block * 3}));`).join("\n");
    const out = runProgram(
      "dtypes.c",
      `#include "unsloth.h"\n#include <stdio.h>\nint main(void) { ${lines} return 0; }`,
    );
    expect(out.trim().split("\n").map(Number)).toEqual(rows.map((d) => d.bytes * 3));
  });

  test("accepts the header as C++ too", () => {
    const source = `#include "unsloth_extras.h"\n#include <cstdio>\nint main() { std::printf("%u", US_ABI_VERSION); }`;
    expect(runProgram("header.cc", source)).toMatch(/^\d+$/);
  });
});
