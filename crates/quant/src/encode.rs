//! Rows of `f32` to blocks, by the simple rule of each format; `search` has those that need more.
//!
//! A value that is not finite makes the block's scale non-finite, so that `first_non_finite` finds
//! the block.

use crate::decode::check_bytes;
use crate::minifloat::{bf16_encode, e2m1_encode, e8m0_decode, f16_encode};
use crate::scaled::{FP4, largest_magnitude};
use crate::{Format, QuantError};

/// Encodes a whole row: F32, F16, BF16, Q8_0, Q4_0 or MXFP4. `bytes` must be exactly the row.
/// [`quantise_row`](crate::quantise_row) has Q2_K, Q4_K and IQ2_XXS too.
pub fn encode_row(format: Format, values: &[f32], bytes: &mut [u8]) -> Result<(), QuantError> {
    check_bytes(format, bytes.len(), values.len())?;
    match format {
        Format::F32 => each_block(values, bytes, |[x], block| *block = x.to_le_bytes()),
        Format::F16 => {
            each_block(values, bytes, |&[x], block| *block = f16_encode(x).to_le_bytes())
        }
        Format::BF16 => {
            each_block(values, bytes, |&[x], block| *block = bf16_encode(x).to_le_bytes())
        }
        Format::Q8_0 => each_block(values, bytes, q8_0),
        Format::Q4_0 => each_block(values, bytes, q4_0),
        Format::Mxfp4 => each_block(values, bytes, mxfp4),
        Format::Fp8Block | Format::Fp4Block => return Err(QuantError::ScalesElsewhere(format)),
        Format::Q2K | Format::Q4K | Format::Q5K | Format::Q6K | Format::Iq2Xxs => {
            return Err(QuantError::NoEncoder(format));
        }
    }
    Ok(())
}

fn each_block<const ELEMS: usize, const BYTES: usize>(
    values: &[f32],
    bytes: &mut [u8],
    encode: impl Fn(&[f32; ELEMS], &mut [u8; BYTES]),
) {
    let (values, _) = values.as_chunks::<ELEMS>();
    let (blocks, _) = bytes.as_chunks_mut::<BYTES>();
    for (values, block) in values.iter().zip(blocks) {
        encode(values, block);
    }
}

/// The largest magnitude becomes 127. Values are divided by the scale before it is rounded to f16,
/// halves away from zero.
fn q8_0(values: &[f32; 32], block: &mut [u8; 34]) {
    let [d0, d1, codes @ ..] = block;
    let d = largest_magnitude(values) as f32 / 127.0;
    let inverse = inverse(d);
    [*d0, *d1] = f16_encode(d).to_le_bytes();
    for (q, x) in codes.iter_mut().zip(values) {
        *q = (x * inverse).round() as i8 as u8;
    }
}

/// The value of largest magnitude, the first of equals, becomes -8, so that all sixteen steps are
/// in use; the scale has its sign, negated. Halves round up, and what would be step 16 is step 15.
fn q4_0(values: &[f32; 32], block: &mut [u8; 18]) {
    let [d0, d1, codes @ ..] = block;
    let magnitude = largest_magnitude(values) as f32;
    let negative =
        values.iter().find(|x| x.abs() == magnitude).is_some_and(|x| x.is_sign_negative());
    let d = if negative { magnitude } else { -magnitude } / 8.0;
    let inverse = inverse(d);
    [*d0, *d1] = f16_encode(d).to_le_bytes();
    let code = |x: f32| ((x * inverse + 8.5) as u8).min(15);
    let (low, high) = values.split_at(16);
    for (q, (&low, &high)) in codes.iter_mut().zip(low.iter().zip(high)) {
        *q = code(low) | code(high) << 4;
    }
}

/// The scale is the smallest power of two that leaves nothing beyond 6; values round to nearest,
/// ties to even.
fn mxfp4(values: &[f32; 32], block: &mut [u8; 17]) {
    let [scale, codes @ ..] = block;
    *scale = FP4.scale(largest_magnitude(values));
    let inverse = 1.0 / f64::from(e8m0_decode(*scale));
    let code = |x: f32| e2m1_encode(f64::from(x) * inverse);
    let (low, high) = values.split_at(16);
    for (q, (&low, &high)) in codes.iter_mut().zip(low.iter().zip(high)) {
        *q = code(low) | code(high) << 4;
    }
}

fn inverse(d: f32) -> f32 {
    if d == 0.0 { 0.0 } else { 1.0 / d }
}
