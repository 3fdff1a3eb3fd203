//! Four f32 or i32 at a time. Each lane is another block, so that every sum runs in ggml's order and every rounding is
//! the one C makes: the bytes are the same, four times as fast.

use core::arch::wasm32::*;
use core::ops::{Add, Div, Mul, Neg, Sub};

#[derive(Clone, Copy)]
pub struct F(pub v128);
#[derive(Clone, Copy)]
pub struct I(pub v128);
/// All ones or all zeros in each lane.
#[derive(Clone, Copy)]
pub struct Mask(pub v128);

impl F {
    #[inline(always)]
    pub fn splat(x: f32) -> F {
        F(f32x4_splat(x))
    }
    #[inline(always)]
    pub fn abs(self) -> F {
        F(f32x4_abs(self.0))
    }
    #[inline(always)]
    pub fn sqrt(self) -> F {
        F(f32x4_sqrt(self.0))
    }
    /// `if o < self { o } else { self }`
    #[inline(always)]
    pub fn lower(self, o: F) -> F {
        F(f32x4_pmin(self.0, o.0))
    }
    /// `if self < o { o } else { self }`
    #[inline(always)]
    pub fn higher(self, o: F) -> F {
        F(f32x4_pmax(self.0, o.0))
    }
    #[inline(always)]
    pub fn lt(self, o: F) -> Mask {
        Mask(f32x4_lt(self.0, o.0))
    }
    #[inline(always)]
    pub fn ge(self, o: F) -> Mask {
        Mask(f32x4_ge(self.0, o.0))
    }
    #[inline(always)]
    pub fn eq(self, o: F) -> Mask {
        Mask(f32x4_eq(self.0, o.0))
    }
    /// The nearest integer, ties to even, by ggml's addition of 1.5 * 2^23 (nearest_int), wrapping as it does.
    #[inline(always)]
    pub fn nearest(self) -> I {
        let bits = v128_and(f32x4_add(self.0, f32x4_splat(12582912.0)), i32x4_splat(0x7fffff));
        I(i32x4_sub(bits, i32x4_splat(0x400000)))
    }
    #[inline(always)]
    pub fn lanes(self) -> [f32; 4] {
        let v = self.0;
        [f32x4_extract_lane::<0>(v), f32x4_extract_lane::<1>(v), f32x4_extract_lane::<2>(v), f32x4_extract_lane::<3>(v)]
    }
}

impl I {
    #[inline(always)]
    pub fn splat(x: i32) -> I {
        I(i32x4_splat(x))
    }
    #[inline(always)]
    pub fn clamp(self, low: i32, high: i32) -> I {
        I(i32x4_max(i32x4_splat(low), i32x4_min(i32x4_splat(high), self.0)))
    }
    #[inline(always)]
    pub fn float(self) -> F {
        F(f32x4_convert_i32x4(self.0))
    }
    #[inline(always)]
    pub fn add(self, o: I) -> I {
        I(i32x4_add(self.0, o.0))
    }
    #[inline(always)]
    pub fn ne(self, o: I) -> Mask {
        Mask(i32x4_ne(self.0, o.0))
    }
    #[inline(always)]
    pub fn lanes(self) -> [i32; 4] {
        let v = self.0;
        [i32x4_extract_lane::<0>(v), i32x4_extract_lane::<1>(v), i32x4_extract_lane::<2>(v), i32x4_extract_lane::<3>(v)]
    }
}

impl Mask {
    #[inline(always)]
    pub fn and(self, o: Mask) -> Mask {
        Mask(v128_and(self.0, o.0))
    }
    #[inline(always)]
    pub fn any(self) -> bool {
        v128_any_true(self.0)
    }
    /// `if self { a } else { b }` in each lane.
    #[inline(always)]
    pub fn pick(self, a: F, b: F) -> F {
        F(v128_bitselect(a.0, b.0, self.0))
    }
    #[inline(always)]
    pub fn pick_int(self, a: I, b: I) -> I {
        I(v128_bitselect(a.0, b.0, self.0))
    }
}

macro_rules! operator {
    ($trait:ident, $method:ident, $op:ident) => {
        impl $trait for F {
            type Output = F;
            #[inline(always)]
            fn $method(self, o: F) -> F {
                F($op(self.0, o.0))
            }
        }
    };
}
operator!(Add, add, f32x4_add);
operator!(Sub, sub, f32x4_sub);
operator!(Mul, mul, f32x4_mul);
operator!(Div, div, f32x4_div);

impl Neg for F {
    type Output = F;
    #[inline(always)]
    fn neg(self) -> F {
        F(f32x4_neg(self.0))
    }
}

/// Element i of four runs of N elements that begin `stride` apart; runs past the end repeat the last one.
#[inline(always)]
pub fn gather<const N: usize>(x: &[f32], stride: usize) -> [F; N] {
    let last = (x.len() - N) / stride;
    let at = [0, 1, 2, 3].map(|g: usize| g.min(last) * stride);
    core::array::from_fn(|i| F(f32x4(x[at[0] + i], x[at[1] + i], x[at[2] + i], x[at[3] + i])))
}

/// Lane g's N values to out[g * N ..], as many lanes as fit.
#[inline(always)]
pub fn scatter<const N: usize>(l: &[I; N], out: &mut [u8]) {
    let groups = (out.len() / N).min(4);
    for (i, v) in l.iter().enumerate() {
        let lanes = v.lanes();
        for g in 0..groups {
            out[g * N + i] = lanes[g] as u8;
        }
    }
}
