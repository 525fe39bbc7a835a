//! The formats, one file for each layout.

mod blocks;
mod fp8;
mod iq2xxs;
mod nibbles;
mod q2k;
mod q6k;

pub use blocks::{Fp4, Mxfp4, Q8};
pub use fp8::Fp8;
pub use iq2xxs::Iq2Xxs;
pub use nibbles::{Q4K, Q5K};
pub use q2k::Q2K;
pub use q6k::Q6K;

use super::{codec::part, isa::Isa};

/// For each byte of a vector, the place of a byte in a table of sixteen.
type Places = [u8; 64];
/// A place that looks up zero.
const ZERO: u8 = 0x80;

/// The sixteen integers of eight superblocks: four pairs of first integers, the two halves of each
/// already added, then four pairs of second ones.
#[derive(Clone, Copy)]
struct Sums<S: Isa> {
    first: [S::I; 4],
    second: [S::I; 4],
}

impl<S: Isa> Sums<S> {
    #[inline(always)]
    fn new(s: S) -> Sums<S> {
        let zero = s.splat_int(0);
        Sums { first: [zero; 4], second: [zero; 4] }
    }

    /// `[the first integers | the second]` of each token.
    #[inline(always)]
    fn integers<const N: usize>(s: S, sums: &[Sums<S>; N]) -> [S::I; N] {
        let mut integers = [s.splat_int(0); N];
        for n in 0..N {
            let [a, b, c, d] = sums[n].first;
            let [e, f, g, h] = sums[n].second;
            integers[n] = s.sums_of_8([a, b, c, d, e, f, g, h]);
        }
        integers
    }

    /// `[the first integers | zeros]` of each token.
    #[inline(always)]
    fn first_integers<const N: usize>(s: S, sums: &[Sums<S>; N]) -> [S::I; N] {
        let mut integers = [s.splat_int(0); N];
        let zero = s.splat_int(0);
        for n in 0..N {
            let [a, b, c, d] = sums[n].first;
            integers[n] = s.sums_of_8([a, b, c, d, zero, zero, zero, zero]);
        }
        integers
    }
}

/// The scales of eight blocks of `BLOCK` bytes: the f16 at `first` of each, and minus the one at
/// `second`.
#[inline(always)]
fn scales_and_minima<S: Isa, const BLOCK: usize>(
    s: S,
    bytes: &[u8],
    first: usize,
    second: usize,
) -> S::F {
    static SIGNS: [f32; 16] =
        [1., 1., 1., 1., 1., 1., 1., 1., -1., -1., -1., -1., -1., -1., -1., -1.];
    let mut scales = [0; 16];
    for i in 0..8 {
        scales[i] = half(bytes, i * BLOCK + first);
        scales[i + 8] = half(bytes, i * BLOCK + second);
    }
    s.mul_floats(s.halves(scales), s.floats(&SIGNS))
}

/// The scales of eight blocks of `BLOCK` bytes, the f16 at `at` of each, and zeros.
#[inline(always)]
fn scales_alone<S: Isa, const BLOCK: usize>(s: S, bytes: &[u8], at: usize) -> S::F {
    let mut scales = [0; 16];
    for i in 0..8 {
        scales[i] = half(bytes, i * BLOCK + at);
    }
    s.halves(scales)
}

/// The bits of the f16 at `at`.
#[inline(always)]
fn half(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(*part(bytes, at))
}

/// The same bits in both halves, those of the upper half moved two down: then one bit
/// serves the sub-blocks or runs `j` and `j + 2`, which share a vector.
#[inline(always)]
fn upper_half_two_further<S: Isa>(s: S, bits: &[u8; 32]) -> S::B {
    static LOWER: Places = halves_of(0xff, 0);
    static UPPER: Places = halves_of(0, 0x3f);
    let bits = s.pair(bits, bits);
    s.or(s.and(bits, s.bytes(&LOWER)), s.and(s.shr::<2>(bits), s.bytes(&UPPER)))
}

const fn halves_of(lower: u8, upper: u8) -> Places {
    let mut bytes = [lower; 64];
    let mut i = 32;
    while i < 64 {
        bytes[i] = upper;
        i += 1;
    }
    bytes
}
