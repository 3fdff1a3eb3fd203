//! Encoders of GGUF's block formats: rows of f32 in, the bytes ggml would write out. Decoding is
//! src/formats/dequantize.ts. Only numbers cross the border, so that a worker can instantiate the module by itself.

mod blocks256;
mod blocks32;
mod fit;
mod half;
mod iq4;
mod lanes;

use core::slice::{from_raw_parts, from_raw_parts_mut};
use std::cell::RefCell;
use wasm_bindgen::prelude::*;

thread_local! {
    /// What `reserve` hands out; u64 so that it is aligned for every type.
    static MEMORY: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
}

/// The address of at least `bytes` bytes, the same memory each time; what it held may be gone.
#[wasm_bindgen]
pub fn reserve(bytes: usize) -> *mut u8 {
    MEMORY.with_borrow_mut(|memory| {
        let words = bytes.div_ceil(8);
        if memory.len() < words {
            *memory = Vec::new(); // the old memory is given back before the new is asked for
            memory.resize(words, 0);
        }
        memory.as_mut_ptr().cast()
    })
}

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

/// Encodes `rows` rows of `cols` floats at `x` into the bytes at `out`; `importance` is null, or the address of `cols`
/// weights. Returns the number of bytes written; 0 for a format or a row length there is none of.
///
/// # Safety
/// The addresses lie in memory that `reserve` gave, with room for what they stand for.
#[wasm_bindgen]
pub unsafe fn quantize(
    code: u32,
    rows: usize,
    cols: usize,
    x: *const f32,
    importance: *const f32,
    out: *mut u8,
) -> usize {
    let Some((block, bytes)) = layout(code).filter(|(block, _)| cols > 0 && cols % block == 0) else {
        return 0;
    };
    let row_bytes = cols / block * bytes;
    let x = unsafe { from_raw_parts(x, rows * cols) };
    let out = unsafe { from_raw_parts_mut(out, rows * row_bytes) };
    let importance = if importance.is_null() { None } else { Some(unsafe { from_raw_parts(importance, cols) }) };
    for (x, out) in x.chunks_exact(cols).zip(out.chunks_exact_mut(row_bytes)) {
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
    rows * row_bytes
}
