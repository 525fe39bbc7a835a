//! A few tokens: weights are unpacked in registers and meet all tokens there.

use std::ops::Range;

use super::{
    activations::Token,
    codec::{Codec, Step},
    isa::Isa,
    weights::Weights,
};

/// The longest step of any format, in bytes.
const LONGEST: usize = 8 * 210;
/// How far ahead of the computation memory is asked for, in bytes.
const AHEAD: usize = 2048;

/// Rows of weights times `N` tokens; `out[n][i]` is the product of token `n` with row `rows[i]`.
#[inline(always)]
pub fn multiply<S: Isa, C: Codec, const N: usize>(
    s: S,
    weights: &Weights<'_>,
    rows: Range<usize>,
    x: &[Token<'_>; N],
    out: &mut [&mut [f32]; N],
) {
    for (i, row) in rows.enumerate() {
        let totals = dot::<S, C, N>(s, weights.row(row), weights.row_scales(row), x);
        for (out, total) in out.iter_mut().zip(totals) {
            out[i] = total;
        }
    }
}

#[inline(always)]
fn dot<S: Isa, C: Codec, const N: usize>(
    s: S,
    bytes: &[u8],
    scales: &[u8],
    x: &[Token<'_>; N],
) -> [f32; N] {
    let mut sums = [s.splat_float(0.0); N];
    let steps = bytes.chunks_exact(C::BYTES);
    let rest = steps.remainder();
    let whole = bytes.len() / C::BYTES;
    let mut step = |i: usize, bytes: &[u8], scales: &[u8]| {
        let x: [Step<'_>; N] = std::array::from_fn(|n| Step::of::<C>(&x[n], i));
        let (integers, weight_scales) = C::step(s, bytes, scales, &x);
        for n in 0..N {
            let scale = s.mul_floats(weight_scales, C::activation_scales(s, &x[n]));
            sums[n] = s.fma(s.float(integers[n]), scale, sums[n]);
        }
    };
    for (i, bytes) in steps.enumerate() {
        for line in (0..C::BYTES).step_by(64) {
            s.prefetch(bytes.as_ptr().wrapping_add(AHEAD + line));
        }
        step(i, bytes, &scales[i * C::SCALES..][..C::SCALES]);
    }
    if !rest.is_empty() {
        let mut padded = [0; LONGEST];
        padded[..rest.len()].copy_from_slice(rest);
        let mut padded_scales = [0; 16];
        let scales = &scales[whole * C::SCALES..];
        padded_scales[..scales.len()].copy_from_slice(scales);
        step(whole, &padded[..C::BYTES], &padded_scales[..C::SCALES]);
    }
    sums.map(|sums| s.total(sums))
}
