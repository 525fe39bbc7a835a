//! Formats with one or two scales per 256 columns and small integer scales inside, and FP8, whose
//! 128 columns under a scale take two integers too.

use super::{
    codec::{Codec, Step, part},
    grid::LEVELS,
    isa::Isa,
};

/// Lookup indices: for each byte, the place of a byte in a table of sixteen.
type Places = [u8; 64];
/// An index that looks up zero.
const ZERO: u8 = 0x80;

/// What `step` collects: eight first integers, and the second integers of four pairs.
struct Sums<S: Isa> {
    first: [S::I; 8],
    second: [S::I; 4],
}

impl<S: Isa> Sums<S> {
    #[inline(always)]
    fn new(s: S) -> Sums<S> {
        let zero = s.splat_int(0);
        Sums { first: [zero; 8], second: [zero; 4] }
    }

    /// `[the first integers | the second]`.
    #[inline(always)]
    fn integers(self, s: S) -> S::I {
        let [a, b, c, d, e, f, g, h] = self.first;
        let [i, j, k, l] = self.second;
        s.sums_of_8([s.halve(a, b), s.halve(c, d), s.halve(e, f), s.halve(g, h), i, j, k, l])
    }
}

/// The scales of eight blocks: the f16 at `first` in each, and the f16 at `second`.
#[inline(always)]
fn f16_scales<S: Isa>(
    s: S,
    bytes: &[u8],
    block: usize,
    first: usize,
    second: Option<usize>,
    factors: &'static [f32; 16],
) -> S::F {
    let scales = std::array::from_fn(|i| match (i < 8, second) {
        (true, _) => u16::from_le_bytes(*part(bytes, i * block + first)),
        (false, Some(second)) => u16::from_le_bytes(*part(bytes, (i - 8) * block + second)),
        (false, None) => 0,
    });
    s.mul_floats(s.halves(&scales), s.floats(factors))
}

/// Factors of the first eight scales and of the second.
const fn factors(first: f32, second: f32) -> [f32; 16] {
    let mut factors = [first; 16];
    let mut i = 8;
    while i < 16 {
        factors[i] = second;
        i += 1;
    }
    factors
}

/// The scale is added, the minimum taken away.
static WITH_MINIMA: [f32; 16] = factors(1.0, -1.0);
static ALONE: [f32; 16] = factors(1.0, 0.0);
static EIGHTH: [f32; 16] = factors(0.125, 0.0);
static E4M3_UNITS: [f32; 16] = factors(1.0 / 512.0, 0.5);

/// `[scales: 16 bytes][64 bytes of four codes][d: f16][dmin: f16]`.
pub struct Q2K;

/// For vector `v`, the scale of each quarter in the low byte of each word.
const fn q2_scales(v: usize) -> Places {
    let mut places = [ZERO; 64];
    let mut i = 0;
    while i < 64 {
        places[i] = (i / 32 * 8 + 2 * v + i / 16 % 2) as u8;
        i += 2;
    }
    places
}

static Q2_SCALES: [Places; 4] = [q2_scales(0), q2_scales(1), q2_scales(2), q2_scales(3)];

impl Q2K {
    /// Four vectors of weights, already times their scales: at most 45.
    #[inline(always)]
    fn weights<S: Isa>(s: S, block: &[u8; 84]) -> [S::B; 4] {
        let scales = s.and(s.repeat(part(block, 0)), s.splat(15));
        let codes = s.bytes(part(block, 16));
        let shifted = [codes, s.shr::<2>(codes), s.shr::<4>(codes), s.shr::<6>(codes)];
        std::array::from_fn(|v| {
            // The products of a scale with 0, 1, 2, 3 are bytes 0..4 of each quarter's table.
            let scale = s.lookup(scales, s.bytes(&Q2_SCALES[v]));
            let products = s.mul_words(scale, s.as_bytes(s.splat_int(0x0302_0100)));
            s.lookup(products, s.and(shifted[v], s.splat(3)))
        })
    }
}

