//! Formats with one scale per 32 columns: Q8_0, MXFP4 and the checkpoint's FP4.

use super::{
    super::{
        codec::{ChunkScales, Chunks, Codec, Kind, Step, part},
        isa::Isa,
    },
    half,
};

/// Twice the values of the E2M1 codes, and 12, so that none is negative.
const DOUBLED: [u8; 16] = [12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0];
/// What was added to them.
const DOUBLED_BIAS: i16 = 12;

/// `[d: f16][32 signed bytes]`.
pub struct Q8;

impl Q8 {
    /// Blocks `2i` and `2i + 1`.
    #[inline(always)]
    fn vector<S: Isa>(s: S, bytes: &[u8; 544], i: usize) -> S::B {
        s.ready(s.pair(part(bytes, 68 * i + 2), part(bytes, 68 * i + 36)))
    }
}

impl Codec for Q8 {
    type Bytes = [u8; 544];
    type Powers = [u8; 0];
    type Codes = [i8; 512];
    type Scales = [f32; 16];
    type Sums = [i16; 32];

    #[inline(always)]
    fn step<S: Isa, const N: usize>(
        s: S,
        bytes: &Self::Bytes,
        _: &Self::Powers,
        x: &[Step<'_, Self>; N],
    ) -> ([S::I; N], S::F) {
        let zero = s.splat_int(0);
        let mut sums = [[zero; 8]; N];
        for i in 0..8 {
            let weights = Q8::vector(s, bytes, i);
            for n in 0..N {
                sums[n][i] = s.dot_signed(zero, weights, s.signed(part(x[n].codes, 64 * i)));
            }
        }
        let mut integers = [zero; N];
        for n in 0..N {
            let unbias = unbias(s, x[n].sums, -(S::BIAS as i16));
            integers[n] = s.add(s.sums_of_8(sums[n]), unbias);
        }
        (integers, s.q8_scales(bytes))
    }

    #[inline(always)]
    fn activation_scales<S: Isa>(s: S, scales: &Self::Scales) -> S::F {
        s.floats(scales)
    }
}

impl Chunks for Q8 {
    const GROUPS: usize = 8;
    const KIND: Kind = Kind::Floats;
    const SIGNED: bool = true;

    #[inline(always)]
    fn bias(signed: i32) -> i32 {
        signed
    }

    #[inline(always)]
    fn four(group: usize, i: usize) -> usize {
        8 * group + i
    }

    #[inline(always)]
    fn weights<S: Isa>(s: S, bytes: &Self::Bytes, i: usize) -> [S::B; 4] {
        let mut vectors = [s.splat(0); 4];
        for (v, vector) in vectors.iter_mut().enumerate() {
            *vector = Q8::vector(s, bytes, 4 * i + v);
        }
        vectors
    }

    #[inline(always)]
    fn scales(bytes: &Self::Bytes, _: &Self::Powers, i: usize) -> ChunkScales {
        float_scales(|group| half(bytes, 34 * (8 * i + group)))
    }

    #[inline(always)]
    fn floats<S: Isa>(s: S, _: usize, codes: [u16; 16]) -> S::F {
        s.halves(codes)
    }
}

/// `[scale: e8m0][16 bytes of two codes, 16 columns apart]`.
pub struct Mxfp4;

impl Mxfp4 {
    /// The codes of blocks `4i .. 4i + 4`.
    #[inline(always)]
    fn codes<S: Isa>(s: S, bytes: &[u8; 272], i: usize) -> S::B {
        let at = 68 * i + 1;
        s.quad([part(bytes, at), part(bytes, at + 17), part(bytes, at + 34), part(bytes, at + 51)])
    }
}

impl Codec for Mxfp4 {
    type Bytes = [u8; 272];
    type Powers = [u8; 0];
    type Codes = [i8; 512];
    type Scales = [f32; 16];
    type Sums = [i16; 32];

    #[inline(always)]
    fn step<S: Isa, const N: usize>(
        s: S,
        bytes: &Self::Bytes,
        _: &Self::Powers,
        x: &[Step<'_, Self>; N],
    ) -> ([S::I; N], S::F) {
        let (codes, scales) = s.mxfp4(bytes);
        (e2m1(s, codes, x), s.mul_floats(scales, s.splat_float(0.5)))
    }

    #[inline(always)]
    fn activation_scales<S: Isa>(s: S, scales: &Self::Scales) -> S::F {
        s.floats(scales)
    }
}

impl Chunks for Mxfp4 {
    const GROUPS: usize = 8;
    const KIND: Kind = Kind::Floats;
    const SIGNED: bool = false;

    #[inline(always)]
    fn bias(_: i32) -> i32 {
        i32::from(DOUBLED_BIAS)
    }

    #[inline(always)]
    fn four(group: usize, i: usize) -> usize {
        e2m1_four(group, i)
    }

    #[inline(always)]
    fn weights<S: Isa>(s: S, bytes: &Self::Bytes, i: usize) -> [S::B; 4] {
        let [a, b] = doubled(s, Mxfp4::codes(s, bytes, 2 * i));
        let [c, d] = doubled(s, Mxfp4::codes(s, bytes, 2 * i + 1));
        [a, b, c, d]
    }

