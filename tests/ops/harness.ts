/**
 * One way to test an operation on every backend present. A case names its tensors and the call; the same call runs on
 * the reference, in f64 on the values the backend's types can hold, and the outputs are compared by relative norm.
 * The reference itself is compared with the case's own formula. Outputs are poisoned with NaN before the call, every
 * tensor lies between guard bytes, and inputs must come back unchanged.
 */
import { Buffer } from "node:buffer";
import { afterAll, describe, expect, test } from "vitest";
import type { Backend, Ops } from "../../src/core/backend.ts";
import { byteLength, numel, type Tensor } from "../../src/core/tensor.ts";
import type { Dense, DType } from "../../src/core/dtype.ts";
import { BackendError } from "../../src/core/errors.ts";
import { decode } from "../reference/codec.ts";
import { ReferenceBackend } from "../reference/mod.ts";
import { findBackends } from "./backends.ts";
import { randomAs, storeAs, type Stored } from "./values.ts";

/** One tensor of a case. "act" stands for the backend's activation type. */
export interface Spec {
  readonly shape: readonly number[];
  readonly dtype: DType | "act";
  /** "in" is read, "out" is poisoned and written, "inout" is read and written; "scratch" is poisoned and may be written. */
  readonly role: "in" | "out" | "inout" | "scratch";
  /** Contents of "in" and "inout": values, or the size of normal random numbers. */
  readonly from: ArrayLike<number> | number;
}

/** Tensors and arrays of a case by name. */
export type Tensors = Record<string, Tensor>;
export type Values = Record<string, Float64Array>;

export interface Case {
  readonly name: string;
  readonly tensors: Readonly<Record<string, Spec>>;
  run(be: Backend, t: Tensors): void;
  /** The outputs by a formula that shares nothing with the reference. Absent: another test holds the reference. */
  readonly formula?: (x: Values) => Record<string, ArrayLike<number>>;
  /** Times the type's tolerance; for operations whose rounding errors grow, with the reason beside it. */
  readonly slack?: number;
}

/** A tensor that is read: normal numbers of the given size, or the given values. */
export function input(
  shape: readonly number[],
  from: ArrayLike<number> | number = 1,
  dtype: Spec["dtype"] = "act",
): Spec {
  return { shape, dtype, role: "in", from };
}
/** A tensor that is written. */
export function output(shape: readonly number[], dtype: Spec["dtype"] = "act"): Spec {
  return { shape, dtype, role: "out", from: NaN };
}
/** A tensor that is written and forgotten: what it holds at the end is not looked at. */
export function scratch(shape: readonly number[]): Spec {
  return { ...output(shape), role: "scratch" };
}
/** A tensor that is added to or changed in place. */
export function inout(
  shape: readonly number[],
  from: ArrayLike<number> | number = 1,
  dtype: Spec["dtype"] = "act",
): Spec {
  return { shape, dtype, role: "inout", from };
}
/** i32 values. */
export function ints(...values: number[]): Spec {
  return { shape: [values.length], dtype: "i32", role: "in", from: values };
}

/**
 * Largest ‖got - want‖ / ‖want‖. f32: sums of some hundred products, each rounded to 6e-8, and exp by a polynomial.
 * bf16 keeps 8 bits (one rounding is 1.1e-3 in the norm), f16 11 (1.4e-4); kernels may round once more inside.
 */
const TOLERANCE: Partial<Record<DType, number>> = { f32: 4e-6, bf16: 4e-3, f16: 5e-4, i32: 0, u8: 0 };
const REFERENCE = 1e-12;
const GUARD = 256;

interface Placed {
  readonly t: Tensor;
  readonly stored: Stored;
}

/** Puts a tensor between guard bytes. On the reference every float type is f32, which there is f64. */
function place(be: Backend, spec: Spec, act: Dense, seed: number): Placed {
  const real = spec.dtype === "act" ? act : spec.dtype, count = spec.shape.reduce((a, b) => a * b, 1);
  const stored = once(
    spec,
    `${real} ${seed}`,
    () =>
      spec.role === "out" || spec.role === "scratch"
        ? storeAs(real, new Float64Array(count).fill(real === "i32" ? -77 : NaN))
        : typeof spec.from === "number"
        ? randomAs(real, count, seed, spec.from)
        : storeAs(real, spec.from),
  );
  const exact = be.name === "reference" && real !== "i32" && real !== "u8", dtype = exact ? "f32" : real;
  const bytes = byteLength({ handle: 0, byteOffset: 0, dtype, shape: spec.shape });
  const room = Math.ceil(bytes / 4) * 4, handle = be.alloc(room + 2 * GUARD);
  if (!exact) be.upload({ handle, byteOffset: 0, dtype: "u8", shape: [room + 2 * GUARD] }, guarded(room + 2 * GUARD));
  const t: Tensor = { handle, byteOffset: GUARD, dtype, shape: spec.shape };
  be.upload(t, exact ? stored.values : stored.bytes);
  return { t, stored };
}

let guards = new Uint8Array(0);
/** The bytes that lie around and under a tensor before it is written. */
function guarded(bytes: number): Uint8Array {
  if (guards.length < bytes) guards = Uint8Array.from({ length: 2 * bytes }, (_, i) => (i * 37 + 11) & 255);
  return guards.subarray(0, bytes);
}

const made = new WeakMap<object, Map<string, unknown>>();
/** What `make` gave for this case or tensor before: the backends of a machine all ask for the same. */
function once<T>(of: object, key: string, make: () => T): T {
  const known = made.get(of) ?? new Map<string, unknown>();
  made.set(of, known);
  if (!known.has(key)) known.set(key, make());
  return known.get(key) as T;
}