impl Codec for Q2K {
    const COLS: usize = 2048;
    const BYTES: usize = 8 * 84;
    const SCALES: usize = 0;
    const BLOCK: usize = 256;

    #[inline(always)]
    fn step<S: Isa, const N: usize>(
        s: S,
        bytes: &[u8],
        _: &[u8],
        x: &[Step<'_>; N],
    ) -> ([S::I; N], S::F) {
        let zero = s.splat_int(0);
        let mut sums: [Sums<S>; N] = std::array::from_fn(|_| Sums::new(s));
        for pair in 0..4 {
            for i in [2 * pair, 2 * pair + 1] {
                let weights = Q2K::weights(s, part(bytes, i * 84));
                for (sums, x) in sums.iter_mut().zip(x) {
                    sums.first[i] = dots(s, &weights, x, i);
                }
            }
            let minima = s.widen(part(bytes, pair * 168), part(bytes, pair * 168 + 84));
            let minima = s.shr::<4>(minima);
            for (sums, x) in sums.iter_mut().zip(x) {
                sums.second[pair] = s.dot_words(zero, minima, s.words(part(x.sums, pair * 32)));
            }
        }
        (
            sums.map(|sums| sums.integers(s)),
            f16_scales(s, bytes, 84, 80, Some(82), &WITH_MINIMA),
        )
    }

    #[inline(always)]
    fn activation_scales<S: Isa>(s: S, x: &Step<'_>) -> S::F {
        s.twice(part(x.scales, 0))
    }
}

/// Four vectors of weights times those of the activations of superblock `i`.
#[inline(always)]
fn dots<S: Isa>(s: S, weights: &[S::B; 4], x: &Step<'_>, i: usize) -> S::I {
    let mut sum = s.splat_int(0);
    for (v, &weights) in weights.iter().enumerate() {
        sum = s.dot(sum, weights, x.vector(s, 4 * i + v));
    }
    sum
}

/// Q4_K, `[d: f16][dmin: f16][scales: 12 bytes][128 bytes of two codes]`, or, with `FIFTHS`, Q5_K,
/// which has 32 bytes of fifth bits before the codes.
pub struct Nibbles<const FIFTHS: bool>;

/// For vector `v`, the scale of each half in both words of each place.
const fn nibble_scales(v: usize) -> Places {
    let mut places = [ZERO; 64];
    let mut i = 0;
    while i < 64 {
        places[i] = (v / 2 * 4 + v % 2 + i / 32 * 2) as u8;
        i += 2;
    }
    places
}

static NIBBLE_SCALES: [Places; 4] =
    [nibble_scales(0), nibble_scales(1), nibble_scales(2), nibble_scales(3)];

/// Each of the minima, bytes 8..16 of a table, in two words; two quarters for a superblock.
static NIBBLE_MINIMA: Places = {
    let mut places = [ZERO; 64];
    let mut i = 0;
    while i < 64 {
        places[i] = (8 + i % 32 / 4) as u8;
        i += 2;
    }
    places
};

impl<const FIFTHS: bool> Nibbles<FIFTHS> {
    const BLOCK_BYTES: usize = if FIFTHS { 176 } else { 144 };

    /// Eight scales of six bits, then eight minima.
    #[inline(always)]
    fn scales(block: &[u8]) -> [u8; 16] {
        let word = |at| u32::from_le_bytes(*part(block, at));
        let (low, middle, high) = (word(4), word(8), word(12));
        let first = low & 0x3f3f_3f3f | 0;
        let second = high & 0x0f0f_0f0f | (low >> 6 & 0x0303_0303) << 4;
        let third = middle & 0x3f3f_3f3f;
        let fourth = high >> 4 & 0x0f0f_0f0f | (middle >> 6 & 0x0303_0303) << 4;
        let all = u128::from(first)
            | u128::from(second) << 32
            | u128::from(third) << 64
            | u128::from(fourth) << 96;
        all.to_le_bytes()
    }

