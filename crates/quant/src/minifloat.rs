//! Floating-point codes of 4, 8 and 16 bits.
//!
//! | code | sign, exponent, mantissa bits | bias | largest | special |
//! |---|---|---|---|---|
//! | f16 | 1, 5, 10 | 15 | 65504 | infinities, NaN |
//! | bf16 | 1, 8, 7 | 127 | 3.39e38 | infinities, NaN |
//! | e4m3 | 1, 4, 3 | 7 | 448 | 0x7f and 0xff are NaN, no infinities |
//! | e2m1 | 1, 2, 1 | 1 | 6 | none |
//! | e8m0 | 0, 8, 0 | 127 | 2^127 | 255 is NaN, no zero |

/// The value of an IEEE half. Written out, and without branches once compiled, so that a loop over it vectorises.
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

static E4M3: [f32; 256] = e4m3_values();

const E2M1: [f32; 16] =
    [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0];

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
