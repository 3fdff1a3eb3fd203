// Gated and plain activations, h = act(gate) · up, and their backward; unit u is CHUNK elements.
// Bound by memory for silu (3 floats an element forward, 7 backward), by arithmetic for the gelus.
import { int, ptr, words } from "./job";
import { expv, normalCdf, tanhv } from "./math";

const CHUNK: i32 = 4096;
const SILU: i32 = 0, GELU: i32 = 1;
/** √(2/π) and the cubic coefficient of Hendrycks & Gimpel 2016. */
const ROOT: f32 = 0.7978845608028654, CUBIC: f32 = 0.044715;
/** 1/√(2π) */
const DENSITY: f32 = 0.3989422804014327;

// @ts-ignore: decorator
@inline
function sigmoid(x: v128): v128 {
  return f32x4.div(f32x4.splat(1), f32x4.add(f32x4.splat(1), expv(f32x4.neg(x))));
}

// @ts-ignore: decorator
@inline
function tanhInner(x: v128): v128 {
  const cube = f32x4.mul(f32x4.mul(x, x), x);
  return tanhv(f32x4.mul(f32x4.splat(ROOT), f32x4.add(x, f32x4.mul(f32x4.splat(CUBIC), cube))));
}

// @ts-ignore: decorator
@inline
function activate(x: v128, act: i32): v128 {
  if (act === SILU) return f32x4.mul(x, sigmoid(x));
  if (act === GELU) return f32x4.mul(x, normalCdf(x));
  const half = f32x4.mul(f32x4.splat(0.5), x);
  return f32x4.mul(half, f32x4.add(f32x4.splat(1), tanhInner(x)));
}

// @ts-ignore: decorator
@inline
function forward(h: usize, gate: usize, up: usize, n: i32, act: i32): void {
  let i = 0;
  for (; i + 4 <= n; i += 4, h += 16, gate += 16) {
    let y = activate(v128.load(gate), act);
    if (up) {
      y = f32x4.mul(y, v128.load(up));
      up += 16;
    }
    v128.store(h, y);
  }
  for (; i < n; i++, h += 4, gate += 4) {
    let y = f32x4.extract_lane(activate(v128.load_splat<f32>(gate), act), 0);
    if (up) {
      y *= load<f32>(up);
      up += 4;
    }
    store<f32>(h, y);
  }
}

/** Arguments: h, gate, up or 0, n, act. */
export function glu(u: i32, _: usize): void {
  const at = words(u * CHUNK), n = min(CHUNK, int(3) - u * CHUNK), act = int(4);
  const h = ptr(0) + at, gate = ptr(1) + at, up = ptr(2) ? ptr(2) + at : 0;
  if (act === SILU) forward(h, gate, up, n, 0);
  else if (act === GELU) forward(h, gate, up, n, 1);
  else forward(h, gate, up, n, 2);
}

/** One vector of the backward; dGate may be gate's memory and dUp up's. */
// @ts-ignore: decorator
@inline
function step(dGate: usize, dUp: usize, h: usize, dH: v128, x: v128, up: v128, act: i32, whole: bool): void {
  const one = f32x4.splat(1);
  let y: v128, dy: v128;
  if (act === SILU) {
    const s = sigmoid(x);
    y = f32x4.mul(x, s);
    dy = f32x4.mul(s, f32x4.add(one, f32x4.mul(x, f32x4.sub(one, s))));
  } else if (act === GELU) {
    const cdf = normalCdf(x);
    y = f32x4.mul(x, cdf);
    const e = expv(f32x4.mul(f32x4.mul(f32x4.splat(-0.5), x), x));
    dy = f32x4.add(cdf, f32x4.mul(f32x4.mul(x, f32x4.splat(DENSITY)), e));
  } else {
    const t = tanhInner(x);
    const half = f32x4.splat(0.5);
    const side = f32x4.mul(half, f32x4.add(one, t));
    y = f32x4.mul(x, side);
    const slope = f32x4.mul(
      f32x4.splat(ROOT),
      f32x4.add(one, f32x4.mul(f32x4.splat(3 * CUBIC), f32x4.mul(x, x))),
    );
    const bend = f32x4.mul(f32x4.mul(half, x), f32x4.sub(one, f32x4.mul(t, t)));
    dy = f32x4.add(side, f32x4.mul(bend, slope));
  }
  const g = f32x4.mul(f32x4.mul(dH, up), dy), d = f32x4.mul(dH, y), out = f32x4.mul(y, up);
  if (whole) {
    v128.store(dGate, g);
    if (dUp) v128.store(dUp, d);
    v128.store(h, out);
  } else {
    store<f32>(dGate, f32x4.extract_lane(g, 0));
    if (dUp) store<f32>(dUp, f32x4.extract_lane(d, 0));
    store<f32>(h, f32x4.extract_lane(out, 0));
  }
}

// @ts-ignore: decorator
@inline
function backward(at: usize, n: i32, act: i32): void {
  const one = f32x4.splat(1), hasUp = ptr(5) !== 0;
  let dGate = ptr(0) + at, dUp = hasUp ? ptr(1) + at : 0, h = ptr(2) + at, dH = ptr(3) + at, gate = ptr(4) + at;
  let up = ptr(5) + at, i = 0;
  for (; i + 4 <= n; i += 4, dGate += 16, h += 16, dH += 16, gate += 16, up += 16) {
    step(dGate, dUp, h, v128.load(dH), v128.load(gate), hasUp ? v128.load(up) : one, act, true);
    if (hasUp) dUp += 16;
  }
  for (; i < n; i++, dGate += 4, h += 4, dH += 4, gate += 4, up += 4) {
    const v = hasUp ? v128.load_splat<f32>(up) : one;
    step(dGate, dUp, h, v128.load_splat<f32>(dH), v128.load_splat<f32>(gate), v, act, false);
    if (hasUp) dUp += 4;
  }
}

/** Arguments: dGate, dUp or 0, h, dH, gate, up or 0, n, act. */
export function gluBwd(u: i32, _: usize): void {
  const at = words(u * CHUNK), n = min(CHUNK, int(6) - u * CHUNK), act = int(7);
  if (act === SILU) backward(at, n, 0);
  else if (act === GELU) backward(at, n, 1);
  else backward(at, n, 2);
}
