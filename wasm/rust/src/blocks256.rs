//! K-quants: super-blocks of 256 elements (ggml-quants.c: quantize_row_q*_K_ref, and *_impl with an importance matrix).

use crate::blocks32::{squares, weigh};
use crate::fit::{affine, nearest, positive, symmetric, symmetric_descent, EPS};
use crate::half::put_half;
use crate::lanes::{gather, scatter, F};
use core::arch::wasm32::*;

/// The search over scales with an importance matrix: from, step, steps.
const FINE: (f32, f32, i32) = (-0.9, 0.05, 36);

/// l = clamp(nearest((x + add) / d), low, high) - low for a run of elements.
#[inline(always)]
fn indices(x: &[f32], d: f32, add: f32, low: i32, high: i32, out: &mut [u8]) {
    for (x, out) in x.chunks_exact(4).zip(out.chunks_exact_mut(4)) {
        let v = F(f32x4(x[0], x[1], x[2], x[3]));
        let l = ((v + F::splat(add)) / F::splat(d)).nearest().clamp(low, high).lanes();
        for i in 0..4 {
            out[i] = (l[i] - low) as u8;
        }
    }
}

/// The same without the addition, since x + 0 may differ from x in the sign of zero only: l is the same.
#[inline(always)]
fn signed_indices(x: &[f32], d: f32, n: i32, out: &mut [u8]) {
    indices(x, d, 0.0, -n, n - 1, out);
}

fn largest(x: &[f32]) -> f32 {
    x.iter().fold(0f32, |m, v| if *v > m { *v } else { m })
}

/// Scale, -min and sum of weights of each sub-block of N elements, and the indices.
#[inline(always)]
fn affine_blocks<const N: usize, const G: usize>(
    x: &[f32],
    top: i32,
    grid: (f32, f32, i32),
    absolute: bool,
    weights: impl Fn(&[F; N], usize) -> [F; N],
    l: &mut [u8; 256],
) -> ([f32; G], [f32; G], [f32; G]) {
    let (mut scales, mut mins, mut sums) = ([0f32; G], [0f32; G], [0f32; G]);
    for g in (0..G).step_by(4) {
        let range = N * g..N * (g + 4);
        let lanes = gather::<N>(&x[range.clone()], N);
        let w = weights(&lanes, N * g);
        let (scale, min, q) = affine(&lanes, &w, top, grid, absolute);
        scatter(&q, &mut l[range]);
        scales[g..g + 4].copy_from_slice(&scale.lanes());
        mins[g..g + 4].copy_from_slice(&min.lanes());
        sums[g..g + 4].copy_from_slice(&w.iter().fold(F::splat(0.0), |s, w| s + *w).lanes());
    }
    (scales, mins, sums)
}

/// Two bits of each element: bits 2k of byte 32n + l are element 128n + 32k + l.
fn put_pairs(l: &[u8; 256], out: &mut [u8]) {
    for n in 0..2 {
        for i in 0..32 {
            let q = |k: usize| l[128 * n + 32 * k + i] << (2 * k);
            out[32 * n + i] = q(0) | q(1) | q(2) | q(3);
        }
    }
}

/// scales[16], qs[64], d, dmin.
pub fn q2_k(x: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
    let mut l = [0u8; 256];
    let (ls, lm, d, dmin);
    if let Some(q) = importance {
        let sigma2 = F::splat(squares(x) / 256.0);
        let weights = |x: &[F; 16], at: usize| weigh(x, &gather::<16>(&q[at..at + 64], 16), sigma2);
        let (scales, mins, sums) = affine_blocks::<16, 16>(x, 3, FINE, false, weights, &mut l);
        let (s, m);
        (s, ls) = positive(&scales, &sums, 15);
        (m, lm) = positive(&mins, &sums, 15);
        d = put_half(&mut out[80..], s);
        dmin = put_half(&mut out[82..], m);
    } else {
        let weights = |x: &[F; 16], _: usize| core::array::from_fn(|i| x[i].abs());
        let (scales, mins, _) = affine_blocks::<16, 16>(x, 3, (-0.5, 0.1, 15), true, weights, &mut l);
        let (s, m) = (largest(&scales), largest(&mins));
        let under = |v: f32, all: [f32; 16]| if v > 0.0 { all.map(|a| nearest(15.0 / v * a) as u8) } else { [0; 16] };
        ls = under(s, scales);
        lm = under(m, mins);
        d = put_half(&mut out[80..], s / 15.0);
        dmin = put_half(&mut out[82..], m / 15.0);
    }
    for g in 0..16 {
        out[g] = ls[g] | lm[g] << 4;
        let dl = d * (out[g] & 15) as f32;
        if dl != 0.0 {
            let range = 16 * g..16 * g + 16;
            indices(&x[range.clone()], dl, dmin * (out[g] >> 4) as f32, 0, 3, &mut l[range]);
        }
    }
    put_pairs(&l, &mut out[16..80]);
}

