//! Tests of the formats from outside, one module per promise.

mod blocks;
mod codes;
mod encoding;
mod finite;
mod oracle;
mod packed_rows;
mod rounding;
mod search;

use proptest::prelude::{Strategy, prop};

/// Bit patterns, so that NaNs compare and zeros keep their sign.
fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| x.to_bits()).collect()
}

/// Finite numbers of nearly every magnitude, zeros and numbers like the model's among them. The
/// very largest are left out: rounding can take them to infinity.
fn number() -> impl Strategy<Value = f32> {
    use proptest::num::f32::{NEGATIVE, NORMAL, POSITIVE, SUBNORMAL, ZERO};
    proptest::prop_oneof![
        3 => -8.0f32..8.0,
        2 => (-1000i32..1000).prop_map(|x| x as f32 / 64.0),
        1 => (POSITIVE | NEGATIVE | NORMAL | SUBNORMAL | ZERO).prop_map(|x| x % 1e38),
    ]
}

/// Rows of such numbers.
fn row(lengths: std::ops::Range<usize>) -> impl Strategy<Value = Vec<f32>> {
    prop::collection::vec(number(), lengths)
}

/// The power of two with this exponent, built one doubling at a time.
fn power_of_two(exponent: i32) -> f64 {
    let factor = if exponent < 0 { 0.5 } else { 2.0 };
    (0..exponent.abs()).fold(1.0, |power, _| power * factor)
}

/// The magnitude code nearest to `x`, of codes that ascend with their values; the even one of two
/// equally near.
fn nearest_code(x: f64, codes: std::ops::RangeInclusive<u8>, decode: fn(u8) -> f32) -> u8 {
    let magnitude = x.abs().min(decode(*codes.end()).into());
    let distance = |code: u8| (f64::from(decode(code)) - magnitude).abs();
    let mut best = *codes.start();
    for code in codes {
        let nearer = distance(code) < distance(best);
        if nearer || (distance(code) == distance(best) && code % 2 == 0) {
            best = code;
        }
    }
    best
}
