//! A few tokens: weights are unpacked in registers and meet all tokens there.

use std::ops::Range;

use super::{
    activations::Token,
    codec::{Array, Codec, Step},
    isa::Isa,
    weights::Weights,
};

/// The longest step of any format, in bytes.
const LONGEST: usize = 8 * 210;
/// How far ahead of the computation memory is asked for, in bytes.
const AHEAD: usize = 8192;

/// Rows of weights times tokens, up to four at once.
#[inline(always)]
pub fn multiply_few<S: Isa, C: Codec>(
    s: S,
    weights: &Weights<'_>,
    rows: Range<usize>,
    x: &[Token<'_>],
    out: &mut [&mut [f32]],
) {
    let (fours, rest) = x.as_chunks::<4>();
    let (four_outs, rest_outs) = out.as_chunks_mut::<4>();
    for (x, out) in fours.iter().zip(four_outs) {
        multiply::<S, C, 4>(s, weights, rows.clone(), x, out);
    }
    if let (Some(x), Some(out)) = (rest.as_array::<3>(), rest_outs.as_mut_array::<3>()) {
        multiply::<S, C, 3>(s, weights, rows, x, out);
    } else if let (Some(x), Some(out)) = (rest.as_array::<2>(), rest_outs.as_mut_array::<2>()) {
        multiply::<S, C, 2>(s, weights, rows, x, out);
    } else if let (Some(x), Some(out)) = (rest.as_array::<1>(), rest_outs.as_mut_array::<1>()) {
        multiply::<S, C, 1>(s, weights, rows, x, out);
    }
}

/// Rows of weights times `N` tokens; `out[n][i]` is the product of token `n` with row `rows[i]`.
#[inline(always)]
fn multiply<S: Isa, C: Codec, const N: usize>(
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
    powers: &[u8],
    x: &[Token<'_>; N],
) -> [f32; N] {
    let mut sums = [s.splat_float(0.0); N];
    let steps = bytes.len() / C::Bytes::LEN;
    for i in 0..steps {
        let ahead = bytes.as_ptr().wrapping_add(i * C::Bytes::LEN + AHEAD);
        for line in (0..C::Bytes::LEN).step_by(64) {
            s.prefetch(ahead.wrapping_add(line));
        }
        let (bytes, powers) = (Array::nth(bytes, i), Array::nth(powers, i));
        step::<S, C, N>(s, bytes, powers, &Step::all(x, i), &mut sums);
    }
    let rest = &bytes[steps * C::Bytes::LEN..];
    if !rest.is_empty() {
        let (mut padded, mut padded_powers) = ([0; LONGEST], [0; 16]);
        let powers = &powers[steps * C::Powers::LEN..];
        padded[..rest.len()].copy_from_slice(rest);
        padded_powers[..powers.len()].copy_from_slice(powers);
        let (bytes, powers) = (Array::nth(&padded, 0), Array::nth(&padded_powers, 0));
        step::<S, C, N>(s, bytes, powers, &Step::all(x, steps), &mut sums);
    }
    let mut totals = [0.0; N];
    for n in 0..N {
        totals[n] = s.total(sums[n]);
    }
    totals
}

#[inline(always)]
fn step<S: Isa, C: Codec, const N: usize>(
    s: S,
    bytes: &C::Bytes,
    powers: &C::Powers,
    x: &[Step<'_, C>; N],
    sums: &mut [S::F; N],
) {
    let (integers, weight_scales) = C::step(s, bytes, powers, x);
    for n in 0..N {
        let scale = s.mul_floats(weight_scales, C::activation_scales(s, x[n].scales));
        sums[n] = s.fma(s.float(integers[n]), scale, sums[n]);
    }
}
