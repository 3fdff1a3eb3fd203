/**
 * Writes the AssemblyScript source of the GEMM's innermost loops, which differ between engines: V8 fuses relaxed_madd and
 * likes 4 rows by 8 columns, JavaScriptCore does not fuse and likes 2 by 16 (bench/gemm.ts). A tile of C is kept in
 * registers; rows of A are read in place, four k at a time, and columns of B from a packed panel.
 * @module
 */

/** One of the two kernels. */
export interface Variant {
  readonly name: "fma" | "mul";
  /** Rows of the register tile. */
  readonly rows: number;
  /** Vectors of four columns of the register tile. */
  readonly vectors: number;
  /** Whether relaxed_madd (fused in hardware) or mul and add. */
  readonly fused: boolean;
}

/** What build.ts compiles. */
export const VARIANTS: readonly Variant[] = [
  { name: "fma", rows: 4, vectors: 2, fused: true },
  { name: "mul", rows: 2, vectors: 4, fused: false },
];

const range = (n: number): number[] => Array.from({ length: n }, (_, i) => i);

/** c[i][j] += lane `u` of a[i] · b[j] for the whole tile. */
function products({ rows, vectors }: Variant, u: number, lane: (i: number) => string, indent: string): string[] {
  const nr = 4 * vectors, out: string[] = [];
  for (const j of range(vectors)) out.push(`${indent}const b${j}_${u} = v128.load(pb, ${(u * nr + 4 * j) * 4});`);
  for (const i of range(rows)) {
    out.push(`${indent}const s${i}_${u} = ${lane(i)};`);
    for (const j of range(vectors)) out.push(`${indent}c${i}_${j} = madd(s${i}_${u}, b${j}_${u}, c${i}_${j});`);
  }
  return out;
}

/** Ends a micro-kernel: c = alpha · tile (+ c). */
function store({ rows, vectors }: Variant): string[] {
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

/** A kernel over rows of A in place. Rows after `last` repeat it, so that nothing outside A is read. */
function overRows(v: Variant): string {
  const { rows, vectors } = v, nr = 4 * vectors;
  const o = [
    `/** c[${rows},${nr}] = alpha · Σ_k a_i[k] · b[k,:] (+ c); b is a packed panel. */`,
    "export function tileRows(",
    "  k: i32, a0: usize, lda: usize, last: i32, pb: usize, c: usize, ldc: usize, alpha: f32, add: bool,",
    "): void {",
    ...range(rows).slice(1).map((i) => `  let a${i} = a0 + <usize>min(${i}, last) * lda;`),
  ];
  for (const i of range(rows)) for (const j of range(vectors)) o.push(`  let c${i}_${j} = f32x4.splat(0);`);
  o.push("  for (; k >= 4; k -= 4) {");
  for (const i of range(rows)) o.push(`    const v${i} = v128.load(a${i});`);
  for (const u of range(4)) {
    o.push(...products(v, u, (i) => `v128.shuffle<f32>(v${i}, v${i}, ${u}, ${u}, ${u}, ${u})`, "    "));
  }
  o.push(`    ${range(rows).map((i) => `a${i} += 16;`).join(" ")} pb += ${16 * nr};`, "  }", "  for (; k > 0; --k) {");
  o.push(...products(v, 0, (i) => `v128.load_splat<f32>(a${i})`, "    "));
  o.push(`    ${range(rows).map((i) => `a${i} += 4;`).join(" ")} pb += ${4 * nr};`, "  }", ...store(v), "}");
  return o.join("\n");
}

/** A kernel over A packed in panels of `rows` at each k, for a transposed A. */
function overPanel(v: Variant): string {
  const { rows, vectors } = v, nr = 4 * vectors;
  const o = [
    `/** c[${rows},${nr}] = alpha · Σ_k a[k,i] · b[k,:] (+ c); both are packed panels. */`,
    "export function tilePanel(k: i32, pa: usize, pb: usize, c: usize, ldc: usize, alpha: f32, add: bool): void {",
  ];
  for (const i of range(rows)) for (const j of range(vectors)) o.push(`  let c${i}_${j} = f32x4.splat(0);`);
  o.push("  for (; k > 0; --k) {");
  if (rows === 4) {
    o.push("    const v = v128.load(pa);");
    o.push(...products(v, 0, (i) => `v128.shuffle<f32>(v, v, ${i}, ${i}, ${i}, ${i})`, "    "));
  } else o.push(...products(v, 0, (i) => `v128.load_splat<f32>(pa, ${4 * i})`, "    "));
  o.push(`    pa += ${4 * rows}; pb += ${4 * nr};`, "  }", ...store(v), "}");
  return o.join("\n");
}

/** The module `./micro` of a variant. */
export function microKernel(v: Variant): string {
  return [
    "// Written by ../micro_kernel.ts.",
    `export const MR: i32 = ${v.rows};`,
    `export const NR: i32 = ${4 * v.vectors};`,
    "// @ts-ignore: decorator",
    "@inline",
    "/** a · b + c */",
    "export function madd(a: v128, b: v128, c: v128): v128 {",
    v.fused ? "  return f32x4.relaxed_madd(a, b, c);" : "  return f32x4.add(f32x4.mul(a, b), c);",
    "}",
    overRows(v),
    overPanel(v),
    "",
  ].join("\n");
}