/// hmask[32], qs[64], scales[12], d.
pub fn q3_k(x: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
    let mut l = [0u8; 256];
    let (mut scales, mut sums) = ([0f32; 16], [0f32; 16]);
    let sigma2 = F::splat(2.0 * squares(if importance.is_some() { x } else { &[] }) / 256.0);
    for g in (0..16).step_by(4) {
        let range = 16 * g..16 * g + 64;
        let lanes = gather::<16>(&x[range.clone()], 16);
        let (scale, q) = if let Some(q) = importance {
            let w = weigh(&lanes, &gather::<16>(&q[range.clone()], 16), sigma2);
            sums[g..g + 4].copy_from_slice(&w.iter().fold(F::splat(0.0), |s, w| s + *w).lanes());
            symmetric(&lanes, &w, 4)
        } else {
            symmetric_descent(&lanes, 4)
        };
        scatter(&q, &mut l[range]);
        scales[g..g + 4].copy_from_slice(&scale.lanes());
    }
    let (super_scale, ls) = if importance.is_some() {
        let splat = |v: [f32; 16]| v.map(F::splat);
        let (d, l) = symmetric(&splat(scales), &splat(sums), 32);
        (d.lanes()[0], l.map(|l| l.lanes()[0] as u8))
    } else {
        let top = strongest(&scales);
        let iscale = -32.0 / top;
        let under = |s: f32| ((nearest(iscale * s) as i8).clamp(-32, 31) + 32) as u8;
        // ggml leaves the 12 bytes zero, which reads as scales of -32, when every scale is zero.
        if top != 0.0 {
            (1.0 / iscale, scales.map(under))
        } else {
            (0.0, [0; 16])
        }
    };
    for k in 0..8 {
        out[96 + k] = ls[k] & 15 | ls[k + 8] << 4;
    }
    for k in 0..4 {
        let high = |j: usize| ls[k + 4 * j] >> 4 << (2 * j);
        out[104 + k] = high(0) | high(1) | high(2) | high(3);
    }
    let d = put_half(&mut out[108..], super_scale);
    for g in 0..16 {
        let dl = d * (ls[g] as i32 - 32) as f32;
        if dl != 0.0 {
            let range = 16 * g..16 * g + 16;
            signed_indices(&x[range.clone()], dl, 4, &mut l[range]);
        }
    }
    out[..32].fill(0);
    for (j, q) in l.iter_mut().enumerate() {
        out[j % 32] |= (*q >> 2) << (j / 32);
        *q &= 3;
    }
    put_pairs(&l, &mut out[32..96]);
}

/// The value of largest magnitude, with its sign.
fn strongest(x: &[f32]) -> f32 {
    x.iter().fold(0f32, |m, v| if v.abs() > m.abs() { *v } else { m })
}

/// The scales and minima of q4_k and q5_k, 6 bits each, into 12 bytes.
fn put_six(ls: &[u8; 8], lm: &[u8; 8], out: &mut [u8]) {
    for j in 0..4 {
        out[j] = ls[j] | ls[j + 4] >> 4 << 6;
        out[j + 4] = lm[j] | lm[j + 4] >> 4 << 6;
        out[j + 8] = ls[j + 4] & 15 | lm[j + 4] << 4;
    }
}

