/** clipFactor and adamw, as torch defines them. */
import { type Case, inout, input, testOp } from "./harness.ts";

const HYPER = [0, 0, 0, 0, 0, 0, 0, 1].map(() => 5);

function clipCase(sumSq: number, maxNorm: number): Case {
  return {
    name: `norm ${Math.sqrt(sumSq)}, at most ${maxNorm}`,
    tensors: { hyper: inout([8], HYPER, "f32"), sumSq: input([1], [sumSq], "f32") },
    run: (be, { hyper, sumSq }) => be.clipFactor(hyper, sumSq, maxNorm),
    formula: () => {
      const factor = maxNorm / (Math.sqrt(sumSq) + 1e-6);
      return { hyper: [...HYPER.slice(0, 7), maxNorm === 0 || factor > 1 ? 1 : factor] };
    },
  };
}
testOp("clipFactor", [clipCase(16, 1), clipCase(0.25, 1), clipCase(0, 1), clipCase(1e6, 0), clipCase(2.25, 0.5)]);

/** torch.optim.AdamW's order: decay, moments, corrected step. */
function adamwCase(name: string, count: number, decay: number, clip: number, t: number): Case {
  const [lr, b1, b2, eps] = [1e-2, 0.9, 0.999, 1e-8].map(Math.fround);
  const hyper = [lr, b1, b2, eps, decay, 1 - b1 ** t, 1 - b2 ** t, clip].map(Math.fround);
  return {
    name: `${name}, ${count} elements, step ${t}`,
    tensors: {
      p: inout([count], 1, "f32"),
      g: input([count], 1, "f32"),
      m: inout([count], 0.1, "f32"),
      v: inout([count], Array.from({ length: count }, (_, i) => (i % 5) * 0.01), "f32"),
      hyper: input([8], hyper, "f32"),
    },
    run: (be, { p, g, m, v, hyper }) => be.adamw(p, g, m, v, hyper),
    formula: ({ p, g, m, v }) => {
      const [, , , , wd, c1, c2, factor] = hyper;
      const m2 = m.map((x, i) => x + (1 - b1) * (factor * g[i] - x));
      const v2 = v.map((x, i) => b2 * x + (1 - b2) * (factor * g[i]) ** 2);
      return {
        m: m2,
        v: v2,
        p: p.map((x, i) => x * (1 - lr * wd) - lr / c1 * m2[i] / (Math.sqrt(v2[i]) / Math.sqrt(c2) + eps)),
      };
    },
    // 1 - b2 in f32 keeps only 13 bits of 0.001's neighbourhood: 6e-8 / 1e-3 of the new square.
    slack: 20,
  };
}
testOp("adamw", [
  adamwCase("plain", 1, 0, 1, 1),
  adamwCase("with decay", 7, 0.1, 1, 3),
  adamwCase("clipped", 1031, 0.01, 0.3, 10),
]);

/** adamw's hyper for the optimisers that share it. */
const hyperOf = (lr: number, b1: number, b2: number, wd: number, clip: number, t = 3): number[] =>
  [lr, b1, b2, 1e-8, wd, 1 - b1 ** t, 1 - b2 ** t, clip].map(Math.fround);

/** torch.optim.SGD: d = g + wd·p; buf = momentum·buf + d; p -= lr·buf. */
function sgdCase(count: number, momentum: boolean): Case {
  const hyper = hyperOf(0.1, 0.9, 0, 0.05, 0.5), tensors = { p: inout([count], 1, "f32"), g: input([count], 1, "f32") };
  return {
    name: `${count} elements, ${momentum ? "with" : "without"} momentum`,
    tensors: {
      ...tensors,
      ...(momentum ? { m: inout([count], 0.5, "f32") } : {}),
      hyper: input([8], hyper, "f32"),
    },
    run: (be, { p, g, m, hyper }) => be.sgd(p, g, m ?? null, hyper),
    formula: ({ p, g, m }) => {
      const d = g.map((x, i) => hyper[7] * x + hyper[4] * p[i]), buf = m ? m.map((x, i) => hyper[1] * x + d[i]) : d;
      return { p: p.map((x, i) => x - hyper[0] * buf[i]), ...(m ? { m: buf } : {}) };
    },
  };
}
testOp("sgd", [sgdCase(1, true), sgdCase(1031, true), sgdCase(17, false)]);

function lionCase(count: number): Case {
  const hyper = hyperOf(1e-3, 0.9, 0.99, 0.1, 0.7), [lr, b1, b2, , wd, , , clip] = hyper;
  return {
    name: `${count} elements`,
    tensors: {
      p: inout([count], 1, "f32"),
      g: input([count], 1, "f32"),
      m: inout([count], 0.1, "f32"),
      hyper: input([8], hyper, "f32"),
    },
    run: (be, { p, g, m, hyper }) => be.lion(p, g, m, hyper),
    formula: ({ p, g, m }) => ({
      p: p.map((x, i) => (1 - lr * wd) * x - lr * Math.sign(b1 * m[i] + (1 - b1) * clip * g[i])),
      m: m.map((x, i) => b2 * x + (1 - b2) * clip * g[i]),
    }),
    slack: 5, // 1 - b2 in f32 keeps 17 bits of 0.01
  };
}
testOp("lion", [lionCase(1), lionCase(1031)]);

