/**
 * What each operation asks of its tensors, in one place for all backends: `check.matmul(c, a, b, bias, o)` throws
 * before anything runs. Element counts are compared, not exact shapes, because leading axes are flattened.
 * @module
 */
import type { Ops } from "./backend.ts";
import type { DType } from "./dtype.ts";
import { DTYPES, isQuant } from "./dtype.ts";
import { ShapeError } from "./errors.ts";
import { cols, numel, rowsOf, type Tensor } from "./tensor.ts";

const FLOAT: readonly DType[] = ["f32", "bf16", "f16"];
const F32: readonly DType[] = ["f32"];
const I32: readonly DType[] = ["i32"];
/** Most slots of host memory; more than any model has layers. */
const SLOTS = 4096;

/** `t` is one of `dtypes` and holds `count` elements. */
function need(op: string, name: string, t: Tensor, count: number, dtypes: readonly DType[]): void {
  if (!dtypes.includes(t.dtype)) {
    throw new ShapeError(`Cannot run ${op}: ${name} is ${t.dtype} and must be ${dtypes.join(" or ")}`);
  }
  if (numel(t) !== count) {
    throw new ShapeError(`Cannot run ${op}: ${name} [${t.shape}] holds ${numel(t)} elements and must hold ${count}`);
  }
}

/** `t` has as many axes as its letters: `axes("rope", "x", x, "N,heads,d")`. */
function axes(op: string, name: string, t: Tensor, letters: string): void {
  if (t.shape.length !== letters.split(",").length) {
    throw new ShapeError(`Cannot run ${op}: ${name} is [${t.shape}] and must be [${letters}]`);
  }
}

/** `t` is like `x` in element count and is a float type. */
function like(op: string, name: string, t: Tensor, x: Tensor): void {
  need(op, name, t, numel(x), FLOAT);
}

/** A matrix in squares of 128. */
function tiled(op: string, name: string, w: Tensor, rows: number, columns: number): void {
  need(op, name, w, rows * columns, ["fp8_128"]);
  if (rowsOf(w) !== rows || rows % 128 !== 0 || columns % 128 !== 0) {
    throw new ShapeError(
      `Cannot run ${op}: ${name} is [${w.shape}] and must be [${rows},${columns}], multiples of 128`,
    );
  }
}

/** A matrix of weights: any float, or blocks that divide its rows. */
function weight(op: string, name: string, w: Tensor, rows: number, columns: number): void {
  if (w.dtype === "fp8_128") return tiled(op, name, w, rows, columns);
  if (!FLOAT.includes(w.dtype) && w.dtype !== "fp8_e4m3" && !isQuant(w.dtype)) {
    throw new ShapeError(`Cannot run ${op}: ${name} is ${w.dtype}, which holds no weights`);
  }
  if (cols(w) % DTYPES[w.dtype].block !== 0) {
    throw new ShapeError(`Cannot run ${op}: rows of ${cols(w)} are no multiple of ${w.dtype}'s block`);
  }
  if (rowsOf(w) !== rows || cols(w) !== columns) {
    throw new ShapeError(`Cannot run ${op}: ${name} is [${w.shape}] and must be [${rows},${columns}]`);
  }
}

/** Slots are few and numbered from 0: one a block. */
function checkSlot(slot: number): void {
  if (!(Number.isInteger(slot) && slot >= 0 && slot < SLOTS)) {
    throw new RangeError(`Cannot use slot ${slot} of host memory: slots are numbered from 0 to ${SLOTS - 1}`);
  }
}

/** q and out are [N,H,d]; k and v are [rows,K,d] with K dividing H. */
function heads(op: string, q: Tensor, k: Tensor, v: Tensor): void {
  axes(op, "q", q, "N,H,d");
  need(op, "q", q, numel(q), FLOAT);
  const [H, d] = q.shape.slice(1), [K, dk] = k.shape.slice(-2);
  if (d !== dk || K < 1 || H % K !== 0) {
    throw new ShapeError(`Cannot run ${op}: q [${q.shape}] and k [${k.shape}] do not share head sizes`);
  }
  like(op, "v", v, k);
  like(op, "k", k, k);
}