/// d, dmin, scales[12] of q4_k (top 15) and q5_k (top 31); returns the indices.
fn six_bit_scales(x: &[f32], importance: Option<&[f32]>, top: i32, grid: (f32, f32, i32), out: &mut [u8]) -> [u8; 256] {
    let mut l = [0u8; 256];
    let (ls, lm, d, dmin);
    if let Some(q) = importance {
        let sigma2 = F::splat(2.0 * squares(x) / 256.0);
        let weights = |x: &[F; 32], at: usize| weigh(x, &gather::<32>(&q[at..at + 128], 32), sigma2);
        let (scales, mins, sums) = affine_blocks::<32, 8>(x, top, FINE, false, weights, &mut l);
        let (s, m);
        (s, ls) = positive(&scales, &sums, 63);
        (m, lm) = positive(&mins, &sums, 63);
        d = put_half(out, s);
        dmin = put_half(&mut out[2..], m);
    } else {
        let weights = |x: &[F; 32], _: usize| {
            let sum = x.iter().fold(F::splat(0.0), |s, v| s + *v * *v);
            let mean = (sum / F::splat(32.0)).sqrt();
            core::array::from_fn(|i| mean + x[i].abs())
        };
        let (scales, mins, _) = affine_blocks::<32, 8>(x, top, grid, false, weights, &mut l);
        let (s, m) = (largest(&scales), largest(&mins));
        let under = |v: f32, all: [f32; 8]| {
            let inverse = if v > 0.0 { 63.0 / v } else { 0.0 };
            all.map(|a| (nearest(inverse * a) as u8).min(63))
        };
        ls = under(s, scales);
        lm = under(m, mins);
        d = put_half(out, s / 63.0);
        dmin = put_half(&mut out[2..], m / 63.0);
    }
    put_six(&ls, &lm, &mut out[4..16]);
    for s in 0..8 {
        let dl = d * ls[s] as f32;
        if dl != 0.0 {
            let range = 32 * s..32 * s + 32;
            indices(&x[range.clone()], dl, dmin * lm[s] as f32, 0, top, &mut l[range]);
        }
    }
    l
}

/// Nibbles: element 64k + i low and 64k + 32 + i high in byte 32k + i.
fn put_nibbles(l: &[u8; 256], out: &mut [u8]) {
    for k in 0..4 {
        for i in 0..32 {
            out[32 * k + i] = l[64 * k + i] & 15 | l[64 * k + 32 + i] << 4;
        }
    }
}

/// d, dmin, scales[12], qs[128].
pub fn q4_k(x: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
    let l = six_bit_scales(x, importance, 15, (-1.0, 0.1, 20), out);
    put_nibbles(&l, &mut out[16..]);
}

/// d, dmin, scales[12], qh[32], qs[128].
pub fn q5_k(x: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
    let l = six_bit_scales(x, importance, 31, (-0.5, 0.1, 15), out);
    for i in 0..32 {
        out[16 + i] = (0..8).fold(0, |bits, s| bits | (l[32 * s + i] >> 4) << s);
    }
    put_nibbles(&l, &mut out[48..]);
}

/// ql[128], qh[64], scales[16], d.
pub fn q6_k(x: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
    let mut l = [0u8; 256];
    let mut scales = [0f32; 16];
    for g in (0..16).step_by(4) {
        let range = 16 * g..16 * g + 64;
        let lanes = gather::<16>(&x[range.clone()], 16);
        let w = match importance {
            Some(q) => gather::<16>(&q[range.clone()], 16),
            None => core::array::from_fn(|i| lanes[i] * lanes[i]),
        };
        let (scale, q) = symmetric(&lanes, &w, 32);
        scatter(&q, &mut l[range]);
        scales[g..g + 4].copy_from_slice(&scale.lanes());
    }
    let top = strongest(&scales);
    if top.abs() < EPS {
        out.fill(0);
        return;
    }
    let iscale = -128.0 / top;
    let d = put_half(&mut out[208..], 1.0 / iscale);
    for g in 0..16 {
        let s = nearest(iscale * scales[g]).min(127) as i8;
        out[192 + g] = s as u8;
        let dl = d * s as f32;
        if dl != 0.0 {
            let range = 16 * g..16 * g + 16;
            signed_indices(&x[range.clone()], dl, 32, &mut l[range]);
        }
    }
    for n in 0..2 {
        for i in 0..32 {
            let q = |k: usize| l[128 * n + 32 * k + i];
            out[64 * n + i] = q(0) & 15 | q(2) << 4;
            out[64 * n + 32 + i] = q(1) & 15 | q(3) << 4;
            out[128 + 32 * n + i] = q(0) >> 4 | q(1) >> 4 << 2 | q(2) >> 4 << 4 | q(3) >> 4 << 6;
        }
    }
}
