//! The round trips against their definition: search the scale, search the code.

use crate::{bits, nearest_code, power_of_two, row};
use ds4_quant::{e2m1_decode, e4m3_decode, fp4_round_trip, fp8_round_trip, hadamard};
use proptest::prelude::*;

/// One rounding of the model, as its definition has it.
struct Rounding {
    group: usize,
    floor: f64,
    codes: std::ops::RangeInclusive<u8>,
    decode: fn(u8) -> f32,
    single: fn(&mut [f32]),
    double: fn(&mut [f64]),
}

const FP8: Rounding = Rounding {
    group: 64,
    floor: 1e-4,
    codes: 0..=0x7e,
    decode: e4m3_decode,
    single: fp8_round_trip,
    double: fp8_round_trip,
};

const FP4: Rounding = Rounding {
    group: 32,
    floor: 6.0 * f32::MIN_POSITIVE as f64,
    codes: 0..=7,
    decode: e2m1_decode,
    single: fp4_round_trip,
    double: fp4_round_trip,
};

impl Rounding {
    fn by_search(&self, values: &[f64]) -> Vec<f64> {
        let largest = f64::from((self.decode)(*self.codes.end()));
        let mut rounded = Vec::new();
        for group in values.chunks(self.group) {
            let magnitude = group.iter().fold(self.floor, |m, x| m.max(x.abs()));
            let scale =
                (-126..=127).map(power_of_two).find(|scale| magnitude <= largest * scale).unwrap();
            rounded.extend(group.iter().map(|x| {
                let code = nearest_code(x / scale, self.codes.clone(), self.decode);
                (f64::from((self.decode)(code)) * scale).copysign(*x)
            }));
        }
        rounded
    }
}

fn check(values: &[f32]) {
    let wide: Vec<f64> = values.iter().map(|&x| x.into()).collect();
    for rounding in [FP8, FP4] {
        let expected = rounding.by_search(&wide);
        let narrow: Vec<f32> = expected.iter().map(|&x| x as f32).collect();

        let mut in_single = values.to_vec();
        (rounding.single)(&mut in_single);
        assert_eq!(bits(&in_single), bits(&narrow), "in single precision");
        let mut in_double = wide.clone();
        (rounding.double)(&mut in_double);
        assert_eq!(in_double, expected, "in double precision");

        let mut again = in_double.clone();
        (rounding.double)(&mut again);
        assert_eq!(again, in_double, "a second time");
    }
}

#[test]
fn at_the_edges_of_a_scale() {
    for edge in [448.0f32, 6.0, 224.0, 3.0, 1.0, 1e-4, 1e-30] {
        for x in [edge.next_down(), edge, edge.next_up()] {
            check(&[x, -x / 3.0, x / 1000.0]);
        }
    }
}

#[test]
fn nothing_and_zeros_stay_what_they_are() {
    check(&[]);
    check(&[0.0; 70]);
    check(&[-0.0; 3]);
}

#[test]
fn below_the_floor_only_the_floor_counts() {
    // The floor of 1e-4 gives the scale 2^-22, whose smallest step is 2^-31.
    let mut values = [3e-10f64, 2e-10, 1e-9];
    fp8_round_trip(&mut values);
    assert_eq!(values, [power_of_two(-31), 0.0, 2.0 * power_of_two(-31)]);
}

#[test]
fn a_double_keeps_what_single_precision_would_lose() {
    let mut values = [448.0, 1.0625 + 1e-12, -6.0];
    fp8_round_trip(&mut values);
    assert_eq!(values, [448.0, 1.125, -6.0]);
    let mut values = [6.0, 1.25 + 1e-12];
    fp4_round_trip(&mut values);
    assert_eq!(values, [6.0, 1.5]);
}

#[test]
fn a_group_with_a_number_that_is_not_finite_becomes_nan_alone() {
    for broken in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for Rounding { group, single, .. } in [FP8, FP4] {
            let mut values = vec![1.0; 2 * group];
            values[group] = broken;
            single(&mut values);
            assert_eq!(values[..group], vec![1.0; group]);
            assert!(values[group..].iter().all(|x| x.is_nan()));
        }
    }
}

#[test]
fn hadamard_is_the_sylvester_matrix() {
    for n in [1usize, 2, 8, 128, 256] {
        let x: Vec<f64> = (0..n).map(|i| ((i * 37 + 11) % 101) as f64 / 7.0 - 6.0).collect();
        let mut fast = x.clone();
        hadamard(&mut fast).unwrap();
        for (row, fast) in fast.iter().enumerate() {
            let sign =
                |col: usize| if (row & col).count_ones().is_multiple_of(2) { 1.0 } else { -1.0 };
            let slow: f64 = (0..n).map(|col| sign(col) * x[col]).sum::<f64>() / (n as f64).sqrt();
            assert!((fast - slow).abs() < 1e-12, "row {row} of {n}: {fast} {slow}");
        }
        hadamard(&mut fast).unwrap();
        assert!(fast.iter().zip(&x).all(|(a, b)| (a - b).abs() < 1e-12), "its own inverse");
    }
}

#[test]
fn hadamard_needs_a_power_of_two() {
    for n in [0, 3, 96, 129] {
        let mut values = vec![1.0f32; n];
        assert!(hadamard(&mut values).is_err(), "{n}");
        assert_eq!(values, vec![1.0; n], "untouched");
    }
}

proptest! {
    #[test]
    fn any_row_rounds_as_defined(values in row(0..200)) {
        check(&values);
    }
}
