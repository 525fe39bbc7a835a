//! Float kernels: dot products, weighted sums, exponentials, and the codes of cached rows.
//!
//! The order of every sum is fixed, and every multiplication with an addition rounds once. That is so
//! for every instruction set, and for a row alone as in company, so all give the same bits. Kernels
//! are written once, over `lanes` or so plainly that the compiler vectorises them, and compiled for
//! each instruction set; which one is used is decided at the first call.

mod curves;
mod dots;
mod lanes;
mod sums;

use std::sync::OnceLock;

use ds4_quant::Format;

use dots::{Bfloats, Halves};
use lanes::{Floats, Plain};

/// Vectors that are taken together where there are so many.
pub const TOGETHER: usize = 4;

/// Rows, and as many vectors as are taken together, to read and to write.
type Together = unsafe fn(&[f32], [&[f32]; TOGETHER], &mut [&mut [f32]; TOGETHER]);
/// Values, scores and largest scores to read, weights and values to add to.
type PoolStep = unsafe fn(&[f32], &[f32], &[f32], &mut [f32], &mut [f32]);
type Encoded = unsafe fn(&[u8], &[f32], &mut [f32]);

/// The kernels of one instruction set.
struct Kernels {
    dots: unsafe fn(&[f32], &[f32], &mut [f32]),
    dots_together: Together,
    dots_f16: Encoded,
    dots_bf16: Encoded,
    widen_f16: unsafe fn(&[u8], &mut [f32]),
    accumulate: unsafe fn(&[f32], &[f32], &mut [f32]),
    accumulate_together: Together,
    exp_all: unsafe fn(&mut [f32], f32, f32) -> f32,
    swiglu: unsafe fn(&mut [f32], &[f32], f32, f32),
    pool_step: PoolStep,
    e4m3: unsafe fn(&[u8], f32, &mut [f32]),
}

/// `out[i]` becomes the dot product of row `i` of `rows` with `x`, whose length is the rows' width.
pub fn dots(rows: &[f32], x: &[f32], out: &mut [f32]) {
    debug_assert_eq!(rows.len(), x.len() * out.len());
    // SAFETY: the table holds functions whose instructions this processor has been found to have.
    // So for all calls in this file.
    unsafe { (kernels().dots)(rows, x, out) }
}

/// The dot product of two vectors of one length.
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut out = [0.0];
    dots(a, b, &mut out);
    out[0]
}

/// `out[n][i]` becomes the dot product of row `i` with `x[n]`.
pub fn dots_together(rows: &[f32], x: [&[f32]; TOGETHER], out: &mut [&mut [f32]; TOGETHER]) {
    // SAFETY: as in `dots`.
    unsafe { (kernels().dots_together)(rows, x, out) }
}

/// As `dots`, for rows that are still encoded. `false` if there is no kernel for the format.
pub fn dots_encoded(format: Format, rows: &[u8], x: &[f32], out: &mut [f32]) -> bool {
    let kernel = match format {
        Format::F16 => kernels().dots_f16,
        Format::BF16 => kernels().dots_bf16,
        _ => return false,
    };
    // SAFETY: as in `dots`.
    unsafe { kernel(rows, x, out) };
    true
}

/// The values of IEEE halves.
pub fn widen_f16(halves: &[u8], values: &mut [f32]) {
    // SAFETY: as in `dots`.
    unsafe { (kernels().widen_f16)(halves, values) }
}

/// Adds `weights[i]` times row `i` of `rows` to `sum`, whose length is the rows' width.
pub fn accumulate(rows: &[f32], weights: &[f32], sum: &mut [f32]) {
    debug_assert_eq!(rows.len(), weights.len() * sum.len());
    // SAFETY: as in `dots`.
    unsafe { (kernels().accumulate)(rows, weights, sum) }
}

/// Adds `weights[n][i]` times row `i` of `rows` to `sums[n]`.
pub fn accumulate_together(
    rows: &[f32],
    weights: [&[f32]; TOGETHER],
    sums: &mut [&mut [f32]; TOGETHER],
) {
    // SAFETY: as in `dots`.
    unsafe { (kernels().accumulate_together)(rows, weights, sums) }
}

/// Every `x` becomes `e^(x - from)`; gives `sum` and all of them, added one after another.
pub fn exp_all(x: &mut [f32], from: f32, sum: f32) -> f32 {
    // SAFETY: as in `dots`.
    unsafe { (kernels().exp_all)(x, from, sum) }
}

/// SwiGLU of `gate` and `up` with clamps, times a weight, into `gate`.
pub fn swiglu(gate: &mut [f32], up: &[f32], limit: f32, weight: f32) {
    // SAFETY: as in `dots`.
    unsafe { (kernels().swiglu)(gate, up, limit, weight) }
}

/// Adds `e^(score - largest)` to `total` and as many times the value to `sum`, in every dimension.
pub fn pool_step(
    values: &[f32],
    scores: &[f32],
    largest: &[f32],
    total: &mut [f32],
    sum: &mut [f32],
) {
    // SAFETY: as in `dots`.
    unsafe { (kernels().pool_step)(values, scores, largest, total, sum) }
}

