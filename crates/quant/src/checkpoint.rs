//! The original checkpoint's two formats: codes in one tensor, power-of-two scales in another.
//!
//! FP8: one E4M3 byte per value; a tile of 128 rows and 128 columns shares an E8M0 scale. FP4: byte `j` of a row
//! holds columns `2j` (low nibble) and `2j + 1` (high nibble); 32 columns of one row share an E8M0 scale. The
//! last tile of a row may be narrower. The product of code and scale is exact, so both decodes are.

use crate::QuantError;
use crate::minifloat::{e2m1_decode, e4m3_decode, e8m0_decode};

/// Columns that share a scale in an FP8 row.
const FP8_COLS: usize = 128;
/// Columns that share a scale in an FP4 row.
const FP4_COLS: usize = 32;

/// Decodes one FP8 row; `scales` is the scale row of the row's tile, one byte per 128 columns.
pub fn decode_fp8_row(bytes: &[u8], scales: &[u8], out: &mut [f32]) -> Result<(), QuantError> {
    check("the FP8 row", out.len(), bytes.len())?;
    check("the FP8 row's scales", out.len().div_ceil(FP8_COLS), scales.len())?;
    for ((codes, out), &scale) in bytes.chunks(FP8_COLS).zip(out.chunks_mut(FP8_COLS)).zip(scales) {
        let scale = e8m0_decode(scale);
        for (x, &code) in out.iter_mut().zip(codes) {
            *x = e4m3_decode(code) * scale;
        }
    }
    Ok(())
}

/// Decodes one FP4 row; `scales` has one byte per 32 columns.
pub fn decode_fp4_row(bytes: &[u8], scales: &[u8], out: &mut [f32]) -> Result<(), QuantError> {
    check("the FP4 row", out.len().div_ceil(2), bytes.len())?;
    check("the FP4 row's scales", out.len().div_ceil(FP4_COLS), scales.len())?;
    let groups = bytes.chunks(FP4_COLS / 2).zip(out.chunks_mut(FP4_COLS)).zip(scales);
    for ((codes, out), &scale) in groups {
        let scale = e8m0_decode(scale);
        for (pair, &code) in out.chunks_mut(2).zip(codes) {
            for (x, code) in pair.iter_mut().zip([code, code >> 4]) {
                *x = e2m1_decode(code) * scale;
            }
        }
    }
    Ok(())
}

fn check(what: &'static str, expected: usize, found: usize) -> Result<(), QuantError> {
    if found == expected { Ok(()) } else { Err(QuantError::Length { what, expected, found }) }
}
