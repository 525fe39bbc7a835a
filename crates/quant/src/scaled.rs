//! Groups of small codes under a power-of-two scale: the one mechanism behind the checkpoint's
//! formats, MXFP4, the cached rows and the rounding that the model was trained with.
//!
//! A group's scale is the smallest power of two that brings its largest magnitude within the code's
//! range. It is found from exponents and mantissas, so no logarithm can be off by one at a power of
//! two. A value over its scale is rounded straight from its own precision; multiplying by a power
//! of two, or by its inverse, is exact.
//!
//! A group with a NaN or an infinity in it gets the NaN scale, and so becomes NaN throughout.

use crate::Real;
use crate::minifloat::{e2m1_decode, e2m1_encode, e4m3_decode, e4m3_encode, e8m0_decode};

/// Values under one scale of a key/value row.
pub const FP8_GROUP: usize = 64;
/// Values under one scale of an index row, and columns under one scale of an FP4 weight.
pub const FP4_GROUP: usize = 32;

/// How a group's scale follows from its largest magnitude.
pub(crate) struct ScaleRule {
    /// The largest value of the code.
    largest: f64,
    /// A group is scaled as if it had a magnitude no smaller than this; a group of zeros needs some
    /// scale too.
    floor: f64,
}

/// Key/value rows.
pub(crate) const KV_FP8: ScaleRule = ScaleRule { largest: 448.0, floor: 1e-4 };
/// FP8 weights.
pub(crate) const WEIGHT_FP8: ScaleRule =
    ScaleRule { largest: 448.0, floor: 448.0 * SMALLEST_NORMAL };
/// Index rows and FP4 weights.
pub(crate) const FP4: ScaleRule = ScaleRule { largest: 6.0, floor: 6.0 * SMALLEST_NORMAL };

const SMALLEST_NORMAL: f64 = f32::MIN_POSITIVE as f64;

impl ScaleRule {
    /// The E8M0 code of the smallest power of two `s` with `magnitude <= largest * s`: 2^127 if
    /// none is large enough, NaN for a magnitude that is not finite.
    pub(crate) fn scale(&self, magnitude: f64) -> u8 {
        let magnitude = magnitude.max(self.floor);
        if !magnitude.is_finite() {
            return 255;
        }
        let (exponent, mantissa) = split(magnitude);
        let (largest_exponent, largest_mantissa) = split(self.largest);
        let log2 = exponent - largest_exponent + i64::from(mantissa > largest_mantissa);
        (log2 + 127).clamp(0, 254) as u8
    }
}

/// The largest magnitude, infinite if a value is NaN.
pub(crate) fn largest_magnitude<T: Real>(values: &[T]) -> f64 {
    // Magnitudes are ordered as their bits are, NaN above all; and an integer maximum vectorises.
    let largest = values.iter().fold(0, |largest, &x| x.into().abs().to_bits().max(largest));
    f64::from_bits(largest.min(f64::INFINITY.to_bits()))
}

/// Exponent and mantissa fields of a positive normal number.
fn split(x: f64) -> (i64, u64) {
    let bits = x.to_bits();
    ((bits >> 52) as i64, bits & ((1 << 52) - 1))
}

/// Writes the E4M3 codes of a group.
pub(crate) fn encode_fp8(values: &[f32], scale: u8, codes: &mut [u8]) {
    let inverse = 1.0 / f64::from(e8m0_decode(scale));
    for (code, &x) in codes.iter_mut().zip(values) {
        *code = e4m3_encode(f64::from(x) * inverse);
    }
}

/// The values of a group of E4M3 codes.
pub(crate) fn decode_fp8(codes: &[u8], scale: u8, values: &mut [f32]) {
    let scale = e8m0_decode(scale);
    for (x, &code) in values.iter_mut().zip(codes) {
        *x = e4m3_decode(code) * scale;
    }
}

/// Writes the E2M1 codes of an even number of values, the even columns in the low nibbles.
pub(crate) fn encode_fp4(values: &[f32], scale: u8, codes: &mut [u8]) {
    let inverse = 1.0 / f64::from(e8m0_decode(scale));
    let code = |x: f32| e2m1_encode(f64::from(x) * inverse);
    for (byte, &[even, odd]) in codes.iter_mut().zip(values.as_chunks::<2>().0) {
        *byte = code(even) | code(odd) << 4;
    }
}

/// The values of a group of E2M1 codes, the even columns in the low nibbles.
pub(crate) fn decode_fp4(codes: &[u8], scale: u8, values: &mut [f32]) {
    let scale = e8m0_decode(scale);
    for ([even, odd], &byte) in values.as_chunks_mut::<2>().0.iter_mut().zip(codes) {
        *even = e2m1_decode(byte) * scale;
        *odd = e2m1_decode(byte >> 4) * scale;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(rule: ScaleRule, magnitude: f64, log2: i32) {
        assert_eq!(
            i32::from(rule.scale(magnitude)) - 127,
            log2,
            "{magnitude:e} of {}",
            rule.largest
        );
    }

    #[test]
    fn scale_is_the_smallest_power_of_two_that_reaches() {
        check(KV_FP8, 448.0, 0);
        check(KV_FP8, 448.0f32.next_up().into(), 1);
        check(KV_FP8, 448.0f64.next_up(), 1);
        check(KV_FP8, 448.0f64.next_down(), 0);
        check(KV_FP8, 224.0, -1);
        check(KV_FP8, 256.0, 0);
        check(FP4, 6.0, 0);
        check(FP4, 6.0f64.next_up(), 1);
        check(FP4, 3.0, -1);
        check(FP4, 4.0, 0);
    }

    #[test]
    fn small_and_zero_groups_get_the_scale_of_the_floor() {
        for magnitude in [0.0, f64::MIN_POSITIVE, 1e-30, 1e-4] {
            check(KV_FP8, magnitude, -22);
        }
        check(FP4, 0.0, -126);
        check(FP4, 6.0 * SMALLEST_NORMAL, -126);
        check(WEIGHT_FP8, 0.0, -126);
    }

    #[test]
    fn no_scale_is_too_large_for_its_code() {
        check(FP4, f32::MAX.into(), 126);
        check(FP4, f64::MAX, 127);
        assert_eq!(FP4.scale(f64::INFINITY), 255);
        assert_eq!(largest_magnitude(&[1.0, f32::NAN, 2.0]), f64::INFINITY);
        assert_eq!(largest_magnitude(&[-3.0, 2.0]), 3.0);
    }
}
