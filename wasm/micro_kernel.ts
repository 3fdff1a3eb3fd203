/**
 * Writes the AssemblyScript source of the GEMM's innermost loops, which differ between engines: V8 fuses relaxed_madd and
 * likes 4 or 5 rows by 8 columns, JavaScriptCore does not fuse and likes 2 by 16 (bench/gemm.ts). A tile of C is kept
 * in registers; columns of B come from a packed panel, rows of A from where they lie (four k at a time) or from a panel.
 * @module
 */
import { CHUNK, ROWS } from "./panel_kernel.ts";

/** One of the two kernels. */
export interface Variant {
  readonly name: "fma" | "mul";
  /** Rows of the register tile when A is read in place. */
  readonly rows: number;
  /** Rows of the register tile when A is packed too. */
  readonly panelRows: number;
  /** Vectors of four columns of the register tile. */
  readonly vectors: number;
  /** Whether relaxed SIMD is used: relaxed_madd, fused in hardware, and relaxed_swizzle; or mul, add and swizzle. */
  readonly fused: boolean;
}

/** What build.ts compiles. */
export const VARIANTS: readonly Variant[] = [
  { name: "fma", rows: 4, panelRows: 5, vectors: 2, fused: true },
  { name: "mul", rows: 2, panelRows: 2, vectors: 4, fused: false },
];

const range = (n: number): number[] => Array.from({ length: n }, (_, i) => i);

/** c[i][j] += lane `u` of a[i] · b[j] for the whole tile. */
function products(rows: number, vectors: number, u: number, lane: (i: number) => string): string[] {
  const nr = 4 * vectors, out: string[] = [];
  for (const j of range(vectors)) out.push(`    const b${j}_${u} = v128.load(pb, ${(u * nr + 4 * j) * 4});`);
  for (const i of range(rows)) {
    out.push(`    const s${i}_${u} = ${lane(i)};`);
    for (const j of range(vectors)) out.push(`    c${i}_${j} = madd(s${i}_${u}, b${j}_${u}, c${i}_${j});`);
  }
  return out;
}

/** Ends a micro-kernel: c = alpha · tile (+ c). */
function store(rows: number, vectors: number): string[] {
  const out = ["  const f = f32x4.splat(alpha);", "  if (add) {"];
  for (const i of range(rows)) {
    for (const j of range(vectors)) {
      out.push(`    v128.store(c, madd(f, c${i}_${j}, v128.load(c, ${16 * j})), ${16 * j});`);
    }
    if (i < rows - 1) out.push("    c += ldc;");
  }
  out.push("  } else {");
  for (const i of range(rows)) {
    for (const j of range(vectors)) out.push(`    v128.store(c, f32x4.mul(f, c${i}_${j}), ${16 * j});`);
    if (i < rows - 1) out.push("    c += ldc;");
  }
  out.push("  }");
  return out;
}

function zeros(rows: number, vectors: number): string[] {
  return range(rows).flatMap((i) => range(vectors).map((j) => `  let c${i}_${j} = f32x4.splat(0);`));
}

const splat = (v: string, lane: number): string => `v128.shuffle<f32>(${v}, ${v}, ${lane}, ${lane}, ${lane}, ${lane})`;

/**
 * A kernel over rows of A in place. Rows after `last` repeat it; up to 12 bytes after the end of a row are read and
 * not used. Each k is a basic block of its own, because inside one block V8 loads everything first and spills.
 */
function overRows({ rows, vectors }: Variant): string {
  return [
    `/** c[${rows},${4 * vectors}] = alpha · Σ_k a_i[k] · b[k,:] (+ c); b is a packed panel. */`,
    "export function tileRows(",
    "  k: i32, a0: usize, lda: usize, last: i32, pb: usize, c: usize, ldc: usize, alpha: f32, add: bool,",
    "): void {",
    ...range(rows).slice(1).map((i) => `  let a${i} = a0 + <usize>min(${i}, last) * lda;`),
    ...zeros(rows, vectors),
    "  for (;;) {",
    ...range(rows).map((i) => `    const v${i} = v128.load(a${i});`),
    ...range(4).flatMap((u) => [...products(rows, vectors, u, (i) => splat(`v${i}`, u)), "    if (--k === 0) break;"]),
    `    ${range(rows).map((i) => `a${i} += 16;`).join(" ")} pb += ${16 * 4 * vectors};`,
    "  }",
    ...store(rows, vectors),
    "}",
  ].join("\n");
}

