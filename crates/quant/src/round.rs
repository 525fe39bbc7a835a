//! The roundings that the model was trained with, generic over `f32` and `f64`.
//!
//! Key/value rows go through E4M3 in groups of 64, index rows through a Hadamard transform and E2M1
//! in groups of 32. The scale rule, and what becomes of a NaN, is that of every group here: the
//! whole group turns NaN.

use std::ops::{Add, Mul, Sub};

use crate::QuantError;
use crate::minifloat::{e2m1_decode, e2m1_encode, e4m3_decode, e4m3_encode, e8m0_decode};
use crate::scaled::{FP4, FP4_GROUP, FP8_GROUP, KV_FP8, ScaleRule, largest_magnitude};

/// The precisions that a forward pass may run in.
pub trait Real:
    Copy + Into<f64> + Add<Output = Self> + Sub<Output = Self> + Mul<Output = Self>
{
    /// The nearest number of this precision.
    fn from_f64(x: f64) -> Self;
}

impl Real for f32 {
    fn from_f64(x: f64) -> f32 {
        x as f32
    }
}

impl Real for f64 {
    fn from_f64(x: f64) -> f64 {
        x
    }
}

/// What values become in a key/value row: E4M3 in groups of [`FP8_GROUP`], the last one perhaps
/// shorter. Give it the part of the row before the rotary values. A group with a NaN or an infinity
/// becomes NaN throughout.
pub fn fp8_round_trip<T: Real>(values: &mut [T]) {
    for group in values.chunks_mut(FP8_GROUP) {
        round_group(group, &KV_FP8, |x| e4m3_decode(e4m3_encode(x)));
    }
}

/// What rotated values become in an index row: E2M1 in groups of [`FP4_GROUP`], the last one
/// perhaps shorter. A group with a NaN or an infinity becomes NaN throughout.
pub fn fp4_round_trip<T: Real>(values: &mut [T]) {
    for group in values.chunks_mut(FP4_GROUP) {
        round_group(group, &FP4, |x| e2m1_decode(e2m1_encode(x)));
    }
}

fn round_group<T: Real>(group: &mut [T], rule: &ScaleRule, round: impl Fn(f64) -> f32) {
    let scale = f64::from(e8m0_decode(rule.scale(largest_magnitude(group))));
    let inverse = 1.0 / scale;
    for x in group {
        *x = T::from_f64(f64::from(round((*x).into() * inverse)) * scale);
    }
}

/// The orthonormal Walsh-Hadamard transform in natural order, its own inverse. The length must be a
/// power of two.
pub fn hadamard<T: Real>(values: &mut [T]) -> Result<(), QuantError> {
    if !values.len().is_power_of_two() {
        return Err(QuantError::NotPowerOfTwo(values.len()));
    }
    let mut stride = 1;
    while stride < values.len() {
        for pair in values.chunks_exact_mut(2 * stride) {
            let (low, high) = pair.split_at_mut(stride);
            for (a, b) in low.iter_mut().zip(high) {
                (*a, *b) = (*a + *b, *a - *b);
            }
        }
        stride *= 2;
    }
    let norm = T::from_f64(1.0 / (values.len() as f64).sqrt());
    for x in values {
        *x = *x * norm;
    }
    Ok(())
}
