/**
 * The C ABI as data: every operation's arguments, every other function's signature. The header (header.ts), the
 * declarations for Deno, Bun and Node (open_*.ts) and the calls (adapter.ts) follow from these two tables.
 *
 * An operation is `int32_t us_<op>(const us_<op>_args*)`: one pointer to a plain struct of 4-byte words, a status back.
 * A size that may pass 32 bits is two words, low first. There are no 64-bit fields, no structs by value, no varargs.
 * @module
 */
import type { Act, AttnOpts, Ops } from "../src/core/backend.ts";
import type { Tensor } from "../src/core/tensor.ts";

/** Changes when `us_tensor`, a base function or a status changes meaning; operations are matched one by one (`us_ops`). */
export const ABI_VERSION = 1;

/** One word, or the nine words of a tensor; "tensor?" may be absent (handle 0). */
export type Kind = "tensor" | "tensor?" | "u32" | "i32" | "f32";

/** An argument: `name` is its C field name, `note` its shape, dtype or meaning. */
export interface Arg {
  readonly name: string;
  readonly kind: Kind;
  readonly note: string;
}

/** An argument's value on the way into a struct. */
export type Word = Tensor | null | number;

/** What one operation looks like in C and how its TypeScript arguments become the struct's fields, in order. */
export interface OpAbi<A extends unknown[]> {
  readonly args: readonly Arg[];
  flatten(...args: A): Word[];
}

/** "name: kind, note" for each argument of a struct. */
export function args(...lines: string[]): Arg[] {
  return lines.map((line) => {
    const [, name, kind, note] = line.match(/^(\w+): (tensor\??|u32|i32|f32)(?:, (.*))?$/) ?? [];
    if (!name) throw new SyntaxError(`Cannot read the argument "${line}"`);
    return { name, kind: kind as Kind, note: note ?? "" };
  });
}

/** Activations in the order of their numbers in C. */
export const ACTS: readonly Act[] = ["silu", "gelu", "gelu_tanh"];
const KINDS: readonly string[] = ["rms", "layer"];
const ACT = "act: u32, US_SILU, US_GELU or US_GELU_TANH";
const NORM = ["kind: u32, US_RMS or US_LAYER", "eps: f32", "plus_one: u32, 1: the weight is 1 + w"];
const ATTN = ["scale: f32", "window: u32, keys a query sees, itself included; 0 = all", "softcap: f32, 0 = off"];
const SEQS = ["cu: tensor, i32 [S+1]", "max_len: u32, bound of the sequences' lengths"];
const attn = (o: AttnOpts): Word[] => [o.scale, o.window, o.softcap];

