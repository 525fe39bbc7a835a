//! What the float loops promise: the same bits from every version of a loop.

use super::*;
use ds4_quant::{bf16_encode, e4m3_decode, f16_encode};

fn numbers(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| x.to_bits()).collect()
}

/// Runs all kernels on the same inputs and gives everything that they computed.
fn everything(kernels: &Kernels, count: usize, width: usize) -> Vec<Vec<u32>> {
    let rows = numbers(count * width, 1);
    let x: [Vec<f32>; TOGETHER] = std::array::from_fn(|n| numbers(width, 2 + n as u32));
    let weights: [Vec<f32>; TOGETHER] = std::array::from_fn(|n| numbers(count, 9 + n as u32));
    let halves: Vec<u8> = rows.iter().flat_map(|&x| f16_encode(x).to_le_bytes()).collect();
    let bfloats: Vec<u8> = rows.iter().flat_map(|&x| bf16_encode(x).to_le_bytes()).collect();
    let codes: Vec<u8> = (0..=255).collect();
    let mut out = vec![vec![0.0; count]; 3];
    let mut together = vec![vec![0.0; count]; TOGETHER];
    let mut sums: Vec<Vec<f32>> = x.to_vec();
    let mut sum = x[0].clone();
    let mut wide = vec![0.0; count * width];
    let (mut e, mut gated) = (numbers(count * width, 5), numbers(count * width, 6));
    e.iter_mut().for_each(|e| *e *= 90.0);
    let (mut total, mut pooled) = (numbers(width, 7), numbers(width, 8));
    let mut values = vec![0.0; 256];
    // SAFETY: this processor has the instructions of what is available.
    unsafe {
        (kernels.dots)(&rows, &x[0], &mut out[0]);
        (kernels.dots_f16)(&halves, &x[0], &mut out[1]);
        (kernels.dots_bf16)(&bfloats, &x[0], &mut out[2]);
        let [a, b, c, d] = &mut together[..] else { panic!() };
        (kernels.dots_together)(&rows, x.each_ref().map(|x| &x[..]), &mut [a, b, c, d]);
        (kernels.widen_f16)(&halves, &mut wide);
        (kernels.accumulate)(&rows, &weights[0], &mut sum);
        let [a, b, c, d] = &mut sums[..] else { panic!() };
        let weights = weights.each_ref().map(|w| &w[..]);
        (kernels.accumulate_together)(&rows, weights, &mut [a, b, c, d]);
        total[0] = (kernels.exp_all)(&mut e, 0.5, 1.0);
        (kernels.swiglu)(&mut gated, &rows, 0.75, 1.5);
        (kernels.pool_step)(&x[1], &x[2], &x[3], &mut total, &mut pooled);
        (kernels.e4m3)(&codes, 0.25, &mut values);
    }
    let all = out.into_iter().chain(together).chain(sums);
    all.chain([sum, wide, e, gated, total, pooled, values]).map(|v| bits(&v)).collect()
}

#[test]
fn instruction_sets_do_not_change_a_bit() {
    for (count, width) in [(1, 1), (3, 17), (4, 16), (9, 96), (19, 515)] {
        let want = everything(&plain::KERNELS, count, width);
        for kernels in available() {
            assert_eq!(everything(&kernels, count, width), want);
        }
    }
}

#[test]
fn company_does_not_change_a_bit() {
    for (count, width) in [(1, 1), (3, 17), (4, 16), (9, 96), (19, 515)] {
        let (rows, x) = (numbers(count * width, 1), numbers(width, 2));
        let alone: Vec<f32> = rows.chunks(width).map(|row| dot(row, &x)).collect();
        for (row, got) in rows.chunks(width).zip(&alone) {
            let want: f64 = row.iter().zip(&x).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum();
            assert!((want - f64::from(*got)).abs() < 1e-4, "{want} {got}");
        }
        let weights = numbers(count, 3);
        let mut one_by_one = x.clone();
        for (row, w) in rows.chunks(width).zip(&weights) {
            one_by_one.iter_mut().zip(row).for_each(|(sum, x)| *sum = w.mul_add(*x, *sum));
        }
        let mut out = vec![vec![0.0; count]; 5];
        let mut sums = vec![x.clone(); 5];
        let [a, b, c, d, e] = &mut out[..] else { panic!() };
        dots(&rows, &x, a);
        dots_together(&rows, [&x; 4], &mut [b, c, d, e]);
        let [a, b, c, d, e] = &mut sums[..] else { panic!() };
        accumulate(&rows, &weights, a);
        accumulate_together(&rows, [&weights; 4], &mut [b, c, d, e]);
        assert!(out.iter().all(|out| bits(out) == bits(&alone)));
        assert!(sums.iter().all(|sum| bits(sum) == bits(&one_by_one)));
    }
}

#[test]
fn exponentials_are_close_and_end_well() {
    for i in -86_000..88_000 {
        let x = i as f32 * 0.001;
        let (got, want) = (f64::from(curves::exp(x)), f64::from(x).exp());
        assert!((got - want).abs() <= want * 2.0e-7, "e^{x}: {got}, not {want}");
    }
    assert_eq!(curves::exp(0.0), 1.0);
    assert_eq!(curves::exp(-88.0), 0.0);
    assert_eq!(curves::exp(f32::NEG_INFINITY), 0.0);
    assert!(curves::exp(1e9) > 1e38 && curves::exp(1e9).is_finite());
    assert!(curves::exp(f32::NAN).is_nan());
}

#[test]
fn swiglu_clamps_the_gate_from_above_and_the_rest_from_both_sides() {
    let check = |gate: f32, up: f32, want: f64| {
        let mut got = [gate];
        swiglu(&mut got, &[up], 10.0, 1.0);
        let got = f64::from(got[0]);
        assert!((got - want).abs() <= 1e-6 * want.abs(), "{gate} {up}: {got}, not {want}");
    };
    let silu = |x: f64| x / (1.0 + (-x).exp());
    check(20.0, 3.0, silu(10.0) * 3.0);
    check(-20.0, 3.0, silu(-20.0) * 3.0);
    check(1.0, 30.0, silu(1.0) * 10.0);
    check(1.0, -30.0, silu(1.0) * -10.0);
    for (gate, up) in [(f32::NAN, 1.0), (1.0, f32::NAN)] {
        let mut got = [gate];
        swiglu(&mut got, &[up], 10.0, 1.0);
        assert!(got[0].is_nan());
    }
}

#[test]
fn codes_of_cached_rows_have_their_values() {
    let codes: Vec<u8> = (0..=255).collect();
    for scale in [1.0, 2.0f32.powi(-22), 2.0f32.powi(30)] {
        let mut values = vec![0.0; 256];
        e4m3(&codes, scale, &mut values);
        for (&code, value) in codes.iter().zip(values) {
            let want = e4m3_decode(code) * scale;
            assert!(want.to_bits() == value.to_bits() || want.is_nan() && value.is_nan());
        }
    }
}
