//! Formats of 32 elements: q4_0, q4_1, q5_0, q5_1, q8_0, iq4_nl (ggml-quants.c: quantize_row_*_ref and *_impl).

use crate::fit::{affine, peak, symmetric};
use crate::half::put_half;
use crate::iq4;
use crate::lanes::{gather, scatter, F, I};
use core::arch::wasm32::*;

/// Weight of each element: importance * sqrt(sigma2 + x^2).
#[inline(always)]
pub fn weigh<const N: usize>(x: &[F; N], importance: &[F; N], sigma2: F) -> [F; N] {
    core::array::from_fn(|i| importance[i] * (sigma2 + x[i] * x[i]).sqrt())
}

/// The sum of squares in ggml's order.
pub fn squares(x: &[f32]) -> f32 {
    x.iter().fold(0f32, |s, v| s + v * v)
}

#[inline(always)]
fn inverse(d: F) -> F {
    let zero = F::splat(0.0);
    d.eq(zero).pick(zero, F::splat(1.0) / d)
}

#[inline(always)]
fn truncate(x: F) -> I {
    I(i32x4_trunc_sat_f32x4(x.0))
}

/// Half away from zero, as C's roundf; adding 0.5 would round 0.49999997 up.
#[inline(always)]
fn round_away(x: F) -> I {
    let whole = f32x4_trunc(x.0);
    let away = f32x4_ge(f32x4_abs(f32x4_sub(x.0, whole)), f32x4_splat(0.5));
    let sign = v128_or(v128_and(x.0, f32x4_splat(-0.0)), f32x4_splat(1.0));
    truncate(F(f32x4_add(whole, v128_and(away, sign))))
}

/// d, m (unused where the format has none) and 32 indices.
type Fitted = (F, F, [I; 32]);

fn plain_symmetric(x: &[F; 32], n: i32) -> Fitted {
    let d = peak(x).0 / F::splat(-n as f32);
    let id = inverse(d);
    let l = |i: usize| truncate(x[i] * id + F::splat(n as f32 + 0.5)).clamp(i32::MIN, 2 * n - 1);
    (d, d, core::array::from_fn(l))
}

fn plain_affine(x: &[F; 32], top: i32) -> Fitted {
    let (mut min, mut max) = (F::splat(f32::MAX), F::splat(-f32::MAX));
    for v in x {
        min = min.lower(*v);
        max = max.higher(*v);
    }
    let d = (max - min) / F::splat(top as f32);
    let id = inverse(d);
    let l = |i: usize| truncate((x[i] - min) * id + F::splat(0.5)).clamp(i32::MIN, top);
    (d, min, core::array::from_fn(l))
}

fn bytes8(x: &[F; 32]) -> Fitted {
    let d = peak(x).1 / F::splat(127.0);
    let id = inverse(d);
    (d, d, core::array::from_fn(|i| round_away(x[i] * id)))
}

fn fit(code: u32, x: &[F; 32], w: Option<[F; 32]>) -> Fitted {
    let signed = |w: &[F; 32], n| {
        let (d, l) = symmetric(x, w, n);
        (d, d, l)
    };
    let shifted = |w: &[F; 32], top| {
        let (d, negative, l) = affine(x, w, top, (-0.9, 0.05, 36), false);
        (d, -negative, l)
    };
    match (code, w) {
        (Q4_0, None) => plain_symmetric(x, 8),
        (Q4_0, Some(w)) => signed(&w, 8),
        (Q4_1, None) => plain_affine(x, 15),
        (Q4_1, Some(w)) => shifted(&w, 15),
        (Q5_0, None) => plain_symmetric(x, 16),
        (Q5_0, Some(w)) => signed(&w, 16),
        (Q5_1, None) => plain_affine(x, 31),
        (Q5_1, Some(w)) => shifted(&w, 31),
        (Q8_0, _) => bytes8(x),
        (_, w) => iq4::fit_nl(x, w),
    }
}

pub const Q4_0: u32 = 16;
pub const Q4_1: u32 = 17;
pub const Q5_0: u32 = 18;
pub const Q5_1: u32 = 19;
pub const Q8_0: u32 = 20;

/// One block's bytes: d, m, fifth bits, nibbles or bytes, as the format has them.
fn put(code: u32, d: f32, m: f32, l: &[u8], out: &mut [u8]) {
    put_half(out, d);
    if code == Q8_0 {
        out[2..].copy_from_slice(l);
        return;
    }
    let mut at = 2;
    if code == Q4_1 || code == Q5_1 {
        put_half(&mut out[2..], m);
        at = 4;
    }
    if code == Q5_0 || code == Q5_1 {
        let high = (0..32).fold(0u32, |bits, j| bits | ((l[j] >> 4) as u32) << j);
        out[at..at + 4].copy_from_slice(&high.to_le_bytes());
        at += 4;
    }
    for j in 0..16 {
        out[at + j] = l[j] & 15 | l[j + 16] << 4;
    }
}

/// One row; `importance` has a weight for each of its elements.
pub fn row(code: u32, x: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
    let blocks = x.len() / 32;
    let bytes = out.len() / blocks;
    let of_row = F::splat(squares(if importance.is_some() { x } else { &[] }) / x.len() as f32);
    let mut l = [0u8; 128];
    for first in (0..blocks).step_by(4) {
        let n = (blocks - first).min(4);
        let part = &x[32 * first..32 * (first + n)];
        let lanes = gather::<32>(part, 32);
        let w = importance.map(|q| {
            let q = gather::<32>(&q[32 * first..32 * (first + n)], 32);
            weigh(&lanes, &q, if code > Q8_0 { iq4::sigma2(&lanes) } else { of_row })
        });
        let (d, m, q) = fit(code, &lanes, w);
        scatter(&q, &mut l[..32 * n]);
        for (b, block) in out[bytes * first..bytes * (first + n)].chunks_exact_mut(bytes).enumerate() {
            put(code, d.lanes()[b], m.lanes()[b], &l[32 * b..32 * b + 32], block);
        }
    }
}