    /// Four vectors of weights.
    #[inline(always)]
    fn weights<S: Isa>(s: S, block: &[u8]) -> [S::B; 4] {
        let codes = if FIFTHS { 48 } else { 16 };
        let (a, b) = (s.bytes(part(block, codes)), s.bytes(part(block, codes + 64)));
        let nibbles =
            [a, s.shr::<4>(a), b, s.shr::<4>(b)].map(|codes| s.and(codes, s.splat(15)));
        if !FIFTHS {
            return nibbles;
        }
        // Vector `v` has sub-block `j` in its lower half and `j + 2` in its upper: with the upper
        // half two bits further, one bit serves both.
        let fifths = s.pair(part(block, 16), part(block, 16));
        let fifths = s.or(
            s.and(fifths, s.bytes(&LOWER_HALF)),
            s.and(s.shr::<2>(fifths), s.bytes(&UPPER_HALF_SIX)),
        );
        let bits = [s.shl::<4>(fifths), s.shl::<3>(fifths), fifths, s.shr::<1>(fifths)];
        std::array::from_fn(|v| s.or(nibbles[v], s.and(bits[v], s.splat(16))))
    }
}

/// All bits of the first 32 bytes.
static LOWER_HALF: Places = halves_of(0xff, 0);
/// The six lower bits of the other 32 bytes.
static UPPER_HALF_SIX: Places = halves_of(0, 0x3f);

const fn halves_of(lower: u8, upper: u8) -> Places {
    let mut bytes = [lower; 64];
    let mut i = 32;
    while i < 64 {
        bytes[i] = upper;
        i += 1;
    }
    bytes
}

impl<const FIFTHS: bool> Codec for Nibbles<FIFTHS> {
    const COLS: usize = 2048;
    const BYTES: usize = 8 * Self::BLOCK_BYTES;
    const SCALES: usize = 0;
    const BLOCK: usize = 256;

    #[inline(always)]
    fn step<S: Isa, const N: usize>(
        s: S,
        bytes: &[u8],
        _: &[u8],
        x: &[Step<'_>; N],
    ) -> ([S::I; N], S::F) {
        let zero = s.splat_int(0);
        let mut sums: [Sums<S>; N] = std::array::from_fn(|_| Sums::new(s));
        for pair in 0..4 {
            let small = [2 * pair, 2 * pair + 1].map(|i| {
                let block = &bytes[i * Self::BLOCK_BYTES..][..Self::BLOCK_BYTES];
                let weights = Self::weights(s, block);
                let small = Self::scales(block);
                let table = s.repeat(&small);
                for v in 0..4 {
                    let scale = s.lookup(table, s.bytes(&NIBBLE_SCALES[v]));
                    for (sums, x) in sums.iter_mut().zip(x) {
                        let x = x.vector(s, 4 * i + v);
                        sums.first[i] = s.dot_scaled(sums.first[i], weights[v], x, scale);
                    }
                }
                small
            });
            let table = s.quad([&small[0], &small[0], &small[1], &small[1]]);
            let minima = s.lookup(table, s.bytes(&NIBBLE_MINIMA));
            for (sums, x) in sums.iter_mut().zip(x) {
                sums.second[pair] = s.dot_words(zero, minima, s.words(part(x.sums, pair * 32)));
            }
        }
        let scales = f16_scales(s, bytes, Self::BLOCK_BYTES, 0, Some(2), &WITH_MINIMA);
        (sums.map(|sums| sums.integers(s)), scales)
    }

    #[inline(always)]
    fn activation_scales<S: Isa>(s: S, x: &Step<'_>) -> S::F {
        s.twice(part(x.scales, 0))
    }
}

/// `[low: 128 bytes][high: 64 bytes][scales: i8 x 16][d: f16]`.
pub struct Q6K;

/// For vector `v`, the scale of each quarter in the high byte of each word.
const fn q6_scales(v: usize) -> Places {
    let mut places = [ZERO; 64];
    let mut i = 1;
    while i < 64 {
        places[i] = (4 * v + i / 16) as u8;
        i += 2;
    }
    places
}

static Q6_SCALES: [Places; 4] = [q6_scales(0), q6_scales(1), q6_scales(2), q6_scales(3)];

/// Each of the sixteen scales in the high byte of a word; nothing in the second half.
static Q6_EACH: Places = {
    let mut places = [ZERO; 64];
    let mut i = 1;
    while i < 32 {
        places[i] = (i / 2) as u8;
        i += 2;
    }
    places
};

impl Q6K {
    /// Four vectors of weights, 32 added to each.
    #[inline(always)]
    fn weights<S: Isa>(s: S, block: &[u8; 210]) -> [S::B; 4] {
        let mut weights = [s.splat(0); 4];
        for half in 0..2 {
            let low = s.bytes(part(block, 64 * half));
            // The upper half of a vector takes the two bits after those of the lower half.
            let high = s.pair(part(block, 128 + 32 * half), part(block, 128 + 32 * half));
            let high = s.or(
                s.and(high, s.bytes(&LOWER_HALF)),
                s.and(s.shr::<2>(high), s.bytes(&UPPER_HALF_SIX)),
            );
            let (nibble, top) = (s.splat(15), s.splat(0x30));
            weights[2 * half] = s.or(s.and(low, nibble), s.and(s.shl::<4>(high), top));
            weights[2 * half + 1] = s.or(s.and(s.shr::<4>(low), nibble), s.and(high, top));
        }
        weights
    }
}

impl Codec for Q6K {
    const COLS: usize = 2048;
    const BYTES: usize = 8 * 210;
    const SCALES: usize = 0;
    const BLOCK: usize = 256;

