//! Scales, and indices under them, that fit four blocks best; the searches of ggml-quants.c, with its names in brackets.

use crate::lanes::{Mask, F, I};

/// Blocks whose largest magnitude is below this count as zero (GROUP_MAX_EPS).
pub const EPS: f32 = 1e-15;

/// ggml's nearest_int on one number.
#[inline(always)]
pub fn nearest(x: f32) -> i32 {
    ((x + 12582912.0).to_bits() & 0x7fffff) as i32 - 0x400000
}

/// The value of largest magnitude with its sign, and the magnitude; the first of equals.
#[inline(always)]
pub fn peak<const N: usize>(x: &[F; N]) -> (F, F) {
    let (mut max, mut amax) = (F::splat(0.0), F::splat(0.0));
    for v in x {
        let larger = amax.lt(v.abs());
        max = larger.pick(*v, max);
        amax = amax.higher(v.abs());
    }
    (max, amax)
}

/// x ~ scale * l + min with 0 <= l <= top, least weighted error over a grid of scales; `absolute`: |error|, not its
/// square. Returns scale, -min and l. [make_qkx2_quants, make_qkx3_quants]
pub fn affine<const N: usize>(
    x: &[F; N],
    w: &[F; N],
    top: i32,
    grid: (f32, f32, i32),
    absolute: bool,
) -> (F, F, [I; N]) {
    let (rmin, step, steps) = grid;
    let zero = F::splat(0.0);
    let (mut min, mut max) = (x[0], x[0]);
    let (mut sum_w, mut sum_x) = (w[0], w[0] * x[0]);
    for i in 1..N {
        min = min.lower(x[i]);
        max = max.higher(x[i]);
        sum_w = sum_w + w[i];
        sum_x = sum_x + w[i] * x[i];
    }
    min = min.lower(zero);
    let start = min;
    let flat = max.eq(min);
    let error = |l: &[I; N], scale: F, min: F| {
        let mut sum = zero;
        for i in 0..N {
            let diff = scale * l[i].float() + min - x[i];
            sum = sum + w[i] * if absolute { diff.abs() } else { diff * diff };
        }
        sum
    };
    let iscale = F::splat(top as f32) / (max - min);
    let mut scale = F::splat(1.0) / iscale;
    let mut best: [I; N] = core::array::from_fn(|i| (iscale * (x[i] - min)).nearest().clamp(0, top));
    let mut best_error = error(&best, scale, min);
    for s in 0..=steps {
        let iscale = F::splat(rmin + step * s as f32 + top as f32) / (max - min);
        let (mut sum_l, mut sum_l2, mut sum_xl) = (zero, zero, zero);
        let mut l = [I::splat(0); N];
        for i in 0..N {
            l[i] = (iscale * (x[i] - min)).nearest().clamp(0, top);
            let wl = w[i] * l[i].float();
            sum_l = sum_l + wl;
            sum_l2 = sum_l2 + wl * l[i].float();
            sum_xl = sum_xl + wl * x[i];
        }
        let det = sum_w * sum_l2 - sum_l * sum_l;
        let this_min = (sum_l2 * sum_x - sum_l * sum_xl) / det;
        let above = zero.lt(this_min);
        let this_scale = above.pick(sum_xl / sum_l2, (sum_w * sum_xl - sum_x * sum_l) / det);
        let this_min = above.pick(zero, this_min);
        let this_error = error(&l, this_scale, this_min);
        let better = zero.lt(det).and(this_error.lt(best_error));
        if better.any() {
            replace(&mut best, &l, better);
            best_error = better.pick(this_error, best_error);
            scale = better.pick(this_scale, scale);
            min = better.pick(this_min, min);
        }
    }
    replace(&mut best, &[I::splat(0); N], flat);
    (flat.pick(zero, scale), -flat.pick(start, min), best)
}

#[inline(always)]
fn replace<const N: usize>(best: &mut [I; N], l: &[I; N], where_: Mask) {
    for i in 0..N {
        best[i] = where_.pick_int(l[i], best[i]);
    }
}

/// x ~ scale * (l - n) with 0 <= l < 2n. Returns scale and l. [make_qx_quants, rmse_type 1]
pub fn symmetric<const N: usize>(x: &[F; N], w: &[F; N], n: i32) -> (F, [I; N]) {
    let zero = F::splat(0.0);
    let (max, amax) = peak(x);
    let empty = amax.lt(F::splat(EPS));
    let attempt = |iscale: F| {
        let (mut sum_lx, mut sum_l2) = (zero, zero);
        let mut l = [I::splat(0); N];
        for i in 0..N {
            let q = (iscale * x[i]).nearest().clamp(-n, n - 1);
            sum_lx = sum_lx + w[i] * x[i] * q.float();
            sum_l2 = sum_l2 + w[i] * q.float() * q.float();
            l[i] = q.add(I::splat(n));
        }
        (sum_lx, sum_l2, l)
    };
    let (sum_lx, sum_l2, mut best_l) = attempt(F::splat(-n as f32) / max);
    let mut scale = sum_l2.eq(zero).pick(zero, sum_lx / sum_l2);
    let mut best = scale * sum_lx;
    for t in (-9..=9).filter(|t| *t != 0) {
        let (sum_lx, sum_l2, l) = attempt(F::splat(-(n as f32 + 0.1f32 * t as f32)) / max);
        let better = zero.lt(sum_l2).and((best * sum_l2).lt(sum_lx * sum_lx));
        if better.any() {
            replace(&mut best_l, &l, better);
            scale = better.pick(sum_lx / sum_l2, scale);
            best = better.pick(scale * sum_lx, best);
        }
    }
    replace(&mut best_l, &[I::splat(0); N], empty);
    (empty.pick(zero, scale), best_l)
}

