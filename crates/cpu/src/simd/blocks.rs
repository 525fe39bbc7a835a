//! Formats with one scale per 32 columns: Q8_0, MXFP4 and the checkpoint's FP4.

use super::{
    codec::{Codec, Step, part},
    isa::Isa,
};

/// Twice the values of the E2M1 codes, and 12, so that none is negative.
const DOUBLED: [u8; 16] = [12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0];
/// What was added to them.
const DOUBLED_BIAS: i16 = 12;

/// `[d: f16][32 signed bytes]`.
pub struct Q8;

impl Codec for Q8 {
    const COLS: usize = 512;
    const BYTES: usize = 544;
    const SCALES: usize = 0;
    const BLOCK: usize = 32;

    #[inline(always)]
    fn step<S: Isa, const N: usize>(
        s: S,
        bytes: &[u8],
        _: &[u8],
        x: &[Step<'_>; N],
    ) -> ([S::I; N], S::F) {
        let zero = s.splat_int(0);
        let mut sums = [[zero; 8]; N];
        for i in 0..8 {
            let weights = s.ready(s.pair(part(bytes, 68 * i + 2), part(bytes, 68 * i + 36)));
            for (sums, x) in sums.iter_mut().zip(x) {
                sums[i] = s.dot_signed(zero, weights, x.vector(s, i));
            }
        }
        let scales = std::array::from_fn(|i| u16::from_le_bytes(*part(bytes, 34 * i)));
        let mut n = 0;
        let integers = sums.map(|sums| {
            let unbias = unbias(s, &x[n], -(S::BIAS as i16));
            n += 1;
            s.add(s.sums_of_8(sums), unbias)
        });
        (integers, s.halves(&scales))
    }

    #[inline(always)]
    fn activation_scales<S: Isa>(s: S, x: &Step<'_>) -> S::F {
        s.floats(part(x.scales, 0))
    }
}

/// `[scale: e8m0][16 bytes of two codes, 16 columns apart]`.
pub struct Mxfp4;

impl Codec for Mxfp4 {
    const COLS: usize = 512;
    const BYTES: usize = 272;
    const SCALES: usize = 0;
    const BLOCK: usize = 32;

    #[inline(always)]
    fn step<S: Isa, const N: usize>(
        s: S,
        bytes: &[u8],
        _: &[u8],
        x: &[Step<'_>; N],
    ) -> ([S::I; N], S::F) {
        let codes = |i: usize| {
            s.quad(std::array::from_fn(|block| part(bytes, 17 * (4 * i + block) + 1)))
        };
        let scales = std::array::from_fn(|i| bytes[17 * i]);
        (e2m1(s, codes, x), s.mul_floats(s.powers(&scales), s.splat_float(0.5)))
    }

    #[inline(always)]
    fn activation_scales<S: Isa>(s: S, x: &Step<'_>) -> S::F {
        s.floats(part(x.scales, 0))
    }
}

/// Bytes of two codes of neighbouring columns; an e8m0 scale per 32 columns in a second tensor.
pub struct Fp4;

impl Codec for Fp4 {
    const COLS: usize = 512;
    const BYTES: usize = 256;
    const SCALES: usize = 16;
    const BLOCK: usize = 32;

    #[inline(always)]
    fn step<S: Isa, const N: usize>(
        s: S,
        bytes: &[u8],
        scales: &[u8],
        x: &[Step<'_>; N],
    ) -> ([S::I; N], S::F) {
        let integers = e2m1(s, |i| s.bytes(part(bytes, 64 * i)), x);
        (integers, s.mul_floats(s.powers(part(scales, 0)), s.splat_float(0.5)))
    }

    #[inline(always)]
    fn activation_scales<S: Isa>(s: S, x: &Step<'_>) -> S::F {
        s.floats(part(x.scales, 0))
    }
}

/// The integers of four vectors of codes, each with four blocks; low nibbles meet one vector of
/// activations, high nibbles the next.
#[inline(always)]
fn e2m1<S: Isa, const N: usize>(
    s: S,
    codes: impl Fn(usize) -> S::B,
    x: &[Step<'_>; N],
) -> [S::I; N] {
    let zero = s.splat_int(0);
    let mut sums = [[zero; 4]; N];
    for i in 0..4 {
        let [low, high] = doubled(s, codes(i));
        for (sums, x) in sums.iter_mut().zip(x) {
            let sum = s.dot(zero, low, x.vector(s, 2 * i));
            sums[i] = s.dot(sum, high, x.vector(s, 2 * i + 1));
        }
    }
    let mut n = 0;
    sums.map(|sums| {
        let unbias = unbias(s, &x[n], -DOUBLED_BIAS);
        n += 1;
        s.add(s.sums_of_4(sums), unbias)
    })
}

#[inline(always)]
fn doubled<S: Isa>(s: S, codes: S::B) -> [S::B; 2] {
    let (table, nibble) = (s.repeat(&DOUBLED), s.splat(15));
    [codes, s.shr::<4>(codes)].map(|codes| s.lookup(table, s.and(codes, nibble)))
}

/// What sixteen blocks of 32 activations contribute where every weight is `factor`.
#[inline(always)]
fn unbias<S: Isa>(s: S, x: &Step<'_>, factor: i16) -> S::I {
    s.dot_words(s.splat_int(0), s.words(part(x.sums, 0)), s.splat_word(factor))
}
