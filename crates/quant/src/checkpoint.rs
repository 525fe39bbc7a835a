//! The original checkpoint's two formats: codes in one tensor, power-of-two scales in another.
//!
//! FP8: one E4M3 byte per value; a tile of 128 rows and 128 columns shares an E8M0 scale. FP4: byte
//! `j` of a row holds columns `2j` (low nibble) and `2j + 1` (high nibble); 32 columns of one row
//! share an E8M0 scale. The last tile of a row, and of a matrix, may be smaller.

use crate::decode::check_bytes;
use crate::scaled::{self, FP4, FP4_GROUP, WEIGHT_FP8, largest_magnitude};
use crate::{Format, QuantError};

/// Rows, and columns, that share a scale of an FP8 matrix.
const FP8_TILE: usize = 128;

/// Decodes one FP8 row; `scales` is the scale row of the row's tile, one byte per 128 columns.
pub fn decode_fp8_row(bytes: &[u8], scales: &[u8], out: &mut [f32]) -> Result<(), QuantError> {
    check_bytes(Format::Fp8Block, bytes.len(), out.len())?;
    check("the scales of an FP8 row", out.len().div_ceil(FP8_TILE), scales.len())?;
    for ((codes, out), &scale) in bytes.chunks(FP8_TILE).zip(out.chunks_mut(FP8_TILE)).zip(scales) {
        scaled::decode_fp8(codes, scale, out);
    }
    Ok(())
}

/// Decodes one FP4 row; `scales` has one byte per 32 columns.
pub fn decode_fp4_row(bytes: &[u8], scales: &[u8], out: &mut [f32]) -> Result<(), QuantError> {
    check_fp4(out.len(), bytes.len(), scales.len())?;
    let groups = bytes.chunks(FP4_GROUP / 2).zip(out.chunks_mut(FP4_GROUP));
    for ((codes, out), &scale) in groups.zip(scales) {
        scaled::decode_fp4(codes, scale, out);
    }
    Ok(())
}

/// Encodes a matrix of `cols` columns as FP8, with one scale per tile in `scales`, row by row of
/// tiles. Each scale is the smallest power of two that leaves nothing of its tile beyond 448.
pub fn encode_fp8(
    values: &[f32],
    cols: usize,
    codes: &mut [u8],
    scales: &mut [u8],
) -> Result<(), QuantError> {
    check_bytes(Format::Fp8Block, codes.len(), values.len())?;
    if values.is_empty() {
        return check("the scales of an FP8 matrix", 0, scales.len());
    }
    if !values.len().is_multiple_of(cols) {
        let expected = values.len().div_ceil(cols.max(1)).saturating_mul(cols);
        return Err(QuantError::Values { what: "an FP8 matrix", expected, found: values.len() });
    }
    let tiles_across = cols.div_ceil(FP8_TILE);
    let tiles_down = (values.len() / cols).div_ceil(FP8_TILE);
    check("the scales of an FP8 matrix", tiles_across * tiles_down, scales.len())?;

    let bands = values.chunks(FP8_TILE * cols).zip(codes.chunks_mut(FP8_TILE * cols));
    for ((values, codes), scales) in bands.zip(scales.chunks_mut(tiles_across)) {
        for (tile, scale) in scales.iter_mut().enumerate() {
            let columns = tile * FP8_TILE..cols.min((tile + 1) * FP8_TILE);
            let magnitudes =
                values.chunks(cols).map(|row| largest_magnitude(&row[columns.clone()]));
            *scale = WEIGHT_FP8.scale(magnitudes.fold(0.0, f64::max));
            for (row, codes) in values.chunks(cols).zip(codes.chunks_mut(cols)) {
                scaled::encode_fp8(&row[columns.clone()], *scale, &mut codes[columns.clone()]);
            }
        }
    }
    Ok(())
}

/// Encodes one row as FP4. Each scale is the smallest power of two that leaves nothing of its group
/// beyond 6.
pub fn encode_fp4_row(
    values: &[f32],
    codes: &mut [u8],
    scales: &mut [u8],
) -> Result<(), QuantError> {
    check_fp4(values.len(), codes.len(), scales.len())?;
    let groups = values.chunks(FP4_GROUP).zip(codes.chunks_mut(FP4_GROUP / 2));
    for ((values, codes), scale) in groups.zip(scales) {
        *scale = FP4.scale(largest_magnitude(values));
        scaled::encode_fp4(values, *scale, codes);
    }
    Ok(())
}

fn check_fp4(values: usize, bytes: usize, scales: usize) -> Result<(), QuantError> {
    check_bytes(Format::Fp4Block, bytes, values)?;
    check("the scales of an FP4 row", values.div_ceil(FP4_GROUP), scales)
}

fn check(what: &'static str, expected: usize, found: usize) -> Result<(), QuantError> {
    if found == expected { Ok(()) } else { Err(QuantError::Length { what, expected, found }) }
}