function packed(op: string, q: Tensor, k: Tensor, v: Tensor, cu: Tensor): void {
  heads(op, q, k, v);
  axes(op, "k", k, "N,K,d");
  if (k.shape[0] !== q.shape[0]) {
    throw new ShapeError(`Cannot run ${op}: q has ${q.shape[0]} tokens and k ${k.shape[0]}`);
  }
  need(op, "cu", cu, numel(cu), I32);
  if (numel(cu) < 2) throw new ShapeError(`Cannot run ${op}: cu [${cu.shape}] names no sequence`);
}

function cached(op: string, k: Tensor, kc: Tensor, vc: Tensor, seq: Tensor, pos: Tensor): void {
  axes(op, "kc", kc, "S,L,K,d");
  like(op, "kc", kc, kc);
  like(op, "vc", vc, kc);
  need(op, "seq", seq, k.shape[0], I32);
  need(op, "pos", pos, k.shape[0], I32);
}

/** A check for each operation, with the operation's own arguments; each throws {ShapeError}. */
export const check: Readonly<Ops> = {
  embed(out, table, ids): void {
    weight("embed", "table", table, rowsOf(table), cols(out));
    need("embed", "ids", ids, rowsOf(out), I32);
    like("embed", "out", out, out);
  },
  embedBwd(dTable, dOut, ids): void {
    axes("embedBwd", "dTable", dTable, "V,D");
    need("embedBwd", "dTable", dTable, dTable.shape[0] * cols(dOut), F32);
    need("embedBwd", "ids", ids, rowsOf(dOut), I32);
    like("embedBwd", "dOut", dOut, dOut);
  },
  norm(out, stat, x, w, b): void {
    like("norm", "x", x, x);
    like("norm", "out", out, x);
    need("norm", "stat", stat, 2 * rowsOf(x), F32);
    need("norm", "w", w, cols(x), FLOAT);
    if (b) need("norm", "b", b, cols(x), FLOAT);
  },
  normBwd(dx, dw, db, dOut, x, w, stat): void {
    like("normBwd", "x", x, x);
    like("normBwd", "dx", dx, x);
    like("normBwd", "dOut", dOut, x);
    need("normBwd", "w", w, cols(x), FLOAT);
    if (dw) need("normBwd", "dw", dw, cols(x), F32);
    if (db) need("normBwd", "db", db, cols(x), F32);
    need("normBwd", "stat", stat, 2 * rowsOf(x), F32);
  },
  matmul(c, a, b, bias, o): void {
    const [M, Ka] = o.transA ? [cols(a), rowsOf(a)] : [rowsOf(a), cols(a)];
    const [Kb, N] = o.transB ? [cols(b), rowsOf(b)] : [rowsOf(b), cols(b)];
    if (Ka !== Kb) {
      throw new ShapeError(`Cannot multiply [${M},${Ka}] by [${Kb},${N}]: inner sizes are ${Ka} and ${Kb}`);
    }
    like("matmul", "a", a, a);
    weight("matmul", "b", b, rowsOf(b), cols(b));
    if (rowsOf(c) !== M || cols(c) !== N) {
      throw new ShapeError(
        `Cannot multiply [${M},${Ka}] by [${Kb},${N}] into [${c.shape}]: the product is [${M},${N}]`,
      );
    }
    like("matmul", "c", c, c);
    if (bias) need("matmul", "bias", bias, N, FLOAT);
  },
  rope(x, pos, freqs): void {
    axes("rope", "x", x, "N,heads,d");
    like("rope", "x", x, x);
    need("rope", "pos", pos, x.shape[0], I32);
    need("rope", "freqs", freqs, numel(freqs), F32);
    if (2 * numel(freqs) > x.shape[2]) {
      throw new ShapeError(`Cannot rotate [${x.shape}]: ${numel(freqs)} frequencies need heads of ${2 * numel(freqs)}`);
    }
  },
  attention(out, lse, q, k, v, s): void {
    packed("attention", q, k, v, s.cu);
    like("attention", "out", out, q);
    need("attention", "lse", lse, q.shape[0] * q.shape[1], F32);
  },
  attentionBwd(dq, dk, dv, dOut, q, k, v, out, lse, s): void {
    packed("attentionBwd", q, k, v, s.cu);
    for (const [name, t] of [["dq", dq], ["dOut", dOut], ["out", out]] as const) like("attentionBwd", name, t, q);
    like("attentionBwd", "dk", dk, k);
    like("attentionBwd", "dv", dv, v);
    need("attentionBwd", "lse", lse, q.shape[0] * q.shape[1], F32);
  },
  cacheWrite(kc, vc, k, v, seq, pos): void {
    axes("cacheWrite", "k", k, "N,K,d");
    cached("cacheWrite", k, kc, vc, seq, pos);
    like("cacheWrite", "k", k, k);
    like("cacheWrite", "v", v, k);
    if (kc.shape[2] !== k.shape[1] || kc.shape[3] !== k.shape[2]) {
      throw new ShapeError(`Cannot write [${k.shape}] into a cache of [${kc.shape}]: the last two sizes differ`);
    }
  },
  attentionCached(out, q, kc, vc, seq, pos): void {
    heads("attentionCached", q, kc, vc);
    cached("attentionCached", q, kc, vc, seq, pos);
    like("attentionCached", "out", out, q);
  },
  glu(h, gate, up): void {
    like("glu", "gate", gate, gate);
    like("glu", "h", h, gate);
    if (up) like("glu", "up", up, gate);
  },
  gluBwd(dGate, dUp, h, dH, gate, up): void {
    if ((dUp === null) !== (up === null)) {
      throw new ShapeError("Cannot run gluBwd: up and dUp go together, and one of them is null");
    }
    like("gluBwd", "gate", gate, gate);
    for (const [name, t] of [["dGate", dGate], ["dUp", dUp], ["h", h], ["dH", dH], ["up", up]] as const) {
      if (t) like("gluBwd", name, t, gate);
    }
  },
  add(out, a, b): void {
    like("add", "a", a, a);
    like("add", "b", b, a);
    like("add", "out", out, a);
  },
  copy(out, x): void {
    if (isQuant(out.dtype)) throw new ShapeError(`Cannot copy into ${out.dtype}: only dense types are written`);
    if (numel(out) !== numel(x)) {
      throw new ShapeError(`Cannot copy [${x.shape}] to [${out.shape}]: ${numel(x)} and ${numel(out)} elements`);
    }
  },
  scale(out, x): void {
    like("scale", "x", x, x);
    like("scale", "out", out, x);
  },
  crossEntropy(loss, logits, target, w): void {
    const n = rowsOf(logits);
    like("crossEntropy", "logits", logits, logits);
    need("crossEntropy", "loss", loss, n, F32);
    need("crossEntropy", "target", target, n, I32);
    need("crossEntropy", "weight", w, n, F32);
  },
  sumSquares(out, g): void {
    need("sumSquares", "out", out, 1, F32);
    need("sumSquares", "g", g, numel(g), F32);
  },
  clipFactor(hyper, sumSq): void {
    need("clipFactor", "hyper", hyper, 8, F32);
    need("clipFactor", "sumSq", sumSq, 1, F32);
  },
  adamw(p, g, m, v, hyper): void {
    for (const [name, t] of [["p", p], ["g", g], ["m", m], ["v", v]] as const) need("adamw", name, t, numel(p), F32);
    need("adamw", "hyper", hyper, 8, F32);
  },
  sgd(p, g, m, hyper): void {
    need("sgd", "p", p, numel(p), F32);
    need("sgd", "g", g, numel(p), F32);
    if (m) need("sgd", "m", m, numel(p), F32);
    need("sgd", "hyper", hyper, 8, F32);
  },
  lion(p, g, m, hyper): void {
    for (const [name, t] of [["p", p], ["g", g], ["m", m]] as const) need("lion", name, t, numel(p), F32);
    need("lion", "hyper", hyper, 8, F32);
  },
  adamw8(p, g, m, v, absmax, codes, hyper): void {
    const n = numel(p);
    if (n % 256) throw new ShapeError(`Cannot run adamw8: p [${p.shape}] holds ${n} elements, no multiple of 256`);
    for (const [name, t] of [["p", p], ["g", g]] as const) need("adamw8", name, t, n, F32);
    for (const [name, t] of [["m", m], ["v", v]] as const) need("adamw8", name, t, n, ["u8"]);
    need("adamw8", "absmax", absmax, 2 * n / 256, F32);
    need("adamw8", "codes", codes, 512, F32);
    need("adamw8", "hyper", hyper, 8, F32);
  },
  adafactor(p, g, row, col, hyper): void {
    for (const [name, t] of [["p", p], ["g", g]] as const) need("adafactor", name, t, numel(p), F32);
    if (row) need("adafactor", "row", row, rowsOf(p), F32);
    need("adafactor", "col", col, row ? cols(p) : numel(p), F32);
    need("adafactor", "hyper", hyper, 8, F32);
  },
  noise(out, x, magnitude, seed): void {
    like("noise", "x", x, x);
    like("noise", "out", out, x);
    need("noise", "magnitude", magnitude, rowsOf(x), F32);
    need("noise", "seed", seed, 2, I32);
  },
  colSum(out, x): void {
    like("colSum", "x", x, x);
    need("colSum", "out", out, cols(x), F32);
  },
  colDot(out, a, b): void {
    like("colDot", "a", a, a);
    like("colDot", "b", b, a);
    need("colDot", "out", out, cols(a), F32);
  },
  scaleCols(out, x, s): void {
    like("scaleCols", "x", x, x);
    like("scaleCols", "out", out, x);
    need("scaleCols", "s", s, cols(x), F32);
  },
  rowNorm(out, w, a, b): void {
    weight("rowNorm", "w", w, rowsOf(w), cols(w));
    axes("rowNorm", "a", a, "R,I");
    need("rowNorm", "a", a, a.shape[0] * cols(w), F32);
    need("rowNorm", "b", b, rowsOf(w) * a.shape[0], F32);
    need("rowNorm", "out", out, rowsOf(w), F32);
  },
  divide(out, a, b): void {
    for (const [name, t] of [["out", out], ["a", a], ["b", b]] as const) need("divide", name, t, numel(a), F32);
  },
  dropout(out, x, seed, _stream, p): void {
    like("dropout", "x", x, x);
    like("dropout", "out", out, x);
    need("dropout", "seed", seed, 2, I32);
    if (!(p >= 0 && p < 1)) throw new RangeError(`Cannot drop a share of ${p}: it must be in [0, 1)`);
  },
  quantizeFp8(out, x, from): void {
    tiled("quantizeFp8", "out", out, rowsOf(out), cols(out));
    like("quantizeFp8", "x", x, x);
    if (cols(x) !== cols(out) || from % 128 !== 0 || rowsOf(x) % 128 !== 0 || from + rowsOf(x) > rowsOf(out)) {
      throw new ShapeError(`Cannot quantise rows from ${from} of [${out.shape}]: x is [${x.shape}]; rows go by 128`);
    }
  },
  hostSlot(slot, bytes): void {
    checkSlot(slot);
    if (!(Number.isSafeInteger(bytes) && bytes >= 0)) {
      throw new RangeError(`Cannot place ${bytes} bytes in slot ${slot}`);
    }
  },
  stash(slot, x): void {
    checkSlot(slot);
    like("stash", "x", x, x);
  },
  fetch(out, slot): void {
    checkSlot(slot);
    like("fetch", "out", out, out);
  },
  slotWait: checkSlot,
};
