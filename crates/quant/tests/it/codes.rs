//! Every code of every small float, and every place where rounding turns from one code to the next.

use crate::{nearest_code, power_of_two};
use ds4_quant::{
    bf16_decode, bf16_encode, e2m1_decode, e2m1_encode, e4m3_decode, e4m3_encode, e8m0_decode,
    f16_decode, f16_encode,
};
use proptest::prelude::*;

#[test]
fn e4m3_values_are_those_of_its_fields() {
    for code in 0..=255u8 {
        let (exponent, mantissa) = (i32::from(code >> 3 & 15), f64::from(code & 7));
        let value = f64::from(e4m3_decode(code));
        if code & 0x7f == 0x7f {
            assert!(value.is_nan(), "{code:#x}");
            continue;
        }
        let magnitude = match exponent {
            0 => mantissa * power_of_two(-9),
            _ => (1.0 + mantissa / 8.0) * power_of_two(exponent - 7),
        };
        assert_eq!(value.abs(), magnitude, "{code:#x}");
        assert_eq!(value.is_sign_negative(), code >= 0x80, "{code:#x}");
        assert_eq!(e4m3_encode(value), code);
    }
    assert_eq!(e4m3_decode(0x7e), 448.0);
}

#[test]
fn e2m1_values_are_the_sixteen() {
    let magnitudes = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];
    for code in 0..16u8 {
        let value = e2m1_decode(code);
        assert_eq!(value.abs(), magnitudes[usize::from(code & 7)]);
        assert_eq!(value.is_sign_negative(), code >= 8);
        assert_eq!(e2m1_encode(value), code);
        assert_eq!(
            e2m1_decode(code | 0xf0).to_bits(),
            value.to_bits(),
            "the upper bits are another's"
        );
    }
}

#[test]
fn e8m0_values_are_powers_of_two() {
    for code in 0..255u8 {
        assert_eq!(f64::from(e8m0_decode(code)), power_of_two(i32::from(code) - 127), "{code}");
    }
    assert!(e8m0_decode(255).is_nan());
}

fn check_e4m3(x: impl Into<f64>) {
    let x = x.into();
    let expected =
        nearest_code(x, 0..=0x7e, e4m3_decode) | if x.is_sign_negative() { 0x80 } else { 0 };
    assert_eq!(e4m3_encode(x), expected, "{x:e}");
}

fn check_e2m1(x: impl Into<f64>) {
    let x = x.into();
    let expected = nearest_code(x, 0..=7, e2m1_decode) | if x.is_sign_negative() { 8 } else { 0 };
    assert_eq!(e2m1_encode(x), expected, "{x:e}");
}

/// Each midpoint between neighbours, and the numbers next to it in both precisions.
fn around_midpoints(largest: u8, decode: fn(u8) -> f32, check: impl Fn(f64)) {
    for code in 0..largest {
        let middle = (decode(code) + decode(code + 1)) / 2.0;
        let wide = f64::from(middle);
        let near = [
            middle.next_down().into(),
            middle.next_up().into(),
            wide.next_down(),
            wide.next_up(),
            wide,
        ];
        for x in near {
            check(x);
            check(-x);
        }
    }
}

#[test]
fn rounding_turns_exactly_at_the_midpoints() {
    around_midpoints(0x7e, e4m3_decode, check_e4m3);
    around_midpoints(7, e2m1_decode, check_e2m1);
}

#[test]
fn ties_go_to_the_even_code() {
    assert_eq!(e4m3_encode(1.0625), 0x38, "between 1 and 1.125");
    assert_eq!(e4m3_encode(1.1875), 0x3a, "between 1.125 and 1.25");
    assert_eq!(e4m3_encode(power_of_two(-10)), 0, "between zero and the smallest");
    assert_eq!(e4m3_encode(1.9375), 0x40, "between 1.875 and 2");
    for (tie, code) in [(0.25, 0), (0.75, 2), (1.25, 2), (1.75, 4), (2.5, 4), (3.5, 6), (5.0, 6)] {
        assert_eq!(e2m1_encode(tie), code, "{tie}");
    }
}

#[test]
fn a_double_is_not_rounded_twice() {
    let beyond_the_tie = 1.0625 + 1e-12;
    assert_eq!(beyond_the_tie as f32, 1.0625);
    assert_eq!(e4m3_encode(beyond_the_tie), 0x39);
    assert_eq!(e2m1_encode(1.25 + 1e-12), 3);
    assert_eq!(f16_encode(1.0 + power_of_two(-11) + power_of_two(-40)), 0x3c01);
    assert_eq!(bf16_encode(1.0 + power_of_two(-8) + power_of_two(-40)), 0x3f81);
}

#[test]
fn what_is_beyond_the_range() {
    for x in [448.1, 464.0, 1e30, f64::INFINITY] {
        assert_eq!([e4m3_encode(x), e4m3_encode(-x)], [0x7e, 0xfe]);
        assert_eq!([e2m1_encode(x), e2m1_encode(-x)], [7, 15]);
    }
    assert_eq!(
        [f16_encode(65519.9), f16_encode(65520.0), f16_encode(-1e9)],
        [0x7bff, 0x7c00, 0xfc00]
    );
    assert_eq!(bf16_encode(f32::MAX), 0x7f80);
    assert_eq!([e4m3_encode(-0.0), e2m1_encode(-0.0)], [0x80, 8]);
}

#[test]
fn not_a_number_has_a_code_where_there_is_one() {
    for nan in [f64::NAN, -f64::NAN, f64::from_bits(0x7ff0_0000_0000_0001)] {
        assert!(e4m3_decode(e4m3_encode(nan)).is_nan());
        assert!(f16_decode(f16_encode(nan)).is_nan());
        assert!(bf16_decode(bf16_encode(nan)).is_nan());
        assert_eq!(e2m1_decode(e2m1_encode(nan)), 0.0);
    }
}

#[test]
fn every_half_and_every_bfloat16_reads_as_another_library_reads_it() {
    for code in 0..=u16::MAX {
        let (half, brain) = (half::f16::from_bits(code), half::bf16::from_bits(code));
        for (ours, theirs) in
            [(f16_decode(code), half.to_f32()), (bf16_decode(code), brain.to_f32())]
        {
            assert!(
                ours.to_bits() == theirs.to_bits() || (ours.is_nan() && theirs.is_nan()),
                "{code:#x}"
            );
        }
    }
}

#[test]
fn halves_and_bfloat16s_round_as_another_library_rounds_them() {
    let check = |x: f32| {
        assert_eq!(f16_encode(x), half::f16::from_f32(x).to_bits(), "{x:e}");
        assert_eq!(bf16_encode(x), half::bf16::from_f32(x).to_bits(), "{x:e}");
    };
    for code in 0..0x7c00 {
        let middle = (f16_decode(code) + f16_decode(code + 1).min(65536.0)) / 2.0;
        [middle.next_down(), middle, middle.next_up(), -middle].into_iter().for_each(check);
    }
    for code in 0..0x7f80u32 {
        let middle = f32::from_bits(code << 16 | 0x8000);
        [middle.next_down(), middle, middle.next_up(), -middle].into_iter().for_each(check);
    }
}

proptest! {
    #[test]
    fn any_number_goes_to_its_nearest_code(single in crate::number(), double in any::<f64>()) {
        check_e4m3(single);
        check_e2m1(single);
        prop_assume!(double.is_finite());
        check_e4m3(double);
        check_e2m1(double);
    }
}