/** The tensor's bytes, after a look at the guards on both sides. */
async function fetchBytes(be: Backend, name: string, t: Tensor): Promise<Uint8Array> {
  const bytes = byteLength(t),
    whole = new Uint8Array(Math.ceil(bytes / 4) * 4 + 2 * GUARD),
    want = guarded(whole.length);
  await be.download({ handle: t.handle, byteOffset: 0, dtype: "u8", shape: [whole.length] }, whole);
  for (let i = 0; i < whole.length; i++) {
    if ((i < GUARD || i >= GUARD + bytes) && whole[i] !== want[i]) {
      throw new Error(`${name} [${t.shape}]: byte ${i - GUARD} was written, and the tensor is bytes 0 to ${bytes}`);
    }
  }
  return whole.subarray(GUARD, GUARD + bytes);
}

/** Runs a case on a backend; returns what every tensor held and what every written one holds. */
export async function runOn(be: Backend, c: Case, act: Dense): Promise<{ before: Values; after: Values }> {
  const placed = Object.fromEntries(Object.entries(c.tensors).map(([k, s], i) => [k, place(be, s, act, 1000 + i)]));
  try {
    c.run(be, Object.fromEntries(Object.entries(placed).map(([k, p]) => [k, p.t])));
    const after: Values = {};
    for (const [name, { t, stored }] of Object.entries(placed)) {
      const { role } = c.tensors[name], changes = role !== "in";
      if (be.name === "reference") {
        if (!changes || role === "scratch") continue;
        const got = t.dtype === "u8" ? new Uint8Array(numel(t)) : new Float64Array(numel(t));
        await be.download(t, got);
        after[name] = Float64Array.from(got);
        continue;
      }
      const bytes = await fetchBytes(be, name, t);
      if (!changes) expect(Buffer.compare(bytes, stored.bytes), `${name} was changed`).toBe(0);
      else after[name] = decodeAs(t.dtype, bytes, numel(t));
    }
    return { before: Object.fromEntries(Object.entries(placed).map(([k, p]) => [k, p.stored.values])), after };
  } finally {
    for (const { t } of Object.values(placed)) be.free(t.handle);
  }
}

function decodeAs(dtype: DType, bytes: Uint8Array, count: number): Float64Array {
  if (dtype === "f32") return Float64Array.from(new Float32Array(bytes.slice().buffer));
  return decode(dtype, bytes, count);
}

/** Fails unless ‖got - want‖ ≤ tolerance · ‖want‖; NaN fails. */
export function expectClose(name: string, got: ArrayLike<number>, want: ArrayLike<number>, tolerance: number): void {
  expect(got.length, `${name}: number of elements`).toBe(want.length);
  let error = 0, norm = 0, worst = 0, at = -1;
  for (let i = 0; i < want.length; i++) {
    if (Number.isNaN(got[i])) throw new Error(`${name}[${i}] is NaN and must be ${want[i]}`);
    const d = got[i] === want[i] ? 0 : Math.abs(got[i] - want[i]);
    if (d > worst) [worst, at] = [d, i];
    error += d * d;
    norm += want[i] * want[i];
  }
  const relative = Math.sqrt(error) / (Math.sqrt(norm) || 1);
  if (!(relative <= tolerance)) {
    throw new Error(
      `${name} is off by ${relative.toExponential(2)} of its norm, more than ${tolerance.toExponential(2)}; ` +
        `worst at ${at}: ${got[at]} and must be ${want[at]}`,
    );
  }
}

const { present, refused } = await findBackends();
afterAll(() => present.forEach(({ be }) => be.close()));
for (const why of refused) test.skip(`this file on ${why}`, () => {});

/** Declares the tests of one operation, on all backends but those named `without`, which refuse it by design. */
export function testOp(op: keyof Ops, cases: readonly Case[], without: readonly string[] = []): void {
  describe(op, () => {
    for (const { label, be } of present) {
      if (without.includes(be.name)) continue;
      for (const c of cases) {
        if (be.name === "reference" && !c.formula) continue;
        test(`${c.name} on ${label}`, async ({ skip }) => {
          const types = Object.values(c.tensors).map((s) => s.dtype).filter((d) =>
            d !== "act" && d !== "i32" && d !== "f32" && d !== "u8"
          );
          const lacks = types.find((d) => !be.supports(d as DType));
          if (lacks) return skip(`${label} does not read ${lacks}`);
          const act = be.actDtype;
          const got = await unlessUnsupported(() => runOn(be, c, act), skip);
          if (be.name === "reference") {
            const want = c.formula!(got.before);
            for (const name of Object.keys(want)) expectClose(name, got.after[name], want[name], REFERENCE);
            return;
          }
          const want = await once(c, act, () => runOn(new ReferenceBackend(), c, act));
          for (const [name, spec] of Object.entries(c.tensors)) {
            if (spec.role === "in" || spec.role === "scratch") continue;
            const dtype = spec.dtype === "act" ? act : spec.dtype;
            // An f32 result made of bf16 activations is exact in them: only the inside may round.
            const tolerance = Math.max(TOLERANCE[dtype]!, dtype === "f32" && act !== "f32" ? TOLERANCE[act]! : 0);
            expectClose(name, got.after[name], want.after[name], tolerance * (c.slack ?? 1));
          }
        });
      }
    }
  });
}

async function unlessUnsupported<T>(work: () => Promise<T>, skip: (why: string) => void): Promise<T> {
  try {
    return await work();
  } catch (e) {
    if (e instanceof BackendError && e.status === 1) skip(e.message);
    throw e;
  }
}
