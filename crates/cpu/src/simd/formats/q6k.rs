//! Q6_K: `[low: 128 bytes][high: 64 bytes][scales: i8 x 16][d: f16]`.

use super::{
    super::{
        codec::{ChunkScales, Chunks, Codec, Kind, Step, part},
        isa::Isa,
    },
    Places, Sums, ZERO, half, scales_alone, upper_half_two_further,
};

const BLOCK: usize = 210;
/// Codes are so much larger than what they stand for.
const BIAS: i32 = 32;

/// Six bits, with a signed scale per 16 columns.
pub struct Q6K;

/// For vector `v`, the scale of each quarter in the high byte of each word.
const fn scale_places(v: usize) -> Places {
    let mut places = [ZERO; 64];
    let mut i = 1;
    while i < 64 {
        places[i] = (4 * v + i / 16) as u8;
        i += 2;
    }
    places
}

static SCALE_PLACES: [Places; 4] =
    [scale_places(0), scale_places(1), scale_places(2), scale_places(3)];

/// Each of the sixteen scales in the high byte of a word; nothing in the second half.
static EACH_PLACE: Places = {
    let mut places = [ZERO; 64];
    let mut i = 1;
    while i < 32 {
        places[i] = (i / 2) as u8;
        i += 2;
    }
    places
};

/// Four vectors of codes.
#[inline(always)]
fn weights<S: Isa>(s: S, block: &[u8; BLOCK]) -> [S::B; 4] {
    let (nibble, top) = (s.splat(15), s.splat(0x30));
    let mut vectors = [nibble; 4];
    for half in 0..2 {
        let low = s.bytes(part(block, 64 * half));
        let high = upper_half_two_further(s, part(block, 128 + 32 * half));
        vectors[2 * half] = s.or(s.and(low, nibble), s.and(s.shl::<4>(high), top));
        vectors[2 * half + 1] = s.or(s.and(s.shr::<4>(low), nibble), s.and(high, top));
    }
    vectors
}

impl Codec for Q6K {
    type Bytes = [u8; 8 * BLOCK];
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
            for half in 0..2 {
                let i = 2 * pair + half;
                let block = part(bytes, i * BLOCK);
                let weights = weights(s, block);
                let table = s.repeat(part(block, 192));
                let each = s.sar8(s.lookup(table, s.bytes(&EACH_PLACE)));
                for n in 0..N {
                    let x = s.half_words(part(x[n].sums, i * 16));
                    let excess = s.shl_int::<5>(s.dot_words(zero, each, x));
                    firsts[n][half] = s.sub(zero, excess);
                }
                for v in 0..4 {
                    let scale = s.sar8(s.lookup(table, s.bytes(&SCALE_PLACES[v])));
                    for n in 0..N {
                        let x = s.signed(part(x[n].codes, 256 * i + 64 * v));
                        firsts[n][half] = s.dot_scaled(firsts[n][half], weights[v], x, scale);
                    }
                }
            }
            for n in 0..N {
                sums[n].first[pair] = s.halve(firsts[n][0], firsts[n][1]);
            }
        }
        (Sums::first_integers(s, &sums), scales_alone::<S, BLOCK>(s, bytes, 208))
    }

    #[inline(always)]
    fn activation_scales<S: Isa>(s: S, scales: &Self::Scales) -> S::F {
        s.twice(scales)
    }
}

impl Chunks for Q6K {
    const GROUPS: usize = 16;
    const KIND: Kind = Kind::Integers;
    const SIGNED: bool = false;

    #[inline(always)]
    fn bias(_: i32) -> i32 {
        BIAS
    }

    #[inline(always)]
    fn four(group: usize, i: usize) -> usize {
        4 * group + i
    }

    #[inline(always)]
    fn weights<S: Isa>(s: S, bytes: &Self::Bytes, i: usize) -> [S::B; 4] {
        weights(s, part(bytes, i * BLOCK))
    }

    #[inline(always)]
    fn scales(bytes: &Self::Bytes, _: &Self::Powers, i: usize) -> ChunkScales {
        let block: &[u8; BLOCK] = part(bytes, i * BLOCK);
        let mut integers = [0; 16];
        for (integer, scale) in integers.iter_mut().zip(part::<_, 16>(block, 192)) {
            *integer = i16::from(*scale as i8);
        }
        let mut floats = [0; 8];
        floats[0] = half(block, 208);
        ChunkScales { floats, integers, minima: [0; 16] }
    }

    #[inline(always)]
    fn floats<S: Isa>(s: S, _: usize, codes: [u16; 16]) -> S::F {
        s.halves(codes)
    }
}