/**
 * A kernel over A packed in panels of `panelRows`. Broadcasts come out of one vector load as far as it goes: in engines
 * that check each load's bounds (V8 in Deno) five loads for ten multiply-adds cost less than seven.
 */
function overPanel({ panelRows: rows, vectors }: Variant): string {
  const lane = (u: number, i: number): string =>
    rows >= 4 && i < 4 ? splat(`v${u}`, i) : `v128.load_splat<f32>(pa, ${4 * (rows * u + i)})`;
  return [
    `/** c[${rows},${4 * vectors}] = alpha · Σ_k a[k,i] · b[k,:] (+ c); both are packed panels. */`,
    "export function tilePanel(k: i32, pa: usize, pb: usize, c: usize, ldc: usize, alpha: f32, add: bool): void {",
    ...zeros(rows, vectors),
    "  for (;;) {",
    ...range(4).flatMap((u) => [
      rows >= 4 ? `    const v${u} = v128.load(pa, ${4 * rows * u});` : "",
      ...products(rows, vectors, u, (i) => lane(u, i)),
      "    if (--k === 0) break;",
    ]),
    `    pa += ${16 * rows}; pb += ${64 * vectors};`,
    "  }",
    ...store(rows, vectors),
    "}",
  ].join("\n");
}

/** An inlined function of the variant's instructions. */
function inline(signature: string, body: string): string {
  return `// @ts-ignore: decorator\n@inline\nexport function ${signature} {\n  return ${body};\n}`;
}

/** What panel_kernel.ts's module does for the fused variant; the other one has none. */
function held(v: Variant): string[] {
  const a = "a: usize, lda: usize, last: i32", b = "at: i32, step: i32, chunks: i32, first: i32, end: i32";
  const functions = [
    ["fillPlain", "fillPlain(from: usize, ld: usize, panels: i32, at: i32): void"],
    ["fillTransposed", "fillTransposed(from: usize, ld: usize, chunks: i32, at: i32, step: i32): void"],
    ["multiply", `multiplyPanels(${a}, ${b}, zero: bool, short: bool): void`],
    ["take", "takeTiles(first: i32, end: i32, c: usize, ldc: usize, last: i32, alpha: f32, add: bool): void"],
  ];
  return [
    "/** k of a struct of a panel, rows of its tile. */",
    `export const CHUNK: i32 = ${CHUNK};`,
    `export const ROWS: i32 = ${ROWS};`,
    ...functions.flatMap(([name, signature]) =>
      v.fused
        ? ["// @ts-ignore: decorator", `@external("panels", "${name}")`, `export declare function ${signature};`]
        : [`export function ${signature} {\n  unreachable();\n}`]
    ),
  ];
}

/** The module `./micro` of a variant. */
export function microKernel(v: Variant): string {
  return [
    "// Written by ../micro_kernel.ts.",
    `export const MR: i32 = ${v.rows};`,
    `export const NR: i32 = ${4 * v.vectors};`,
    "/** Rows of a packed panel of A. */",
    `export const PR: i32 = ${v.panelRows};`,
    ...held(v),
    "/** a · b + c */",
    inline(
      "madd(a: v128, b: v128, c: v128): v128",
      v.fused ? "f32x4.relaxed_madd(a, b, c)" : "f32x4.add(f32x4.mul(a, b), c)",
    ),
    "/** Bytes of a by index; an index of 128 gives 0. */",
    inline("swizzle(a: v128, i: v128): v128", v.fused ? "i8x16.relaxed_swizzle(a, i)" : "i8x16.swizzle(a, i)"),
    overRows(v),
    overPanel(v),
    "",
  ].join("\n");
}
