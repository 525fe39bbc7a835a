//! What a format is to the kernels: how a step of a row becomes sixteen integers and sixteen scales.
//!
//! A step is sixteen blocks of 32 columns, or eight superblocks with two integers each. The formats
//! are in `blocks` and `superblocks`; `gemv` and `gemm` know nothing of any of them.

use super::{activations::Token, isa::Isa};

/// A format.
pub trait Codec {
    /// Columns of a step.
    const COLS: usize;
    /// Bytes of a step.
    const BYTES: usize;
    /// Bytes of a step in the second tensor.
    const SCALES: usize;
    /// Columns under one scale of the activations.
    const BLOCK: usize;

    /// The exact integers of a step for each of `N` tokens, and the weights' scales of each integer.
    fn step<S: Isa, const N: usize>(
        s: S,
        bytes: &[u8],
        scales: &[u8],
        x: &[Step<'_>; N],
    ) -> ([S::I; N], S::F);

    /// The activations' scales of each integer.
    fn activation_scales<S: Isa>(s: S, x: &Step<'_>) -> S::F;
}

/// The activations of one step.
#[derive(Clone, Copy)]
pub struct Step<'a> {
    /// Codes in the form's order.
    pub codes: &'a [i8],
    /// One scale per block.
    pub scales: &'a [f32],
    /// One sum per 16 columns.
    pub sums: &'a [i16],
}

impl<'a> Step<'a> {
    /// Step `i` of a token.
    #[inline(always)]
    pub fn of<C: Codec>(x: &Token<'a>, i: usize) -> Step<'a> {
        let (scales, sums) = (C::COLS / C::BLOCK, C::COLS / 16);
        Step {
            codes: &x.codes[i * C::COLS..][..C::COLS],
            scales: &x.scales[i * scales..][..scales],
            sums: &x.sums[i * sums..][..sums],
        }
    }

    /// Codes `64 i ..`.
    #[inline(always)]
    pub fn vector<S: Isa>(&self, s: S, i: usize) -> S::B {
        s.signed(part(self.codes, 64 * i))
    }
}

/// `N` elements from `at`, which are there.
#[inline(always)]
pub fn part<T, const N: usize>(of: &[T], at: usize) -> &[T; N] {
    match of[at..].first_chunk() {
        Some(part) => part,
        None => panic!("{N} elements at {at} of {}", of.len()),
    }
}
