//! Rows of self-contained blocks to `f32`.
//!
//! A block's arithmetic is written over arrays of fixed size: the compiler then drops every bounds
//! check and vectorises most of the loops by itself. All products are exact in `f32` but those of
//! Q6_K, which round once, as the differences of the formats with minima do.

use crate::minifloat::{bf16_decode, e2m1_decode, e8m0_decode, f16_decode};
use crate::{Format, QuantError, iq2xxs, superblock};

/// Decodes a whole row. `bytes` must be exactly the row, and `out` a whole number of blocks.
pub fn decode_row(format: Format, bytes: &[u8], out: &mut [f32]) -> Result<(), QuantError> {
    check_bytes(format, bytes.len(), out.len())?;
    match format {
        Format::F32 => each_block(bytes, out, |block, [x]| *x = f32::from_le_bytes(*block)),
        Format::F16 => {
            each_block(bytes, out, |&block, [x]| *x = f16_decode(u16::from_le_bytes(block)))
        }
        Format::BF16 => {
            each_block(bytes, out, |&block, [x]| *x = bf16_decode(u16::from_le_bytes(block)))
        }
        Format::Q8_0 => each_block(bytes, out, q8_0),
        Format::Q4_0 => each_block(bytes, out, q4_0),
        Format::Q2K => each_block(bytes, out, superblock::q2_k),
        Format::Q4K => each_block(bytes, out, superblock::q4_k),
        Format::Q5K => each_block(bytes, out, superblock::q5_k),
        Format::Q6K => each_block(bytes, out, superblock::q6_k),
        Format::Iq2Xxs => each_block(bytes, out, iq2xxs::decode),
        Format::Mxfp4 => each_block(bytes, out, mxfp4),
        Format::Fp8Block | Format::Fp4Block => return Err(QuantError::ScalesElsewhere(format)),
    }
    Ok(())
}

/// Checks that `values` is a whole number of blocks and that `bytes` holds exactly them.
pub(crate) fn check_bytes(format: Format, bytes: usize, values: usize) -> Result<(), QuantError> {
    let expected = format.row_bytes(values).ok_or(QuantError::PartialBlock { format, values })?;
    if bytes != expected {
        return Err(QuantError::Bytes { format, values, expected, found: bytes });
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

/// `[d: f16][q: 16 bytes]`, `x = d (q - 8)`; byte `j` holds values `j` (low nibble) and `j + 16`.
fn q4_0(block: &[u8; 18], out: &mut [f32; 32]) {
    let [d0, d1, codes @ ..] = block;
    let d = f16_decode(u16::from_le_bytes([*d0, *d1]));
    for (j, &q) in codes.iter().enumerate() {
        out[j] = d * (f32::from(q & 15) - 8.0);
        out[j + 16] = d * (f32::from(q >> 4) - 8.0);
    }
}

/// `[scale: e8m0][q: 16 bytes]`, `x = scale e2m1(q)`; byte `j` holds values `j` (low nibble) and
/// `j + 16`.
fn mxfp4(block: &[u8; 17], out: &mut [f32; 32]) {
    let [scale, codes @ ..] = block;
    let scale = e8m0_decode(*scale);
    for (j, &q) in codes.iter().enumerate() {
        out[j] = scale * e2m1_decode(q);
        out[j + 16] = scale * e2m1_decode(q >> 4);
    }
}