/** A code of 256 ascending values: sign, and magnitudes that shrink by powers of ten as bitsandbytes' do. */
const SIGNED = Float32Array.from({ length: 256 }, (_, i) => Math.sign(i - 127) * ((Math.abs(i - 127) / 128) ** 3));
const UNSIGNED = Float32Array.from({ length: 256 }, (_, i) => (i / 255) ** 4);

function adamw8Case(blocks: number, zero: boolean): Case {
  const n = blocks * 256, hyper = hyperOf(1e-2, 0.9, 0.95, 0.1, 0.5), [lr, b1, b2, eps, wd, c1, c2, clip] = hyper;
  const bytes = (k: number) => Array.from({ length: n }, (_, i) => (i * k + 3) % 256);
  const absmax = Array.from({ length: 2 * blocks }, (_, i) => 0.01 * (i + 1));
  return {
    name: `${blocks} blocks${zero ? ", the first of zeros" : ""}`,
    tensors: {
      p: inout([n], 1, "f32"),
      g: zero ? input([n], Array.from({ length: n }, (_, i) => i < 256 ? 0 : i % 7 - 3), "f32") : input([n], 1, "f32"),
      m: inout([n], zero ? bytes(0).map(() => 127) : bytes(37), "u8"),
      v: inout([n], zero ? bytes(0).map(() => 0) : bytes(91), "u8"),
      absmax: inout([2, blocks], absmax, "f32"),
      codes: input([2, 256], [...SIGNED, ...UNSIGNED], "f32"),
      hyper: input([8], hyper, "f32"),
    },
    run: (be, { p, g, m, v, absmax, codes, hyper }) => be.adamw8(p, g, m, v, absmax, codes, hyper),
    formula: ({ p, g, m, v, absmax }) => {
      const block = (i: number) => Math.floor(i / 256), out = absmax.slice().fill(0);
      const ms = p.map((_, i) => b1 * SIGNED[m[i]] * absmax[block(i)] + (1 - b1) * clip * g[i]);
      const vs = p.map((_, i) => b2 * UNSIGNED[v[i]] * absmax[blocks + block(i)] + (1 - b2) * (clip * g[i]) ** 2);
      ms.forEach((x, i) => out[block(i)] = Math.max(out[block(i)], Math.abs(x)));
      vs.forEach((x, i) => out[blocks + block(i)] = Math.max(out[blocks + block(i)], x));
      const code = (x: number, table: Float32Array) =>
        table.reduce((best, c, k) => Math.abs(c - x) < Math.abs(table[best] - x) ? k : best, 0);
      const byte = (x: number, most: number, table: Float32Array) => code(most === 0 ? 0 : x / most, table);
      return {
        p: p.map((x, i) => (1 - lr * wd) * x - lr / c1 * ms[i] / (Math.sqrt(vs[i] / c2) + eps)),
        m: Array.from(ms, (x, i) => byte(x, out[block(i)], SIGNED)),
        v: Array.from(vs, (x, i) => byte(x, out[blocks + block(i)], UNSIGNED)),
        absmax: out,
      };
    },
    slack: 5,
  };
}
testOp("adamw8", [adamw8Case(1, false), adamw8Case(5, false), adamw8Case(3, true)]);

/** The papers' outer product, written with whole matrices. */
function adafactorCase(O: number, I: number, factored: boolean): Case {
  const hyper = [1e-2, 0, 0.8, 1e-3, 0.1, 0.3, 0, 0.5].map(Math.fround), [lr, , b2, eps, wd, most, , clip] = hyper;
  const positive = (n: number) => Array.from({ length: n }, (_, i) => 0.1 + (i % 5) * 0.3);
  return {
    name: `[${O},${I}] ${factored ? "factored" : "whole"}`,
    tensors: {
      p: inout([O, I], 1, "f32"),
      g: input([O, I], 1, "f32"),
      ...(factored ? { row: inout([O], positive(O), "f32") } : {}),
      col: inout(factored ? [I] : [O * I], positive(factored ? I : O * I), "f32"),
      hyper: input([8], hyper, "f32"),
    },
    run: (be, { p, g, row, col, hyper }) => be.adafactor(p, g, row ?? null, col, hyper),
    formula: ({ p, g, row, col }) => {
      const s = g.map((x) => (clip * x) ** 2 + eps), at = (o: number, i: number) => s[o * I + i];
      const range = (n: number) => Array.from({ length: n }, (_, i) => i),
        sum = (x: number[]) => x.reduce((a, b) => a + b, 0);
      const r = row && range(O).map((o) => b2 * row[o] + (1 - b2) * sum(range(I).map((i) => at(o, i))) / I);
      const c = r
        ? range(I).map((i) => b2 * col[i] + (1 - b2) * sum(range(O).map((o) => at(o, i))) / O)
        : Array.from(col, (x, i) => b2 * x + (1 - b2) * s[i]);
      const moment = (n: number) => r ? r[Math.floor(n / I)] * c[n % I] / (sum(r) / O) : c[n];
      const u = g.map((x, n) => clip * x / Math.sqrt(moment(n))),
        rms = Math.sqrt(sum([...u.map((x) => x * x)]) / u.length);
      return {
        p: p.map((x, n) => (1 - lr * wd) * x - lr * u[n] / Math.max(1, rms / most)),
        col: c,
        ...(r ? { row: r } : {}),
      };
    },
  };
}
testOp("adafactor", [
  ...[adafactorCase(1, 1, true), adafactorCase(7, 131, true), adafactorCase(70, 5, true)],
  ...[adafactorCase(1, 1031, false), adafactorCase(3, 3, false)],
]);
