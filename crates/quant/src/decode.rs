//! Rows of self-contained blocks to `f32`.
//!
//! A block's arithmetic is written over arrays of fixed size: the compiler then drops every bounds check and
//! vectorises most of the loops by itself.

use crate::minifloat::{bf16_decode, f16_decode};
use crate::{Format, QuantError};

/// Decodes a whole row. `bytes` must be exactly the row, and `out` a whole number of blocks.
pub fn decode_row(format: Format, bytes: &[u8], out: &mut [f32]) -> Result<(), QuantError> {
    if format.scale_tile().is_some() {
        return Err(QuantError::ScalesElsewhere(format));
    }
    check_row(format, bytes.len(), out.len())?;
    match format {
        Format::F32 => each_block(bytes, out, |block, [x]| *x = f32::from_le_bytes(*block)),
        Format::F16 => {
            each_block(bytes, out, |block, [x]| *x = f16_decode(u16::from_le_bytes(*block)))
        }
        Format::BF16 => {
            each_block(bytes, out, |block, [x]| *x = bf16_decode(u16::from_le_bytes(*block)));
        }
        Format::Q8_0 => each_block(bytes, out, q8_0),
        _ => return Err(QuantError::NoEncoder(format)),
    }
    Ok(())
}

/// Checks that `values` is a whole number of blocks and that `bytes` holds exactly them.
pub(crate) fn check_row(format: Format, bytes: usize, values: usize) -> Result<(), QuantError> {
    let expected = format.row_bytes(values).ok_or(QuantError::PartialBlock { format, values })?;
    if bytes != expected {
        return Err(QuantError::Length { what: format.name(), expected, found: bytes });
    }
    Ok(())
}

/// Runs `decode` over every block of `BYTES` bytes and the `ELEMS` values that it holds.
fn each_block<const BYTES: usize, const ELEMS: usize>(
    bytes: &[u8],
    out: &mut [f32],
    decode: impl Fn(&[u8; BYTES], &mut [f32; ELEMS]),
) {
    let (blocks, _) = bytes.as_chunks::<BYTES>();
    let (values, _) = out.as_chunks_mut::<ELEMS>();
    for (block, values) in blocks.iter().zip(values) {
        decode(block, values);
    }
}

/// `[d: f16][q: i8 x 32]`, `x = d q`.
fn q8_0(block: &[u8; 34], out: &mut [f32; 32]) {
    let [d0, d1, codes @ ..] = block;
    let d = f16_decode(u16::from_le_bytes([*d0, *d1]));
    for (x, &q) in out.iter_mut().zip(codes) {
        *x = d * f32::from(q as i8);
    }
}
