// Cross-entropy of rows of logits and its gradient in place; unit u is one row. Three passes over a row of V floats, one
// of them with an exponential (two under a soft cap, whose slope needs the scores again).
import { BAD_TARGET, fail, float, int, ptr, words } from "./job";
import { exp1, expDown, max4, sum4 } from "./math";
import { capScores, rowExp } from "./attention";

/** Elements summed in f32 before the sum goes into f64. */
const RUN: i32 = 256;

/** Arguments: loss, logits, target, weight, N, V; softcap, smoothing, zLoss. */
export function crossEntropy(u: i32, _: usize): void {
  const V = int(5), z = ptr(1) + words(u * V), target = load<i32>(ptr(2) + words(u));
  const weight = load<f32>(ptr(3) + words(u)), cap = float(0), smoothing = float(1), zLoss = float(2);
  if (weight === 0) {
    store<f32>(ptr(0) + words(u), 0);
    memory.fill(z, 0, words(V));
    return;
  }
  if (<u32>target >= <u32>V) return fail(BAD_TARGET, u, target);
  if (cap > 0) capScores(z, V, cap);
  const top = largest(z, V), hit = load<f32>(z + words(target));
  let total: f64 = 0, sum: f64 = 0;
  for (let i = 0; i < V; i += RUN) {
    const n = min(RUN, V - i);
    if (smoothing !== 0) sum += <f64>sumOf(z + words(i), n);
    total += <f64>(cap > 0 ? sumExp(z + words(i), n, top) : rowExp(z + words(i), n, top));
  }
  const lse = <f64>top + Math.log(total);
  const loss = lse - <f64>(1 - smoothing) * <f64>hit - <f64>smoothing * (sum / <f64>V) + <f64>zLoss * lse * lse;
  store<f32>(ptr(0) + words(u), <f32>loss);
  const p = weight * (1 + 2 * zLoss * <f32>lse) / <f32>total, off = weight * (smoothing / <f32>V);
  const cut: f32 = cap > 0 ? 1 - (hit / cap) * (hit / cap) : 1;
  const atTarget = (p * exp1(hit - top) - weight * (1 - smoothing) - off) * cut;
  if (cap > 0) gradient(z, V, top, p, off, cap);
  else affine(z, V, p, off);
  store<f32>(z + words(target), atTarget);
}

function largest(z: usize, V: i32): f32 {
  let m = f32x4.splat(-Infinity), i = 0;
  for (; i + 4 <= V; i += 4, z += 16) m = f32x4.max(m, v128.load(z));
  let top = max4(m);
  for (; i < V; i++, z += 4) top = max(top, load<f32>(z));
  return top;
}

function sumExp(z: usize, n: i32, top: f32): f32 {
  const t = f32x4.splat(top);
  let s = f32x4.splat(0), i = 0;
  for (; i + 4 <= n; i += 4, z += 16) s = f32x4.add(s, expDown(f32x4.sub(v128.load(z), t)));
  let total = sum4(s);
  for (; i < n; i++, z += 4) total += exp1(load<f32>(z) - top);
  return total;
}

function sumOf(z: usize, n: i32): f32 {
  let s = f32x4.splat(0), i = 0;
  for (; i + 4 <= n; i += 4, z += 16) s = f32x4.add(s, v128.load(z));
  let total = sum4(s);
  for (; i < n; i++, z += 4) total += load<f32>(z);
  return total;
}

/** z = p · z - off */
function affine(z: usize, V: i32, p: f32, off: f32): void {
  const p4 = f32x4.splat(p), off4 = f32x4.splat(off);
  let i = 0;
  for (; i + 4 <= V; i += 4, z += 16) v128.store(z, f32x4.sub(f32x4.mul(p4, v128.load(z)), off4));
  for (; i < V; i++, z += 4) store<f32>(z, p * load<f32>(z) - off);
}

/** z = (p · e^(z - top) - off) · (1 - (z/cap)²) */
function gradient(z: usize, V: i32, top: f32, p: f32, off: f32, cap: f32): void {
  const t = f32x4.splat(top), p4 = f32x4.splat(p), off4 = f32x4.splat(off), r = f32x4.splat(cap > 0 ? 1 / cap : 0);
  const one = f32x4.splat(1);
  let i = 0;
  for (; i + 4 <= V; i += 4, z += 16) {
    const x = v128.load(z), y = f32x4.mul(x, r);
    const g = f32x4.sub(f32x4.mul(p4, expDown(f32x4.sub(x, t))), off4);
    v128.store(z, f32x4.mul(g, f32x4.sub(one, f32x4.mul(y, y))));
  }
  const back: f32 = cap > 0 ? 1 / cap : 0;
  for (; i < V; i++, z += 4) {
    const x = load<f32>(z), y = x * back;
    store<f32>(z, (p * exp1(x - top) - off) * (1 - y * y));
  }
}
