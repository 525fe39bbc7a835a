//! What a format is to the kernels: how a step of a row becomes sixteen integers and sixteen scales.
//!
//! A step is sixteen blocks of 32 columns, or eight superblocks with two integers each. The formats
//! are in `blocks` and `superblocks`; `gemv` and `gemm` know nothing of any of them.
//!
//! Everything here and there that touches a vector is inlined into a function that is compiled for
//! the instructions. Closures would not be: hence the plain loops.

use super::{activations::Token, isa::Isa};

/// A format. The arrays of a step have their sizes in their types, so that nothing is checked twice.
pub trait Codec {
    /// The bytes of a step.
    type Bytes: Array<u8>;
    /// Its bytes in the second tensor.
    type Powers: Array<u8>;
    /// The codes of its activations, in the form's order.
    type Codes: Array<i8>;
    /// Their scales.
    type Scales: Array<f32>;
    /// Their sums, one per 16 columns.
    type Sums: Array<i16>;

    /// The exact integers of a step for each of `N` tokens, and the weights' scales of each integer.
    fn step<S: Isa, const N: usize>(
        s: S,
        bytes: &Self::Bytes,
        powers: &Self::Powers,
        x: &[Step<'_, Self>; N],
    ) -> ([S::I; N], S::F);

    /// The activations' scales of each integer.
    fn activation_scales<S: Isa>(s: S, scales: &Self::Scales) -> S::F;
}

/// Fours of columns in a chunk.
pub const FOURS: usize = 64;

/// What a format is to the multiplication of many tokens: chunks of 256 columns, each in four vectors
/// of weights without a sign, in groups that share a scale.
pub trait Chunks: Codec {
    /// Groups of a chunk.
    const GROUPS: usize;
    /// How the scales of groups are kept.
    const KIND: Kind;
    /// Whether the weights are signed bytes that were made `ready`.
    const SIGNED: bool;

    /// What is added to every weight, where the instruction set adds `signed` to signed bytes.
    fn bias(signed: i32) -> i32;
    /// In which four columns of the chunk, counted in the form's order, the `i`th of a group lie.
    fn four(group: usize, i: usize) -> usize;
    /// Chunk `i` of a step.
    fn weights<S: Isa>(s: S, bytes: &Self::Bytes, i: usize) -> [S::B; 4];
    /// The scales of chunk `i` of a step.
    fn scales(bytes: &Self::Bytes, powers: &Self::Powers, i: usize) -> ChunkScales;
    /// What sixteen of their floats, the `i`th of each chunk, are.
    fn floats<S: Isa>(s: S, i: usize, codes: [u16; 16]) -> S::F;
}

/// How the sixteen floats of a chunk are used.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Each group has a float scale.
    Floats,
    /// Groups have integer scales, and the chunk one float.
    Integers,
    /// Also each 16 columns have an integer minimum, and the chunk a float for them.
    Minima,
}

impl Kind {
    /// How many floats a chunk has.
    pub const fn floats(self) -> usize {
        match self {
            Kind::Floats => 8,
            Kind::Integers => 1,
            Kind::Minima => 2,
        }
    }
}

/// The scales of one chunk of a row.
pub struct ChunkScales {
    /// As they are encoded: of `Kind::Floats`, one per group; of the others, that of the integers and
    /// that of the minima.
    pub floats: [u16; 8],
    /// The integer scales.
    pub integers: [i16; 16],
    /// The minima.
    pub minima: [i16; 16],
}

/// The activations of one step.
pub struct Step<'a, C: Codec + ?Sized> {
    pub codes: &'a C::Codes,
    pub scales: &'a C::Scales,
    pub sums: &'a C::Sums,
}

impl<C: Codec + ?Sized> Clone for Step<'_, C> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<C: Codec + ?Sized> Copy for Step<'_, C> {}

impl<'a, C: Codec> Step<'a, C> {
    /// Step `i` of each token.
    #[inline(always)]
    pub fn all<const N: usize>(x: &[Token<'a>; N], i: usize) -> [Step<'a, C>; N] {
        let mut steps = [Step::of(&x[0], i); N];
        for n in 1..N {
            steps[n] = Step::of(&x[n], i);
        }
        steps
    }

    #[inline(always)]
    fn of(x: &Token<'a>, i: usize) -> Step<'a, C> {
        Step {
            codes: Array::nth(x.codes, i),
            scales: Array::nth(x.scales, i),
            sums: Array::nth(x.sums, i),
        }
    }
}

/// An array whose size is known.
pub trait Array<T> {
    /// Its size.
    const LEN: usize;
    /// The `i`th of the arrays that a slice consists of.
    fn nth(of: &[T], i: usize) -> &Self;
}

impl<T, const N: usize> Array<T> for [T; N] {
    const LEN: usize = N;

    #[inline(always)]
    fn nth(of: &[T], i: usize) -> &[T; N] {
        part(of, i * N)
    }
}

/// `N` elements from `at`, which are there.
#[inline(always)]
pub fn part<T, const N: usize>(of: &[T], at: usize) -> &[T; N] {
    match of[at..].first_chunk() {
        Some(part) => part,
        None => panic!("the array ends before its part"),
    }
}