/** Every operation of core/backend.ts; its words say what each computes. */
export const OPS: { readonly [K in keyof Ops]: OpAbi<Parameters<Ops[K]>> } = {
  embed: {
    args: args("out: tensor, = [N,D]", "table: tensor, [V,D] any weight type", "ids: tensor, i32 [N]", "scale: f32"),
    flatten: (out, table, ids, scale) => [out, table, ids, scale],
  },
  embedBwd: {
    args: args("d_table: tensor, += f32 [V,D]", "d_out: tensor, [N,D]", "ids: tensor, i32 [N]", "scale: f32"),
    flatten: (dTable, dOut, ids, scale) => [dTable, dOut, ids, scale],
  },
  norm: {
    args: args(
      "out: tensor, = [N,D]",
      "stat: tensor, = f32 [N,2] mean and 1/std",
      "x: tensor, [N,D]",
      "w: tensor, [D]",
      "b: tensor?, [D]",
      ...NORM,
    ),
    flatten: (out, stat, x, w, b, o) => [out, stat, x, w, b, KINDS.indexOf(o.kind), o.eps, +o.plusOne],
  },
  normBwd: {
    args: args(
      "dx: tensor, += [N,D]",
      "dw: tensor?, += f32 [D]",
      "db: tensor?, += f32 [D]",
      "d_out: tensor, [N,D]",
      "x: tensor, [N,D]",
      "w: tensor, [D]",
      "stat: tensor, f32 [N,2]",
      ...NORM,
    ),
    flatten: (dx, dw, db, dOut, x, w, stat, o) => {
      return [dx, dw, db, dOut, x, w, stat, KINDS.indexOf(o.kind), o.eps, +o.plusOne];
    },
  },
  matmul: {
    args: args(
      "c: tensor, = [M,N]; leading axes flattened",
      "a: tensor, [M,K], or [K,M] with trans_a",
      "b: tensor, [K,N], or [N,K] with trans_b; any weight type",
      "bias: tensor?, [N]",
      "trans_a: u32",
      "trans_b: u32",
      "alpha: f32",
      "beta: f32, 0 or 1; c is not read when 0",
    ),
    flatten: (
      c,
      a,
      b,
      bias,
      o,
    ) => [c, a, b, bias, +(o.transA ?? false), +(o.transB ?? false), o.alpha ?? 1, o.beta ?? 0],
  },
  rope: {
    args: args(
      "x: tensor, [N,heads,d] in place",
      "pos: tensor, i32 [N]",
      "freqs: tensor, f32 [rotary/2]",
      "sign: i32, 1 or -1",
      "factor: f32",
    ),
    flatten: (x, pos, freqs, o) => [x, pos, freqs, o.sign, o.factor],
  },
  attention: {
    args: args(
      "out: tensor, = [N,H,d]",
      "lse: tensor, = f32 [H,N]",
      "q: tensor, [N,H,d]",
      "k: tensor, [N,K,d]",
      "v: tensor, [N,K,d]",
      ...SEQS,
      ...ATTN,
    ),
    flatten: (out, lse, q, k, v, s, o) => [out, lse, q, k, v, s.cu, s.maxLen, ...attn(o)],
  },
  attentionBwd: {
    args: args(
      "dq: tensor, = [N,H,d]",
      "dk: tensor, = [N,K,d]",
      "dv: tensor, = [N,K,d]",
      "d_out: tensor, [N,H,d]",
      "q: tensor, [N,H,d]",
      "k: tensor, [N,K,d]",
      "v: tensor, [N,K,d]",
      "out: tensor, [N,H,d]",
      "lse: tensor, f32 [H,N]",
      ...SEQS,
      ...ATTN,
    ),
    flatten: (dq, dk, dv, dOut, q, k, v, out, lse, s, o) => {
      return [dq, dk, dv, dOut, q, k, v, out, lse, s.cu, s.maxLen, ...attn(o)];
    },
  },
  cacheWrite: {
    args: args(
      "kc: tensor, [S,L,K,d]",
      "vc: tensor, [S,L,K,d]",
      "k: tensor, [N,K,d]",
      "v: tensor, [N,K,d]",
      "seq: tensor, i32 [N]",
      "pos: tensor, i32 [N]",
    ),
    flatten: (kc, vc, k, v, seq, pos) => [kc, vc, k, v, seq, pos],
  },
  attentionCached: {
    args: args(
      "out: tensor, = [N,H,d]",
      "q: tensor, [N,H,d]",
      "kc: tensor, [S,L,K,d]",
      "vc: tensor, [S,L,K,d]",
      "seq: tensor, i32 [N]",
      "pos: tensor, i32 [N]",
      ...ATTN,
    ),
    flatten: (out, q, kc, vc, seq, pos, o) => [out, q, kc, vc, seq, pos, ...attn(o)],
  },
  glu: {
    args: args("h: tensor, = [N,F]", "gate: tensor, [N,F]", "up: tensor?, [N,F]", ACT),
    flatten: (h, gate, up, act) => [h, gate, up, ACTS.indexOf(act)],
  },
  gluBwd: {
    args: args(
      "d_gate: tensor, = [N,F], may be gate",
      "d_up: tensor?, = [N,F], may be up",
      "h: tensor, = [N,F]",
      "dh: tensor, [N,F]",
      "gate: tensor, [N,F]",
      "up: tensor?, [N,F]",
      ACT,
    ),
    flatten: (dGate, dUp, h, dH, gate, up, act) => [dGate, dUp, h, dH, gate, up, ACTS.indexOf(act)],
  },
  add: {
    args: args("out: tensor, =, may be a or b", "a: tensor", "b: tensor"),
    flatten: (out, a, b) => [out, a, b],
  },
  copy: {
    args: args("out: tensor, = any dense type", "x: tensor, any type"),
    flatten: (out, x) => [out, x],
  },
  scale: {
    args: args("out: tensor, =, may be x", "x: tensor", "factor: f32"),
    flatten: (out, x, factor) => [out, x, factor],
  },
  crossEntropy: {
    args: args(
      "loss: tensor, = f32 [N]",
      "logits: tensor, [N,V] in, gradient out",
      "target: tensor, i32 [N]; not read where weight is 0",
      "weight: tensor, f32 [N]",
      "softcap: f32, 0 = off",
      "smoothing: f32",
      "z_loss: f32",
    ),
    flatten: (loss, logits, target, weight, o) => [loss, logits, target, weight, o.softcap, o.smoothing, o.zLoss],
  },
  sumSquares: {
    args: args("out: tensor, += f32 [1]", "g: tensor, f32"),
    flatten: (out, g) => [out, g],
  },
  clipFactor: {
    args: args("hyper: tensor, f32 [8]; word 7 is written", "sum_sq: tensor, f32 [1]", "max_norm: f32, 0 = off"),
    flatten: (hyper, sumSq, maxNorm) => [hyper, sumSq, maxNorm],
  },
  adamw: {
    args: args(
      "p: tensor, f32 in place",
      "g: tensor, f32",
      "m: tensor, f32 in place",
      "v: tensor, f32 in place",
      "hyper: tensor, f32 [8] lr, b1, b2, eps, weight decay, 1-b1^t, 1-b2^t, clip factor",
    ),
    flatten: (p, g, m, v, hyper) => [p, g, m, v, hyper],
  },
  sgd: {
    args: args(
      "p: tensor, f32 in place",
      "g: tensor, f32",
      "m: tensor?, f32 in place",
      "hyper: tensor, f32 [8] as adamw's: lr, b1 (momentum), -, -, weight decay, -, -, clip factor",
    ),
    flatten: (p, g, m, hyper) => [p, g, m, hyper],
  },
  lion: {
    args: args(
      "p: tensor, f32 in place",
      "g: tensor, f32",
      "m: tensor, f32 in place",
      "hyper: tensor, f32 [8] as adamw's: lr, b1, b2, -, weight decay, -, -, clip factor",
    ),
    flatten: (p, g, m, hyper) => [p, g, m, hyper],
  },
  adamw8: {
    args: args(
      "p: tensor, f32 [n] in place, n a multiple of 256",
      "g: tensor, f32 [n]",
      "m: tensor, u8 [n] in place",
      "v: tensor, u8 [n] in place",
      "absmax: tensor, f32 [2,n/256] in place",
      "codes: tensor, f32 [2,256] ascending",
      "hyper: tensor, f32 [8] as adamw's",
    ),
    flatten: (p, g, m, v, absmax, codes, hyper) => [p, g, m, v, absmax, codes, hyper],
  },
  adafactor: {
    args: args(
      "p: tensor, f32 [O,I] in place",
      "g: tensor, f32 [O,I]",
      "row: tensor?, f32 [O] in place",
      "col: tensor, f32 [I] in place; [O*I] without row",
      "hyper: tensor, f32 [8] lr, -, b2 of this step, eps, weight decay, d, -, clip factor",
    ),
    flatten: (p, g, row, col, hyper) => [p, g, row, col, hyper],
  },
  noise: {
    args: args(
      "out: tensor, = [N,D], may be x",
      "x: tensor, [N,D]",
      "magnitude: tensor, f32 [N]",
      "seed: tensor, i32 [2]",
      "stream: u32",
    ),
    flatten: (out, x, magnitude, seed, stream) => [out, x, magnitude, seed, stream >>> 0],
  },
  colSum: {
    args: args("out: tensor, += f32 [D]", "x: tensor, [N,D]"),
    flatten: (out, x) => [out, x],
  },
  colDot: {
    args: args("out: tensor, += f32 [D]", "a: tensor, [N,D]", "b: tensor, [N,D]"),
    flatten: (out, a, b) => [out, a, b],
  },
  scaleCols: {
    args: args("out: tensor, = [N,D], may be x", "x: tensor, [N,D]", "s: tensor, f32 [D]"),
    flatten: (out, x, s) => [out, x, s],
  },
  rowNorm: {
    args: args(
      "out: tensor, = f32 [O]",
      "w: tensor, [O,I] any weight type",
      "a: tensor, f32 [R,I]",
      "b: tensor, f32 [O,R]",
      "scale: f32",
    ),
    flatten: (out, w, a, b, scale) => [out, w, a, b, scale],
  },
  divide: {
    args: args("out: tensor, = f32", "a: tensor, f32", "b: tensor, f32"),
    flatten: (out, a, b) => [out, a, b],
  },
  dropout: {
    args: args(
      "out: tensor, =, may be x",
      "x: tensor",
      "seed: tensor, i32 [2]",
      "stream: u32",
      "threshold: u32, an element is kept when its random word is at or over this",
      "factor: f32, 1 / (1 - p)",
    ),
    // The threshold is rounded here, once, so that every backend keeps the same elements.
    flatten: (out, x, seed, stream, p) => {
      return [out, x, seed, stream >>> 0, Math.min(4294967295, Math.ceil(p * 4294967296)), 1 / (1 - p)];
    },
  },
  quantizeFp8: {
    args: args("out: tensor, = fp8_128 [R,C], rows from..from+n", "x: tensor, [n,C]", "from: u32, a multiple of 128"),
    flatten: (out, x, from) => [out, x, from],
  },
  hostSlot: {
    args: args("slot: u32", "bytes_lo: u32, pinned host memory; 0: what the slot had is freed", "bytes_hi: u32"),
    flatten: (slot, bytes) => [slot, bytes >>> 0, Math.floor(bytes / 4294967296)],
  },
  stash: {
    args: args("slot: u32, written beside what is launched next", "x: tensor, unchanged until us_slot_wait"),
    flatten: (slot, x) => [slot, x],
  },
  fetch: {
    args: args("out: tensor, =, not to be used until us_slot_wait", "slot: u32"),
    flatten: (out, slot) => [out, slot],
  },
  slotWait: {
    args: args("slot: u32, what is launched next runs after its last copy"),
    flatten: (slot) => [slot],
  },
};

