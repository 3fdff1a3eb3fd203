//! Encoders of GGUF's block formats. One function for JavaScript: rows of f32 in, the bytes ggml would write out.
//! Decoding is src/formats/dequantize.ts, which is as fast as memory.

mod blocks256;
mod blocks32;
mod fit;
mod half;
mod iq4;
mod lanes;

use wasm_bindgen::prelude::*;

/// Elements and bytes of a block, by the numbers of src/core/dtype.ts.
fn layout(code: u32) -> Option<(usize, usize)> {
    Some(match code {
        16 | 26 => (32, 18),
        17 => (32, 20),
        18 => (32, 22),
        19 => (32, 24),
        20 => (32, 34),
        21 => (256, 84),
        22 => (256, 110),
        23 => (256, 144),
        24 => (256, 176),
        25 => (256, 210),
        27 => (256, 136),
        _ => return None,
    })
}

/// Encodes `x`, whole rows of `cols` elements, into `out`.
///
/// `importance` is empty, or has a weight for each column. Fails, with the reason, when sizes do not fit.
#[wasm_bindgen]
pub fn quantize(code: u32, cols: usize, x: &[f32], importance: &[f32], out: &mut [u8]) -> Result<(), JsError> {
    let (block, bytes) = layout(code).ok_or_else(|| JsError::new("no such block format"))?;
    if cols == 0 || cols % block != 0 || x.len() % cols != 0 {
        return Err(JsError::new("rows are no multiple of the block"));
    }
    if out.len() != x.len() / block * bytes || (!importance.is_empty() && importance.len() != cols) {
        return Err(JsError::new("sizes do not fit"));
    }
    let importance = if importance.is_empty() { None } else { Some(importance) };
    for (x, out) in x.chunks_exact(cols).zip(out.chunks_exact_mut(cols / block * bytes)) {
        if block == 32 {
            blocks32::row(code, x, importance, out);
            continue;
        }
        let encode = match code {
            21 => blocks256::q2_k,
            22 => blocks256::q3_k,
            23 => blocks256::q4_k,
            24 => blocks256::q5_k,
            25 => blocks256::q6_k,
            _ => iq4::block_xs,
        };
        for (b, (x, out)) in x.chunks_exact(256).zip(out.chunks_exact_mut(bytes)).enumerate() {
            encode(x, importance.map(|q| &q[256 * b..256 * b + 256]), out);
        }
    }
    Ok(())
}
