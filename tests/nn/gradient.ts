/**
 * Finite differences for modules: Σ r·out for a fixed random r is differentiated by moving one element at a time on the
 * f64 reference, and the module's own backward must agree for its input and for every parameter.
 */
import { expect } from "vitest";
import { Arena } from "../../src/core/arena.ts";
import type { Backend } from "../../src/core/backend.ts";
import { Random } from "../../src/core/philox.ts";
import { numel, type Tensor } from "../../src/core/tensor.ts";
import type { Param, Run, Slot } from "../../src/nn/module.ts";
import { createRun } from "../../src/nn/run.ts";
import { ReferenceBackend } from "../reference/mod.ts";

/** A central difference in f64 with this step is good to about 1e-9; what is left is room for curvature. */
const STEP = 1e-5, TOLERANCE = 1e-7;

/** Tensors, parameters and runs on a backend of their own. */
export class Lab {
  readonly be: Backend = new ReferenceBackend();
  readonly arena: Arena = new Arena(this.be, 1 << 20);
  readonly params: Param[] = [];
  readonly #random: Random;
  /** Sequences of the packed batch, and its positions. */
  readonly cu: Tensor;
  readonly pos: Tensor;
  readonly seed: Tensor;

  readonly lengths: readonly number[];

  /** @param lengths tokens of each sequence */
  constructor(lengths: readonly number[], seed = 1) {
    this.lengths = lengths;
    this.#random = new Random(seed);
    let at = 0;
    this.cu = this.ints([0, ...lengths.map((n) => at += n)]);
    this.pos = this.ints(lengths.flatMap((n) => Array.from({ length: n }, (_, i) => i)));
    this.seed = this.ints([5, 9]);
  }

  /** Tokens in all. */
  get rows(): number {
    return this.lengths.reduce((a, b) => a + b, 0);
  }

  ints(values: readonly number[]): Tensor {
    const t: Tensor = { handle: this.be.alloc(values.length * 4), byteOffset: 0, dtype: "i32", shape: [values.length] };
    this.be.upload(t, Int32Array.from(values));
    return t;
  }

  /** Normal numbers times `scale`. */
  normals(n: number, scale = 1): Float64Array {
    return Float64Array.from({ length: n }, () => scale * this.#random.normal());
  }

  tensor(shape: readonly number[], values: Float64Array = this.normals(shape.reduce((a, b) => a * b, 1))): Tensor {
    const t: Tensor = { handle: this.be.alloc(values.length * 4), byteOffset: 0, dtype: "f32", shape };
    this.be.upload(t, values);
    return t;
  }

  /** A trained tensor with random values and a zero gradient. */
  param(name: string, shape: readonly number[], scale = 1): Param {
    const n = shape.reduce((a, b) => a * b, 1);
    const p = {
      name,
      value: this.tensor(shape, this.normals(n, scale)),
      grad: this.tensor(shape, new Float64Array(n)),
    };
    this.params.push(p);
    return p;
  }

  frozen(...shape: number[]): Slot {
    return { frozen: this.tensor(shape), param: null };
  }

  trained(name: string, ...shape: number[]): Slot {
    return { frozen: null, param: this.param(name, shape) };
  }

  run(keep: boolean, o: { adapters?: boolean; dropout?: boolean } = {}): Run {
    const { be, arena, pos, cu } = this, seed = o.dropout === false ? null : this.seed;
    return createRun({ be, arena, pos, cu, maxLen: Math.max(...this.lengths), keep, seed, adapters: o.adapters });
  }

  async read(t: Tensor): Promise<Float64Array> {
    const out = new Float64Array(numel(t));
    await this.be.download(t, out);
    return out;
  }
}

/** What is differentiated. */
export interface Subject {
  readonly out: readonly number[];
  readonly x: Tensor;
  forward(out: Tensor, x: Tensor, run: Run): void;
  /** Adds to dx, which is zero, or writes it. */
  backward(dx: Tensor, dy: Tensor, run: Run): void;
}

/** Holds a module's backward against finite differences of its forward. */
export async function checkGradients(lab: Lab, s: Subject): Promise<void> {
  const n = s.out.reduce((a, b) => a * b, 1), r = lab.normals(n), dy = lab.tensor(s.out, r);
  const objective = async (): Promise<number> => {
    const mark = lab.arena.mark(), out = lab.arena.act(...s.out);
    s.forward(out, s.x, lab.run(false));
    const y = await lab.read(out);
    lab.arena.release(mark);
    return y.reduce((sum, v, i) => sum + v * r[i], 0);
  };
  const dx = lab.tensor(s.x.shape, new Float64Array(numel(s.x))), { run, depth } = counted(lab.run(true));
  s.forward(lab.arena.act(...s.out), s.x, run);
  s.backward(dx, dy, run);
  expect(depth(), "saves without a load").toBe(0);
  await compare(lab, "x", s.x, await lab.read(dx), objective);
  for (const p of lab.params) await compare(lab, p.name, p.value, await lab.read(p.grad), objective);
}

/** A run that counts what is saved and not loaded. */
function counted(run: Run): { run: Run; depth: () => number } {
  let depth = 0;
  const save: Run["save"] = (...args) => {
    depth++;
    run.save(...args);
  };
  const load: Run["load"] = (owner) => {
    depth--;
    return run.load(owner);
  };
  return { run: Object.assign(Object.create(run), { save, load }), depth: () => depth };
}

/** Differences at up to 12 elements of a tensor, spread over it. */
async function compare(
  lab: Lab,
  name: string,
  t: Tensor,
  grad: Float64Array,
  objective: () => Promise<number>,
): Promise<void> {
  const values = await lab.read(t), every = Math.max(1, Math.floor(values.length / 12));
  for (let i = 0; i < values.length; i += every) {
    const at = async (delta: number) => {
      const moved = values.slice();
      moved[i] += delta;
      lab.be.upload(t, moved);
      return await objective();
    };
    const difference = (await at(STEP) - await at(-STEP)) / (2 * STEP);
    const error = Math.abs(difference - grad[i]) / Math.max(1, Math.abs(difference));
    expect(error, `d/d${name}[${i}]: difference ${difference}, backward ${grad[i]}`).toBeLessThan(TOLERANCE);
  }
  lab.be.upload(t, values);
}
