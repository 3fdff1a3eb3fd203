//! The non-linear 4-bit formats (ggml-quants.c: quantize_row_iq4_nl_impl with 7 tries each way).

use crate::blocks32::{squares, weigh};
use crate::fit::{nearest, peak, EPS};
use crate::half::put_half;
use crate::lanes::{gather, scatter, F, I};

/// kvalues_iq4nl of ggml-common.h.
const VALUES: [f32; 16] =
    [-127.0, -104.0, -83.0, -65.0, -49.0, -35.0, -22.0, -10.0, 1.0, 13.0, 25.0, 38.0, 53.0, 69.0, 89.0, 113.0];

/// Index of the nearest value, the upper one at a tie, and the value (best_index_int8).
#[inline(always)]
fn closest(x: F) -> (I, F) {
    let (mut index, mut value) = (I::splat(0), F::splat(VALUES[0]));
    for k in 1..16 {
        let above = x.ge(F::splat((VALUES[k - 1] + VALUES[k]) / 2.0));
        index = I(core::arch::wasm32::i32x4_sub(index.0, above.0));
        value = above.pick(F::splat(VALUES[k]), value);
    }
    (index, value)
}

/// 2/32 of each block's sum of squares.
#[inline(always)]
pub fn sigma2(x: &[F; 32]) -> F {
    x.iter().fold(F::splat(0.0), |s, v| s + *v * *v) * F::splat(2.0 / 32.0)
}

/// The scale of least weighted squared error; 0 for empty blocks.
#[inline(always)]
fn scale(x: &[F; 32], w: &[F; 32]) -> F {
    let zero = F::splat(0.0);
    let (max, amax) = peak(x);
    let sums = |id: F| {
        let (mut qx, mut q2) = (zero, zero);
        for i in 0..32 {
            let (_, q) = closest(id * x[i]);
            qx = qx + w[i] * q * x[i];
            q2 = q2 + w[i] * q * q;
        }
        (qx, q2)
    };
    let (qx, q2) = sums(F::splat(1.0) / (-max / F::splat(VALUES[0])));
    let mut d = zero.lt(q2).pick(qx / q2, zero);
    let mut best = d * qx;
    for t in -7..=7 {
        let (qx, q2) = sums(F::splat(t as f32 + VALUES[0]) / max);
        let better = zero.lt(q2).and((best * q2).lt(qx * qx));
        d = better.pick(qx / q2, d);
        best = better.pick(d * qx, best);
    }
    amax.lt(F::splat(EPS)).pick(zero, d)
}

#[inline(always)]
fn inverse(d: F) -> F {
    let zero = F::splat(0.0);
    d.eq(zero).pick(zero, F::splat(1.0) / d)
}

#[inline(always)]
fn own_weights(x: &[F; 32]) -> [F; 32] {
    core::array::from_fn(|i| x[i] * x[i])
}

/// Four iq4_nl blocks.
pub fn fit_nl(x: &[F; 32], w: Option<[F; 32]>) -> (F, F, [I; 32]) {
    let d = scale(x, &w.unwrap_or_else(|| own_weights(x)));
    let id = inverse(d);
    (d, d, core::array::from_fn(|i| closest(id * x[i]).0))
}

/// One iq4_xs super-block of 256.
pub fn block_xs(x: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
    let of_block = F::splat(squares(if importance.is_some() { x } else { &[] }) * (2.0 / 256.0));
    let mut scales = [0f32; 8];
    for half in 0..2 {
        let part = 128 * half..128 * half + 128;
        let lanes = gather::<32>(&x[part.clone()], 32);
        let w = match importance {
            Some(q) => weigh(&lanes, &gather::<32>(&q[part], 32), of_block),
            None => own_weights(&lanes),
        };
        scales[4 * half..4 * half + 4].copy_from_slice(&scale(&lanes, &w).lanes());
    }
    let (mut largest, mut top) = (0f32, 0f32);
    for s in scales {
        if s.abs() > largest {
            (largest, top) = (s.abs(), s);
        }
    }
    let d = -top / 32.0;
    put_half(out, d);
    let id = if d != 0.0 { 1.0 / d } else { 0.0 };
    let ls = scales.map(|s| nearest(id * s).clamp(-32, 31));
    let high = (0..8).fold(0u16, |bits, s| bits | ((ls[s] + 32) as u16 >> 4) << 2 * s);
    out[2..4].copy_from_slice(&high.to_le_bytes());
    for s in 0..4 {
        out[4 + s] = (ls[2 * s] + 32) as u8 & 15 | ((ls[2 * s + 1] + 32) as u8) << 4;
    }
    let mut l = [0u8; 128];
    for half in 0..2 {
        let lanes = gather::<32>(&x[128 * half..128 * half + 128], 32);
        let dl = |g: usize| d * ls[4 * half + g] as f32;
        let id = inverse(F(core::arch::wasm32::f32x4(dl(0), dl(1), dl(2), dl(3))));
        scatter(&core::array::from_fn::<_, 32, _>(|i| closest(id * lanes[i]).0), &mut l);
        for (b, q) in l.chunks_exact(32).enumerate() {
            let at = 8 + 64 * half + 16 * b;
            for j in 0..16 {
                out[at + j] = q[j] | q[j + 16] << 4;
            }
        }
    }
}
