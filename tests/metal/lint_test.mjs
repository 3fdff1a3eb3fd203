/**
 * Snippets that Apple's compiler refuses (or that break a limit): the lint must refuse each; and some it must accept. All in one
 * process: node lint_test.mjs
 */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { lint } from "./sim/lint.mjs";

const SNIPPETS = [
  [
    "as_mix",
    "bad",
    "kernel void k(device float* a [[buffer(0)]]) { threadgroup float s[4]; device float* p = s; p[0] = a[0]; }",
  ],
  [
    "as_arg",
    "bad",
    "void f(device float* p) { p[0] = 1; } kernel void k(device float* a [[buffer(0)]]) { threadgroup float s[4]; f(s); a[0] = 1; }",
  ],
  ["const_write", "bad", "struct A { uint n; }; kernel void k(constant A& a [[buffer(0)]]) { a.n = 1; }"],
  ["noas_ptr", "bad", "kernel void k(device float* a [[buffer(0)]]) { float* p = a; p[0] = 1; }"],
  ["noas_param", "bad", "kernel void k(float* a [[buffer(0)]]) { a[0] = 1; }"],
  [
    "noas_helper",
    "bad",
    "void f(float* p) { p[0] = 1; } kernel void k(device float* a [[buffer(0)]]) { float x[2]; f(x); a[0] = x[0]; }",
  ],
  [
    "noas_ref",
    "bad",
    "template <typename T> void f(T& p) { p = 1; } kernel void k(device float* a [[buffer(0)]]) { float x; f(x); a[0] = x; }",
  ],
  [
    "thread_ptr",
    "ok",
    "void f(thread float* p) { p[0] = 1; } kernel void k(device float* a [[buffer(0)]]) { float x[2]; f(x); a[0] = x[0]; }",
  ],
  [
    "overload_as",
    "ok",
    "float f(device const float* p) { return p[0]; } float f(threadgroup const float* p) { return p[0]; } kernel void k(device float* a [[buffer(0)]]) { threadgroup float s[4]; s[0] = 1; a[0] = f(s) + f(a); }",
  ],
  [
    "mult_is_no_pointer",
    "ok",
    "kernel void k(device float* a [[buffer(0)]], uint t [[thread_position_in_grid]]) { float x = a[0], y = a[1]; float z = x * y; uint w = t & 3u; a[2] = z + (x * y) + w; }",
  ],
  ["double_kw", "bad", "kernel void k(device float* a [[buffer(0)]]) { double x = a[0]; a[0] = x; }"],
  ["literal", "ok", "kernel void k(device float* a [[buffer(0)]]) { a[0] = a[1] * 2.5 + 0.1; }"],
  ["half_literal", "ok", "kernel void k(device half* a [[buffer(0)]]) { a[0] = a[1] * 2.0h; }"],
  [
    "recursion",
    "bad",
    "int f(int n) { return n ? f(n - 1) : 0; } kernel void k(device int* a [[buffer(0)]]) { a[0] = f(a[1]); }",
  ],
  [
    "recursion2",
    "bad",
    "int g(int n); int f(int n) { return n ? g(n - 1) : 0; } int g(int n) { return f(n); } kernel void k(device int* a [[buffer(0)]]) { a[0] = f(a[1]); }",
  ],
  [
    "lambda",
    "bad",
    "kernel void k(device float* a [[buffer(0)]]) { auto f = [](float x) { return x; }; a[0] = f(a[1]); }",
  ],
  [
    "virtual_",
    "bad",
    "struct A { virtual float f() { return 1; } }; kernel void k(device float* a [[buffer(0)]]) { A x; a[0] = x.f(); }",
  ],
  ["new_", "bad", "kernel void k(device float* a [[buffer(0)]]) { thread float* p = new float[4]; a[0] = p[0]; }"],
  ["goto_", "bad", "kernel void k(device float* a [[buffer(0)]]) { goto x; x: a[0] = 1; }"],
  ["erf_", "bad", "kernel void k(device float* a [[buffer(0)]]) { a[0] = erf(a[1]); }"],
  ["std_", "bad", "kernel void k(device float* a [[buffer(0)]]) { a[0] = std::max(a[1], a[2]); }"],
  [
    "include_",
    "bad",
    `#include <math.h>
kernel void k(device float* a [[buffer(0)]]) { a[0] = 1; }`,
  ],
  ["global_var", "bad", "float g = 1; kernel void k(device float* a [[buffer(0)]]) { a[0] = g; }"],
  ["global_static", "bad", "static int g[4]; kernel void k(device int* a [[buffer(0)]]) { a[0] = g[1]; }"],
  [
    "global_const_ok",
    "ok",
    "constant float g[2] = {1, 2}; constant constexpr uint N = 3; kernel void k(device float* a [[buffer(0)]]) { a[0] = g[1] + N; }",
  ],
  [
    "uint4_id",
    "bad",
    "kernel void k(device float* a [[buffer(0)]], uint4 t [[thread_position_in_grid]]) { a[0] = t.x; }",
  ],
  ["int_id", "bad", "kernel void k(device float* a [[buffer(0)]], int t [[thread_position_in_grid]]) { a[0] = t; }"],
  [
    "vec_lane",
    "bad",
    "kernel void k(device float* a [[buffer(0)]], uint2 t [[thread_index_in_simdgroup]]) { a[0] = t.x; }",
  ],
  [
    "mixed_dims",
    "bad",
    "kernel void k(device float* a [[buffer(0)]], uint2 t [[threadgroup_position_in_grid]], uint n [[threads_per_threadgroup]]) { a[0] = t.x + n; }",
  ],
  ["dup_buffer", "bad", "kernel void k(device float* a [[buffer(0)]], device float* b [[buffer(0)]]) { a[0] = b[0]; }"],
  ["buffer31", "bad", "kernel void k(device float* a [[buffer(31)]]) { a[0] = 1; }"],
  ["no_attr", "bad", "kernel void k(device float* a [[buffer(0)]], uint t) { a[0] = t; }"],
  ["by_value", "bad", "kernel void k(device float* a [[buffer(0)]], float s [[buffer(1)]]) { a[0] = s; }"],
  [
    "tg_too_big",
    "bad",
    "kernel void k(device float* a [[buffer(0)]]) { threadgroup float s[8193]; s[0] = 1; a[0] = s[0]; }",
  ],
  [
    "tg_two_too_big",
    "bad",
    "kernel void k(device float* a [[buffer(0)]]) { threadgroup float s[8000]; threadgroup half h[400]; s[0] = 1; h[0] = 1; a[0] = s[0] + h[0]; }",
  ],
  [
    "tg_fits",
    "ok",
    "kernel void k(device float* a [[buffer(0)]]) { threadgroup float s[8192]; s[0] = 1; a[0] = s[0]; }",
  ],
  [
    "tg_in_helper",
    "bad",
    "void f(device float* a) { threadgroup float s[4]; s[0] = 1; a[0] = s[0]; } kernel void k(device float* a [[buffer(0)]]) { f(a); }",
  ],
  ["sgm16", "bad", "kernel void k(device half* a [[buffer(0)]]) { simdgroup_matrix<half, 16, 16> m; a[0] = 0; }"],
  ["sgm_double", "bad", "kernel void k(device float* a [[buffer(0)]]) { simdgroup_matrix<double, 8, 8> m; a[0] = 0; }"],
  [
    "minmax",
    "bad",
    "kernel void k(device float* a [[buffer(0)]], uint t [[thread_position_in_grid]]) { a[0] = max(a[1], 0); }",
  ],
  ["typo", "bad", "kernel void k(device float* a [[buffer(0)]]) { a[0] = simd_summ(a[1]); }"],
  ["undeclared_size", "bad", "kernel void k(device float* a [[buffer(0)]]) { float x[a_n]; a[0] = x[0]; }"],
  ["uninit", "bad", "kernel void k(device float* a [[buffer(0)]]) { float x; a[0] = x; }"],
  [
    "dup_kernel",
    "bad",
    "kernel void k(device float* a [[buffer(0)]]) { a[0] = 1; } kernel void k(device int* a [[buffer(0)]]) { a[0] = 1; }",
  ],
  ["except", "bad", "kernel void k(device float* a [[buffer(0)]]) { try { a[0] = 1; } catch (...) {} }"],
  [
    "swizzle",
    "ok",
    "kernel void k(device float4* a [[buffer(0)]]) { float4 v = float4(a[0].xy, 1.0f, 2.0f); v.zw = v.xy; a[1] = v.wzyx * 2.0f; a[2] = float4(3.0f); a[3].xyz = float3(half3(1.0h, 2.0h, 3.0h)); }",
  ],
  [
    "atomics",
    "ok",
    "kernel void k(device atomic_float* a [[buffer(0)]], device atomic_uint* n [[buffer(1)]], uint t [[thread_position_in_grid]]) { atomic_fetch_add_explicit(a, 1.0f, memory_order_relaxed); atomic_fetch_max_explicit(n, t, memory_order_relaxed); }",
  ],
  ["bfloat_implicit", "bad", "kernel void k(device bfloat* a [[buffer(0)]]) { a[0] = float(a[1]) * 2.0f; }"],
  [
    "bfloat_select",
    "bad",
    'template <typename T> kernel void k(device T* a [[buffer(0)]], uint t [[thread_position_in_grid]]) { a[0] = t > 2 ? a[1] : -INFINITY; } template [[host_name("k")]] kernel decltype(k<bfloat>) k<bfloat>;',
  ],
  ["bfloat_compound", "bad", "kernel void k(device bfloat* a [[buffer(0)]]) { a[0] += 1.0f; }"],
  ["half_implicit", "ok", "kernel void k(device half* a [[buffer(0)]]) { a[0] = float(a[1]) * 2.0f; }"],
  [
    "bfloat_",
    "ok",
    "kernel void k(device bfloat* a [[buffer(0)]]) { float x = float(a[0]) * 2.0f; a[1] = bfloat(x); }",
  ],
];

const head = "#include <metal_stdlib>\n#include <metal_simdgroup_matrix>\nusing namespace metal;\n";
const folder = mkdtempSync(join(tmpdir(), "msl-lint-test-"));
let failed = 0;
for (const [name, want, body] of SNIPPETS) {
  const file = join(folder, `${name}.metal`);
  writeFileSync(file, `${head}${body}\n`);
  const { faults } = lint(file);
  if ((faults.length > 0) === (want === "bad")) continue;
  failed++;
  console.log(`FAIL ${name} (want ${want}): ${faults.slice(0, 2).join("; ")}`);
}
rmSync(folder, { recursive: true });
console.log(`${SNIPPETS.length - failed} passed, ${failed} failed`);
process.exit(failed ? 1 : 0);