    #[inline(always)]
    fn scales(bytes: &Self::Bytes, _: &Self::Powers, i: usize) -> ChunkScales {
        float_scales(|group| u16::from(bytes[17 * (8 * i + group)]))
    }

    #[inline(always)]
    fn floats<S: Isa>(s: S, _: usize, codes: [u16; 16]) -> S::F {
        half_powers(s, codes)
    }
}

/// Bytes of two codes of neighbouring columns; an e8m0 scale per 32 columns in a second tensor.
pub struct Fp4;

impl Codec for Fp4 {
    type Bytes = [u8; 256];
    type Powers = [u8; 16];
    type Codes = [i8; 512];
    type Scales = [f32; 16];
    type Sums = [i16; 32];

    #[inline(always)]
    fn step<S: Isa, const N: usize>(
        s: S,
        bytes: &Self::Bytes,
        powers: &Self::Powers,
        x: &[Step<'_, Self>; N],
    ) -> ([S::I; N], S::F) {
        let mut codes = [s.splat(0); 4];
        for (i, codes) in codes.iter_mut().enumerate() {
            *codes = s.bytes(part(bytes, 64 * i));
        }
        (e2m1(s, codes, x), s.mul_floats(s.powers(*powers), s.splat_float(0.5)))
    }

    #[inline(always)]
    fn activation_scales<S: Isa>(s: S, scales: &Self::Scales) -> S::F {
        s.floats(scales)
    }
}

impl Chunks for Fp4 {
    const GROUPS: usize = 8;
    const KIND: Kind = Kind::Floats;
    const SIGNED: bool = false;

    #[inline(always)]
    fn bias(_: i32) -> i32 {
        i32::from(DOUBLED_BIAS)
    }

    #[inline(always)]
    fn four(group: usize, i: usize) -> usize {
        e2m1_four(group, i)
    }

    #[inline(always)]
    fn weights<S: Isa>(s: S, bytes: &Self::Bytes, i: usize) -> [S::B; 4] {
        let [a, b] = doubled(s, s.bytes(part(bytes, 128 * i)));
        let [c, d] = doubled(s, s.bytes(part(bytes, 128 * i + 64)));
        [a, b, c, d]
    }

    #[inline(always)]
    fn scales(_: &Self::Bytes, powers: &Self::Powers, i: usize) -> ChunkScales {
        float_scales(|group| u16::from(powers[8 * i + group]))
    }

    #[inline(always)]
    fn floats<S: Isa>(s: S, _: usize, codes: [u16; 16]) -> S::F {
        half_powers(s, codes)
    }
}

/// The integers of four vectors of codes, each with four blocks; low nibbles meet one vector of
/// activations, high nibbles the next.
#[inline(always)]
fn e2m1<S: Isa, C, const N: usize>(s: S, codes: [S::B; 4], x: &[Step<'_, C>; N]) -> [S::I; N]
where
    C: Codec<Codes = [i8; 512], Sums = [i16; 32]>,
{
    let zero = s.splat_int(0);
    let mut sums = [[zero; 4]; N];
    for i in 0..4 {
        let [low, high] = doubled(s, codes[i]);
        for n in 0..N {
            let sum = s.dot(zero, low, s.signed(part(x[n].codes, 128 * i)));
            sums[n][i] = s.dot(sum, high, s.signed(part(x[n].codes, 128 * i + 64)));
        }
    }
    let mut integers = [zero; N];
    for n in 0..N {
        let unbias = unbias(s, x[n].sums, -DOUBLED_BIAS);
        integers[n] = s.add(s.sums_of_4(sums[n]), unbias);
    }
    integers
}

/// What low and high nibbles stand for.
#[inline(always)]
fn doubled<S: Isa>(s: S, codes: S::B) -> [S::B; 2] {
    s.lookup_nibbles(&DOUBLED, codes)
}

/// Four blocks share two vectors, a quarter of each for every block.
#[inline(always)]
fn e2m1_four(group: usize, i: usize) -> usize {
    group / 4 * 32 + i / 4 * 16 + group % 4 * 4 + i % 4
}

/// What sixteen blocks of 32 activations contribute where every weight is `factor`.
#[inline(always)]
fn unbias<S: Isa>(s: S, sums: &[i16; 32], factor: i16) -> S::I {
    s.dot_words(s.splat_int(0), s.words(sums), s.splat_word(factor))
}

#[inline(always)]
fn float_scales(scale: impl Fn(usize) -> u16) -> ChunkScales {
    let mut scales = ChunkScales { floats: [0; 8], integers: [0; 16], minima: [0; 16] };
    for (group, float) in scales.floats.iter_mut().enumerate() {
        *float = scale(group);
    }
    scales
}

/// Half the values of E8M0 codes: what E2M1 values are multiplied by when they are doubled.
#[inline(always)]
fn half_powers<S: Isa>(s: S, codes: [u16; 16]) -> S::F {
    let mut bytes = [0; 16];
    for (byte, code) in bytes.iter_mut().zip(codes) {
        *byte = code as u8;
    }
    s.mul_floats(s.powers(bytes), s.splat_float(0.5))
}