    #[inline(always)]
    fn step<S: Isa, const N: usize>(
        s: S,
        bytes: &[u8],
        _: &[u8],
        x: &[Step<'_>; N],
    ) -> ([S::I; N], S::F) {
        let zero = s.splat_int(0);
        let mut sums: [Sums<S>; N] = std::array::from_fn(|_| Sums::new(s));
        for i in 0..8 {
            let block = part(bytes, i * 210);
            let weights = Q6K::weights(s, block);
            let table = s.repeat(part(block, 192));
            let each = s.sar8(s.lookup(table, s.bytes(&Q6_EACH)));
            for (sums, x) in sums.iter_mut().zip(x) {
                let x_sums = s.half_words(part(x.sums, i * 16));
                let excess = s.shl_int::<5>(s.dot_words(zero, each, x_sums));
                sums.first[i] = s.sub(zero, excess);
            }
            for v in 0..4 {
                let scale = s.sar8(s.lookup(table, s.bytes(&Q6_SCALES[v])));
                for (sums, x) in sums.iter_mut().zip(x) {
                    let x = x.vector(s, 4 * i + v);
                    sums.first[i] = s.dot_scaled(sums.first[i], weights[v], x, scale);
                }
            }
        }
        (sums.map(|sums| sums.integers(s)), f16_scales(s, bytes, 210, 208, None, &ALONE))
    }

    #[inline(always)]
    fn activation_scales<S: Isa>(s: S, x: &Step<'_>) -> S::F {
        s.twice(part(x.scales, 0))
    }
}

/// `[d: f16][8 groups of four grid indices and a word of signs and scale]`.
pub struct Iq2Xxs;

/// Which sign belongs to each byte of vector `v`.
const fn iq2_signs(v: usize) -> Places {
    let mut bits = [1 << v; 64];
    let mut i = 1;
    while i < 64 {
        bits[i] = 16 << v;
        i += 2;
    }
    bits
}

static IQ2_SIGNS: [Places; 4] = [iq2_signs(0), iq2_signs(1), iq2_signs(2), iq2_signs(3)];
static IQ2_LEVELS: [u8; 16] =
    [LEVELS[0], LEVELS[1], LEVELS[2], 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

impl Iq2Xxs {
    /// Four vectors of magnitudes.
    #[inline(always)]
    fn magnitudes<S: Isa>(s: S, codes: S::B) -> [S::B; 4] {
        let levels = s.repeat(&IQ2_LEVELS);
        [codes, s.shr::<2>(codes), s.shr::<4>(codes), s.shr::<6>(codes)]
            .map(|codes| s.lookup(levels, s.and(codes, s.splat(3))))
    }

    /// `2 scale + 1` of each group, in the two integers that its weights meet.
    #[inline(always)]
    fn scales<S: Isa>(s: S, groups: &[u8; 64]) -> S::I {
        let scale = s.shr_int::<28>(s.dup_odd(s.as_ints(s.bytes(groups))));
        s.add(s.add(scale, scale), s.splat_int(1))
    }
}

impl Codec for Iq2Xxs {
    const COLS: usize = 2048;
    const BYTES: usize = 8 * 66;
    const SCALES: usize = 0;
    const BLOCK: usize = 256;

    #[inline(always)]
    fn step<S: Isa, const N: usize>(
        s: S,
        bytes: &[u8],
        _: &[u8],
        x: &[Step<'_>; N],
    ) -> ([S::I; N], S::F) {
        let mut sums: [Sums<S>; N] = std::array::from_fn(|_| Sums::new(s));
        for i in 0..8 {
            let groups = part(bytes, i * 66 + 2);
            let (codes, signs) = s.iq2xxs(groups);
            let magnitudes = Iq2Xxs::magnitudes(s, codes);
            let scales = Iq2Xxs::scales(s, groups);
            for (sums, x) in sums.iter_mut().zip(x) {
                let mut sum = s.splat_int(0);
                for v in 0..4 {
                    let x = s.flip(x.vector(s, 4 * i + v), signs, s.bytes(&IQ2_SIGNS[v]));
                    sum = s.dot(sum, magnitudes[v], x);
                }
                sums.first[i] = s.mul(sum, scales);
            }
        }
        (sums.map(|sums| sums.integers(s)), f16_scales(s, bytes, 66, 0, None, &EIGHTH))
    }

    #[inline(always)]
    fn activation_scales<S: Isa>(s: S, x: &Step<'_>) -> S::F {
        s.twice(part(x.scales, 0))
    }
}

/// E4M3 codes; an e8m0 scale per 128 columns in a second tensor.
pub struct Fp8;

impl Codec for Fp8 {
    const COLS: usize = 1024;
    const BYTES: usize = 1024;
    const SCALES: usize = 8;
    const BLOCK: usize = 128;

    #[inline(always)]
    fn step<S: Isa, const N: usize>(
        s: S,
        bytes: &[u8],
        scales: &[u8],
        x: &[Step<'_>; N],
    ) -> ([S::I; N], S::F) {
        let zero = s.splat_int(0);
        let mut sums: [Sums<S>; N] = std::array::from_fn(|_| Sums::new(s));
        for pair in 0..4 {
            let mut highs = [[zero; 2]; N];
            for tile in 0..2 {
                let i = 2 * pair + tile;
                for ((sums, highs), x) in sums.iter_mut().zip(&mut highs).zip(x) {
                    let mut parts = [zero; 2];
                    for v in [2 * i, 2 * i + 1] {
                        let codes = s.bytes(part(bytes, 64 * v));
                        parts = s.dot_e4m3(parts, codes, x.vector(s, v));
                    }
                    (sums.first[i], highs[tile]) = (parts[0], parts[1]);
                }
            }
            for (sums, [a, b]) in sums.iter_mut().zip(highs) {
                sums.second[pair] = s.halve(a, b);
            }
        }
        let scales: &[u8; 8] = part(scales, 0);
        let scales = s.powers(&std::array::from_fn(|i| scales[i % 8]));
        (sums.map(|sums| sums.integers(s)), s.mul_floats(scales, s.floats(&E4M3_UNITS)))
    }

    #[inline(always)]
    fn activation_scales<S: Isa>(s: S, x: &Step<'_>) -> S::F {
        s.twice(part(x.scales, 0))
    }
}