/// The values of E4M3 codes under one scale.
pub fn e4m3(codes: &[u8], scale: f32, values: &mut [f32]) {
    // SAFETY: as in `dots`.
    unsafe { (kernels().e4m3)(codes, scale, values) }
}

fn kernels() -> &'static Kernels {
    static CHOSEN: OnceLock<Kernels> = OnceLock::new();
    CHOSEN.get_or_init(|| available().pop().unwrap_or(plain::KERNELS))
}

/// What this processor can run, the best last.
fn available() -> Vec<Kernels> {
    let plain = std::iter::once(plain::KERNELS);
    #[cfg(target_arch = "x86_64")]
    let plain = plain.chain(x86::available());
    plain.collect()
}

#[inline(always)]
fn widen<S: Floats>(s: S, halves: &[u8], values: &mut [f32]) {
    let (chunks, rest) = values.as_chunks_mut();
    let (from, from_rest) = halves.as_chunks::<{ 2 * lanes::LANES }>();
    for (from, to) in from.iter().zip(chunks) {
        s.store(s.halves(from), to);
    }
    for (from, to) in from_rest.as_chunks().0.iter().zip(rest) {
        *to = ds4_quant::f16_decode(u16::from_le_bytes(*from));
    }
}

/// Compiles all kernels for an instruction set, with `R` rows at a time in `dots_together`.
macro_rules! kernels {
    ($name:ident, $new:expr, $rows:literal, $(#[$features:meta])*) => {
        mod $name {
            use super::*;

            pub const KERNELS: Kernels = Kernels {
                dots, dots_together, dots_f16, dots_bf16, widen_f16, accumulate,
                accumulate_together, exp_all, swiglu, pool_step, e4m3,
            };

            $(#[$features])*
            fn dots(rows: &[f32], x: &[f32], out: &mut [f32]) {
                dots::dots::<_, _, 4, 1>($new, rows, [x], &mut [out]);
            }

            $(#[$features])*
            fn dots_together(
                rows: &[f32],
                x: [&[f32]; TOGETHER],
                out: &mut [&mut [f32]; TOGETHER],
            ) {
                dots::dots::<_, _, $rows, TOGETHER>($new, rows, x, out);
            }

            $(#[$features])*
            fn dots_f16(rows: &[u8], x: &[f32], out: &mut [f32]) {
                dots::dots::<_, _, 4, 1>($new, Halves(rows), [x], &mut [out]);
            }

            $(#[$features])*
            fn dots_bf16(rows: &[u8], x: &[f32], out: &mut [f32]) {
                dots::dots::<_, _, 4, 1>($new, Bfloats(rows), [x], &mut [out]);
            }

            $(#[$features])*
            fn widen_f16(halves: &[u8], values: &mut [f32]) {
                widen($new, halves, values);
            }

            $(#[$features])*
            fn accumulate(rows: &[f32], weights: &[f32], sum: &mut [f32]) {
                sums::accumulate($new, rows, [weights], &mut [sum]);
            }

            $(#[$features])*
            fn accumulate_together(
                rows: &[f32],
                weights: [&[f32]; TOGETHER],
                sums: &mut [&mut [f32]; TOGETHER],
            ) {
                sums::accumulate($new, rows, weights, sums);
            }

            $(#[$features])*
            fn exp_all(x: &mut [f32], from: f32, sum: f32) -> f32 {
                curves::exp_all(x, from, sum)
            }

            $(#[$features])*
            fn swiglu(gate: &mut [f32], up: &[f32], limit: f32, weight: f32) {
                curves::swiglu(gate, up, limit, weight);
            }

            $(#[$features])*
            fn pool_step(
                values: &[f32],
                scores: &[f32],
                largest: &[f32],
                total: &mut [f32],
                sum: &mut [f32],
            ) {
                curves::pool_step(values, scores, largest, total, sum);
            }

            $(#[$features])*
            fn e4m3(codes: &[u8], scale: f32, values: &mut [f32]) {
                curves::e4m3(codes, scale, values);
            }
        }
    };
}

kernels!(plain, Plain, 2,);

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::*;

    pub fn available() -> impl Iterator<Item = Kernels> {
        let avx2 = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c");
        let avx512 = avx2
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl");
        let avx2 = avx2.then_some(avx2::KERNELS);
        avx2.into_iter().chain(avx512.then_some(avx512::KERNELS))
    }

    kernels!(
        avx2,
        // SAFETY: the function that this stands in is compiled for these instructions, and only called
        // where `available` has found them.
        unsafe { lanes::Avx2::new() },
        2,
        #[target_feature(enable = "avx2,fma,f16c")]
    );
    kernels!(
        avx512,
        // SAFETY: as above.
        unsafe { lanes::Avx512::new() },
        4,
        #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl")]
    );
}

#[cfg(test)]
mod tests;
