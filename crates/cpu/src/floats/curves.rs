//! Exponentials, and the functions made of them. They are our own, so that every system computes the
//! same bits, and plain enough for the compiler to vectorise.

/// `e^x` within two units in the last place. Below -87 it is 0, above 88 it stays at `e^88`; NaN
/// stays NaN.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    // Adding this leaves no bits for a fraction: the low bits of the sum are the nearest integer.
    const INTEGERS: f32 = 12_582_912.0;
    // The logarithm of two in two parts, the first with so few bits that small multiples are exact.
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    const SERIES: [f32; 6] =
        [1.987_569_1e-4, 1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 0.166_666_65, 0.500_000_06];
    let within = if x > 88.0 { 88.0 } else { x };
    let shifted = within.mul_add(std::f32::consts::LOG2_E, INTEGERS);
    let power = shifted - INTEGERS;
    let rest = power.mul_add(-LN_2_HIGH, within);
    let rest = power.mul_add(-LN_2_LOW, rest);
    let mut series = SERIES[0];
    for &term in &SERIES[1..] {
        series = series.mul_add(rest, term);
    }
    let fraction = (series * rest).mul_add(rest, rest) + 1.0;
    let scale = f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23));
    if x < -87.0 { 0.0 } else { fraction * scale }
}

/// Every `x` becomes `e^(x - from)`; gives their sum, added one after another to `sum`.
#[inline(always)]
pub fn exp_all(x: &mut [f32], from: f32, sum: f32) -> f32 {
    x.iter_mut().for_each(|x| *x = exp(*x - from));
    x.iter().fold(sum, |sum, x| sum + x)
}

/// SwiGLU with clamps, times a weight, into `gate`. Clamps compare instead of using `min`, so that NaN
/// stays NaN and is found.
#[inline(always)]
pub fn swiglu(gate: &mut [f32], up: &[f32], limit: f32, weight: f32) {
    for (gate, &up) in gate.iter_mut().zip(up) {
        let g = if *gate > limit { limit } else { *gate };
        let up = if up > limit { limit } else { up };
        let up = if up < -limit { -limit } else { up };
        *gate = g / (1.0 + exp(-g)) * up * weight;
    }
}

/// One step of a softmax in every dimension: the weighted values and the weights themselves are added,
/// the weights being `e^(score - largest)`.
#[inline(always)]
pub fn pool_step(
    values: &[f32],
    scores: &[f32],
    largest: &[f32],
    total: &mut [f32],
    sum: &mut [f32],
) {
    let inputs = values.iter().zip(scores).zip(largest);
    for (((value, score), largest), (total, sum)) in inputs.zip(total.iter_mut().zip(sum)) {
        let weight = exp(score - largest);
        *total += weight;
        *sum = weight.mul_add(*value, *sum);
    }
}

/// The values of E4M3 codes under one scale.
#[inline(always)]
pub fn e4m3(codes: &[u8], scale: f32, values: &mut [f32]) {
    // A code's exponent and mantissa as those of a float are too small by this power of two.
    let unit = f32::from_bits((127 + 120) << 23);
    for (value, &code) in values.iter_mut().zip(codes) {
        let magnitude = u32::from(code & 0x7f);
        let unsigned = f32::from_bits(magnitude << 20) * unit;
        let unsigned = if magnitude == 0x7f { f32::NAN } else { unsigned };
        let sign = u32::from(code & 0x80) << 24;
        *value = f32::from_bits(unsigned.to_bits() | sign) * scale;
    }
}
