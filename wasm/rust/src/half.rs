//! f32 to IEEE half and back, ties to even; NaN becomes 0x7e00.

pub fn to_half(x: f32) -> u16 {
    let w = x.to_bits();
    let sign = (w >> 16 & 0x8000) as u16;
    let a = w & 0x7fffffff;
    if a > 0x7f800000 {
        return sign | 0x7e00;
    }
    if a >= 0x477ff000 {
        return sign | 0x7c00;
    }
    if a < 0x38800000 {
        // Below 2^-14: adding 0.5 leaves steps of 2^-24 in the low bits, rounded by the hardware.
        return sign | (f32::from_bits(a) + 0.5).to_bits() as u16;
    }
    sign | ((a + 0xfff + (a >> 13 & 1)) >> 13).wrapping_sub(112 << 10) as u16
}

pub fn from_half(h: u16) -> f32 {
    let (exp, frac) = ((h >> 10 & 31) as u32, (h & 1023) as u32);
    let size = match exp {
        0 => frac as f32 * f32::from_bits(0x33800000), // 2^-24
        31 => f32::from_bits(0x7f800000 | frac << 13),
        _ => f32::from_bits((exp + 112) << 23 | frac << 13),
    };
    if h & 0x8000 != 0 {
        -size
    } else {
        size
    }
}

/// Writes the half nearest to x and returns its value.
pub fn put_half(out: &mut [u8], x: f32) -> f32 {
    let h = to_half(x);
    out[..2].copy_from_slice(&h.to_le_bytes());
    from_half(h)
}