/// x ~ scale * (l - n), weights x^2, coordinate descent. [make_q3_quants]
pub fn symmetric_descent<const N: usize>(x: &[F; N], n: i32) -> (F, [I; N]) {
    let zero = F::splat(0.0);
    let (max, amax) = peak(x);
    let empty = amax.lt(F::splat(EPS));
    let iscale = F::splat(-n as f32) / max;
    let (mut sum_lx, mut sum_l2) = (zero, zero);
    let mut l = [I::splat(0); N];
    for i in 0..N {
        l[i] = (iscale * x[i]).nearest().clamp(-n, n - 1);
        let w = x[i] * x[i];
        sum_lx = sum_lx + w * x[i] * l[i].float();
        sum_l2 = sum_l2 + w * l[i].float() * l[i].float();
    }
    for _ in 0..5 {
        let mut changed = Mask(I::splat(0).0);
        for i in 0..N {
            let w = x[i] * x[i];
            let old = l[i].float();
            let slx = sum_lx - w * x[i] * old;
            let sl2 = sum_l2 - w * old * old;
            let new = (x[i] * sl2 / slx).nearest().clamp(-n, n - 1);
            let possible = zero.lt(slx).and(new.ne(l[i]));
            let slx = slx + w * x[i] * new.float();
            let sl2 = sl2 + w * new.float() * new.float();
            let better = (sum_lx * sum_lx * sl2).lt(slx * slx * sum_l2);
            let take = possible.and(zero.lt(sl2)).and(better);
            l[i] = take.pick_int(new, l[i]);
            sum_lx = take.pick(slx, sum_lx);
            sum_l2 = take.pick(sl2, sum_l2);
            changed = Mask(core::arch::wasm32::v128_or(changed.0, take.0));
        }
        if !changed.any() {
            break;
        }
    }
    let l = core::array::from_fn(|i| empty.pick_int(I::splat(0), l[i].add(I::splat(n))));
    let scale = zero.lt(sum_l2).pick(sum_lx / sum_l2, zero);
    (empty.pick(zero, scale), l)
}

/// x ~ scale * l with 0 <= l <= top for x >= 0, one block: the scales of a super-block. [make_qp_quants]
pub fn positive<const N: usize>(x: &[f32; N], w: &[f32; N], top: i32) -> (f32, [u8; N]) {
    let max = x.iter().fold(0f32, |m, v| if m > *v { m } else { *v });
    if max < EPS {
        return (0.0, [0; N]);
    }
    let error = |scale: f32, l: [i32; N]| {
        let mut sum = 0f32;
        for i in 0..N {
            let diff = x[i] - scale * l[i] as f32;
            sum += w[i] * diff * diff;
        }
        sum
    };
    let mut iscale = top as f32 / max;
    let mut best = error(1.0 / iscale, core::array::from_fn(|i| nearest(iscale * x[i]) as u8 as i32));
    for t in (-4..=4).filter(|t| *t != 0) {
        let trial = (0.1f32 * t as f32 + top as f32) / max;
        let this = error(1.0 / trial, core::array::from_fn(|i| nearest(trial * x[i]).min(top)));
        if this < best {
            best = this;
            iscale = trial;
        }
    }
    let mut l: [u8; N] = core::array::from_fn(|i| nearest(iscale * x[i]).min(top) as u8);
    let (mut sum_lx, mut sum_l2) = (0f32, 0f32);
    for i in 0..N {
        sum_lx += w[i] * x[i] * l[i] as f32;
        sum_l2 += w[i] * l[i] as f32 * l[i] as f32;
    }
    for _ in 0..5 {
        let mut changed = false;
        for i in 0..N {
            let (w, old) = (w[i], l[i] as f32);
            let mut slx = sum_lx - w * x[i] * old;
            let mut sl2 = sum_l2 - w * old * old;
            if !(slx > 0.0 && sl2 > 0.0) {
                continue;
            }
            let new = nearest(x[i] * sl2 / slx).min(top);
            if new == l[i] as i32 {
                continue;
            }
            slx += w * x[i] * new as f32;
            sl2 += w * new as f32 * new as f32;
            if slx * slx * sum_l2 > sum_lx * sum_lx * sl2 {
                l[i] = new as u8;
                (sum_lx, sum_l2) = (slx, sl2);
                changed = true;
            }
        }
        if !changed {
            break;
        }
    }
    (if sum_l2 > 0.0 { sum_lx / sum_l2 } else { 0.0 }, l)
}