/** The operations in the order of the table. */
export const OP_NAMES: readonly (keyof Ops)[] = Object.keys(OPS) as (keyof Ops)[];

/** Words of a tensor: handle, dtype, offset low and high, axes, four sizes (unused ones are 1). */
export const TENSOR_WORDS = 9;

/** The C name of an operation: embedBwd is us_embed_bwd. */
export function symbolOf(op: string): string {
  return `us_${op.replace(/[A-Z]/g, (c) => `_${c.toLowerCase()}`)}`;
}

/** First word of each argument in its struct, and the struct's words in all. */
export function layoutOf(list: readonly Arg[]): { at: number[]; words: number } {
  const at: number[] = [];
  let words = 0;
  for (const a of list) {
    at.push(words);
    words += a.kind.startsWith("tensor") ? TENSOR_WORDS : 1;
  }
  return { at, words };
}

/** FNV-1a of a signature as eight hex digits: a library built for other arguments is found before it is called. */
export function hashText(text: string): string {
  let h = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) h = Math.imul(h ^ text.charCodeAt(i), 0x01000193) >>> 0;
  return h.toString(16).padStart(8, "0");
}

/** `symbol:hash` of an operation's names and kinds, one operation of what `us_ops` answers. */
export function opEntry(op: keyof Ops): string {
  const symbol = symbolOf(op);
  return `${symbol}:${hashText(`${symbol}(${OPS[op].args.map((a) => `${a.kind} ${a.name}`).join(",")})`)}`;
}
