//! Q4_K, `[d: f16][dmin: f16][scales: 12 bytes][128 bytes of two codes]`, and Q5_K, which has 32
//! bytes of fifth bits before the codes.

use super::{
    super::{
        codec::{ChunkScales, Chunks, Codec, Kind, Step, part},
        isa::Isa,
    },
    Places, Sums, ZERO, half, scales_and_minima, upper_half_two_further,
};

/// Either format, by the bytes of a block and of eight.
pub struct Nibbles<const BLOCK: usize, const STEP: usize>;

/// Four bits, with scale and minimum per 32 columns.
pub type Q4K = Nibbles<144, 1152>;
/// Five bits.
pub type Q5K = Nibbles<176, 1408>;

/// For vector `v`, the scale of each half in both words of each place.
const fn scale_places(v: usize) -> Places {
    let mut places = [ZERO; 64];
    let mut i = 0;
    while i < 64 {
        places[i] = (v / 2 * 4 + v % 2 + i / 32 * 2) as u8;
        i += 2;
    }
    places
}

static SCALE_PLACES: [Places; 4] =
    [scale_places(0), scale_places(1), scale_places(2), scale_places(3)];

/// Each of the minima, bytes 8..16 of a table, in two words; two quarters for a superblock.
static MINIMA_PLACES: Places = {
    let mut places = [ZERO; 64];
    let mut i = 0;
    while i < 64 {
        places[i] = (8 + i % 32 / 4) as u8;
        i += 2;
    }
    places
};

/// Eight scales of six bits, then eight minima.
#[inline(always)]
fn small_scales(block: &[u8]) -> [u8; 16] {
    const LOW_SIX: u32 = 0x3f3f_3f3f;
    const LOW_FOUR: u32 = 0x0f0f_0f0f;
    const LOW_TWO: u32 = 0x0303_0303;
    let word = |at| u32::from_le_bytes(*part(block, at));
    let (low, middle, high) = (word(4), word(8), word(12));
    let scales = low & LOW_SIX;
    let more_scales = high & LOW_FOUR | (low >> 6 & LOW_TWO) << 4;
    let minima = middle & LOW_SIX;
    let more_minima = high >> 4 & LOW_FOUR | (middle >> 6 & LOW_TWO) << 4;
    let all = u128::from(scales)
        | u128::from(more_scales) << 32
        | u128::from(minima) << 64
        | u128::from(more_minima) << 96;
    all.to_le_bytes()
}

impl<const BLOCK: usize, const STEP: usize> Nibbles<BLOCK, STEP> {
    const FIFTHS: bool = BLOCK == 176;

    /// Four vectors of weights.
    #[inline(always)]
    fn vectors<S: Isa>(s: S, block: &[u8; BLOCK]) -> [S::B; 4] {
        let codes = if Self::FIFTHS { 48 } else { 16 };
        let (a, b) = (s.bytes(part(block, codes)), s.bytes(part(block, codes + 64)));
        let mut vectors = [a, s.shr::<4>(a), b, s.shr::<4>(b)];
        for vector in &mut vectors {
            *vector = s.and(*vector, s.splat(15));
        }
        if Self::FIFTHS {
            let fifths = upper_half_two_further(s, part(block, 16));
            let bits = [s.shl::<4>(fifths), s.shl::<3>(fifths), fifths, s.shr::<1>(fifths)];
            for (vector, bits) in vectors.iter_mut().zip(bits) {
                *vector = s.or(*vector, s.and(bits, s.splat(16)));
            }
        }
        vectors
    }
}

impl<const BLOCK: usize, const STEP: usize> Codec for Nibbles<BLOCK, STEP> {
    type Bytes = [u8; STEP];
    type Powers = [u8; 0];
    type Codes = [i8; 2048];
    type Scales = [f32; 8];
    type Sums = [i16; 128];

    #[inline(always)]
    fn step<S: Isa, const N: usize>(
        s: S,
        bytes: &Self::Bytes,
        _: &Self::Powers,
        x: &[Step<'_, Self>; N],
    ) -> ([S::I; N], S::F) {
        let zero = s.splat_int(0);
        let mut sums = [Sums::new(s); N];
        for pair in 0..4 {
            let mut firsts = [[zero; 2]; N];
            let mut small = [[0; 16]; 2];
            for half in 0..2 {
                let i = 2 * pair + half;
                let block = part(bytes, i * BLOCK);
                let weights = Self::vectors(s, block);
                small[half] = small_scales(block);
                let table = s.repeat(&small[half]);
                for v in 0..4 {
                    let scale = s.lookup(table, s.bytes(&SCALE_PLACES[v]));
                    for n in 0..N {
                        let x = s.signed(part(x[n].codes, 256 * i + 64 * v));
                        firsts[n][half] = s.dot_scaled(firsts[n][half], weights[v], x, scale);
                    }
                }
            }
            let table = s.quad([&small[0], &small[0], &small[1], &small[1]]);
            let minima = s.lookup(table, s.bytes(&MINIMA_PLACES));
            for n in 0..N {
                sums[n].first[pair] = s.halve(firsts[n][0], firsts[n][1]);
                let x = s.words(part(x[n].sums, pair * 32));
                sums[n].second[pair] = s.dot_words(zero, minima, x);
            }
        }
        (Sums::integers(s, &sums), scales_and_minima::<S, BLOCK>(s, bytes, 0, 2))
    }

    #[inline(always)]
    fn activation_scales<S: Isa>(s: S, scales: &Self::Scales) -> S::F {
        s.twice(scales)
    }
}

impl<const BLOCK: usize, const STEP: usize> Chunks for Nibbles<BLOCK, STEP> {
    const GROUPS: usize = 8;
    const KIND: Kind = Kind::Minima;
    const SIGNED: bool = false;

    #[inline(always)]
    fn bias(_: i32) -> i32 {
        0
    }

    /// Sub-blocks lie as 0, 2, 1, 3, 4, 6, 5, 7.
    #[inline(always)]
    fn four(group: usize, i: usize) -> usize {
        (group / 4 * 4 + group % 2 * 2 + group / 2 % 2) * 8 + i
    }

    #[inline(always)]
    fn weights<S: Isa>(s: S, bytes: &Self::Bytes, i: usize) -> [S::B; 4] {
        Self::vectors(s, part(bytes, i * BLOCK))
    }

    #[inline(always)]
    fn scales(bytes: &Self::Bytes, _: &Self::Powers, i: usize) -> ChunkScales {
        let block: &[u8; BLOCK] = part(bytes, i * BLOCK);
        let small = small_scales(block);
        let mut floats = [0; 8];
        floats[0] = half(block, 0);
        floats[1] = half(block, 2);
        let (mut integers, mut minima) = ([0; 16], [0; 16]);
        for j in 0..8 {
            integers[j] = i16::from(small[j]);
            minima[2 * j..2 * j + 2].fill(i16::from(small[8 + j]));
        }
        ChunkScales { floats, integers, minima }
    }

    #[inline(always)]
    fn floats<S: Isa>(s: S, i: usize, codes: [u16; 16]) -> S::F {
        s.mul_floats(s.halves(codes), s.splat_float(if i == 0 { 1.0 } else { -1.0 }))
    }
}
