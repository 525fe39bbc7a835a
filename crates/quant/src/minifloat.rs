//! Floating-point codes of 4, 8 and 16 bits.
//!
//! | code | sign, exponent, mantissa bits | bias | largest | special |
//! |---|---|---|---|---|
//! | f16 | 1, 5, 10 | 15 | 65504 | infinities, NaN |
//! | bf16 | 1, 8, 7 | 127 | 3.39e38 | infinities, NaN |
//! | e4m3 | 1, 4, 3 | 7 | 448 | 0x7f and 0xff are NaN, no infinities |
//! | e2m1 | 1, 2, 1 | 1 | 6 | none |
//! | e8m0 | 0, 8, 0 | 127 | 2^127 | 255 is NaN, no zero |
//!
//! Encoding rounds to the nearest code and ties to the even one, straight from the `f64` (an `f32`
//! widens without loss), so no value is ever rounded twice. Beyond the largest value, f16 and bf16
//! become infinite as IEEE says, e4m3 and e2m1 stay at their largest. The sign of zero is kept.

/// The value of an IEEE half. A loop over it vectorises, as one over a hardware conversion behind a
/// run-time check would not.
#[inline]
pub fn f16_decode(bits: u16) -> f32 {
    let sign = u32::from(bits & 0x8000) << 16;
    let exponent = u32::from(bits >> 10) & 0x1f;
    let mantissa = u32::from(bits & 0x3ff);
    let magnitude = if exponent == 0 {
        (mantissa as f32 * (1.0 / (1 << 24) as f32)).to_bits()
    } else if exponent == 0x1f {
        0x7f80_0000 | mantissa << 13
    } else {
        (exponent + 127 - 15) << 23 | mantissa << 13
    };
    f32::from_bits(sign | magnitude)
}

/// The value of a bfloat16.
#[inline]
pub fn bf16_decode(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// The value of an E8M0 scale: `2^(code - 127)`, and NaN for 255.
#[inline]
pub fn e8m0_decode(code: u8) -> f32 {
    match code {
        0 => f32::from_bits(0x0040_0000), // 2^-127 is below the normal numbers
        255 => f32::NAN,
        _ => f32::from_bits(u32::from(code) << 23),
    }
}

/// The value of an E4M3 code.
#[inline]
pub fn e4m3_decode(code: u8) -> f32 {
    E4M3[usize::from(code)]
}

/// The value of an E2M1 code; bits above the low four are ignored.
#[inline]
pub fn e2m1_decode(code: u8) -> f32 {
    E2M1[usize::from(code & 15)]
}

/// The nearest IEEE half. NaN stays NaN.
pub fn f16_encode(x: impl Into<f64>) -> u16 {
    let x = x.into();
    let magnitude = if x.is_nan() { 0x7e00 } else { nearest(x, 10, 15).min(0x7c00) };
    (u16::from(x.is_sign_negative()) << 15) | magnitude as u16
}

/// The nearest bfloat16. NaN stays NaN.
pub fn bf16_encode(x: impl Into<f64>) -> u16 {
    let x = x.into();
    let magnitude = if x.is_nan() { 0x7fc0 } else { nearest(x, 7, 127).min(0x7f80) };
    (u16::from(x.is_sign_negative()) << 15) | magnitude as u16
}

/// The nearest E4M3 code; beyond 448, infinities included, the code of 448. NaN stays NaN.
#[inline]
pub fn e4m3_encode(x: impl Into<f64>) -> u8 {
    let x = x.into();
    let magnitude = if x.is_nan() { 0x7f } else { nearest(x, 3, 7).min(0x7e) };
    (u8::from(x.is_sign_negative()) << 7) | magnitude as u8
}

/// The nearest E2M1 code; beyond 6, infinities included, the code of 6. There is no NaN code: NaN
/// becomes zero, and it is the scale of its group that carries the NaN.
#[inline]
pub fn e2m1_encode(x: impl Into<f64>) -> u8 {
    let x = x.into();
    let magnitude = if x.is_nan() { 0 } else { nearest(x, 1, 1).min(7) };
    (u8::from(x.is_sign_negative()) << 3) | magnitude as u8
}

/// The code of the nearest magnitude in a format with so many mantissa bits and such a bias, as if
/// its exponents went on for ever.
///
/// Between 2^e and 2^(e+1) a format counts in steps of 2^(e - mantissa_bits), and below its smallest
/// normal number in the same steps as just above it. Codes go up by one with each step, so the code
/// is the nearest count of steps plus what the exponents below have used up; and a count that is
/// rounded up to the next power of two lands on the code that belongs there.
#[inline]
fn nearest(x: f64, mantissa_bits: u64, bias: u64) -> u64 {
    // Adding 2^52 leaves no bits for a fraction: the sum is rounded to an integer, ties to even,
    // and its low bits are that integer.
    const INTEGERS: f64 = (1u64 << 52) as f64;
    let x = x.abs();
    let smallest_normal = 1023 + 1 - bias;
    let exponent = (x.to_bits() >> 52).clamp(smallest_normal, 2046);
    let steps_to_one = f64::from_bits((2 * 1023 + mantissa_bits - exponent) << 52);
    let steps = (x * steps_to_one + INTEGERS).to_bits() - INTEGERS.to_bits();
    steps + ((exponent - smallest_normal) << mantissa_bits)
}

const E2M1: [f32; 16] =
    [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0];

static E4M3: [f32; 256] = e4m3_values();

const fn e4m3_values() -> [f32; 256] {
    let mut values = [f32::NAN; 256];
    let mut code = 0;
    while code < 0x7f {
        let mantissa = (code & 7) as f32;
        let magnitude = match code >> 3 {
            0 => mantissa / 512.0,
            exponent => (1.0 + mantissa / 8.0) * f32::from_bits((exponent as u32 + 127 - 7) << 23),
        };
        values[code] = magnitude;
        values[code | 0x80] = -magnitude;
        code += 1;
    }
    values
}
