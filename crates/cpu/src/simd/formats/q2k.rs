//! Q2_K: `[scales: 16 bytes][64 bytes of four codes][d: f16][dmin: f16]`.

use super::{
    super::{
        codec::{ChunkScales, Chunks, Codec, Kind, Step, part},
        isa::Isa,
    },
    Places, Sums, ZERO, half, scales_and_minima,
};

const BLOCK: usize = 84;

/// Two bits, with scale and minimum per 16 columns.
pub struct Q2K;

/// For vector `v`, the scale of each quarter in the low byte of each word.
const fn scale_places(v: usize) -> Places {
    let mut places = [ZERO; 64];
    let mut i = 0;
    while i < 64 {
        places[i] = (i / 32 * 8 + 2 * v + i / 16 % 2) as u8;
        i += 2;
    }
    places
}

static SCALE_PLACES: [Places; 4] =
    [scale_places(0), scale_places(1), scale_places(2), scale_places(3)];

/// Four vectors of weights, already times their scales: at most 45.
#[inline(always)]
fn weights<S: Isa>(s: S, block: &[u8; BLOCK]) -> [S::B; 4] {
    let scales = s.and(s.repeat(part(block, 0)), s.splat(15));
    let codes = s.bytes(part(block, 16));
    let mut vectors = [codes, s.shr::<2>(codes), s.shr::<4>(codes), s.shr::<6>(codes)];
    for (vector, places) in vectors.iter_mut().zip(&SCALE_PLACES) {
        // The products of a scale with 0, 1, 2, 3 are bytes 0..4 of each quarter's table.
        let scale = s.lookup(scales, s.bytes(places));
        let products = s.mul_words(scale, s.as_bytes(s.splat_int(0x0302_0100)));
        *vector = s.lookup(products, s.and(*vector, s.splat(3)));
    }
    vectors
}

impl Codec for Q2K {
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
                let weights = weights(s, part(bytes, i * BLOCK));
                for n in 0..N {
                    for v in 0..4 {
                        let x = s.signed(part(x[n].codes, 256 * i + 64 * v));
                        firsts[n][half] = s.dot(firsts[n][half], weights[v], x);
                    }
                }
            }
            let at = 2 * pair * BLOCK;
            let minima = s.shr::<4>(s.widen(part(bytes, at), part(bytes, at + BLOCK)));
            for n in 0..N {
                sums[n].first[pair] = s.halve(firsts[n][0], firsts[n][1]);
                let x = s.words(part(x[n].sums, pair * 32));
                sums[n].second[pair] = s.dot_words(zero, minima, x);
            }
        }
        (Sums::integers(s, &sums), scales_and_minima::<S, BLOCK>(s, bytes, 80, 82))
    }

    #[inline(always)]
    fn activation_scales<S: Isa>(s: S, scales: &Self::Scales) -> S::F {
        s.twice(scales)
    }
}

impl Chunks for Q2K {
    const GROUPS: usize = 1;
    const KIND: Kind = Kind::Minima;
    const SIGNED: bool = false;

    #[inline(always)]
    fn bias(_: i32) -> i32 {
        0
    }

    #[inline(always)]
    fn four(_: usize, i: usize) -> usize {
        i
    }

    #[inline(always)]
    fn weights<S: Isa>(s: S, bytes: &Self::Bytes, i: usize) -> [S::B; 4] {
        weights(s, part(bytes, i * BLOCK))
    }

    #[inline(always)]
    fn scales(bytes: &Self::Bytes, _: &Self::Powers, i: usize) -> ChunkScales {
        let at = i * BLOCK;
        let mut minima = [0; 16];
        for (minimum, scale) in minima.iter_mut().zip(part::<_, 16>(bytes, at)) {
            *minimum = i16::from(scale >> 4);
        }
        let mut floats = [0; 8];
        floats[0] = half(bytes, at + 80);
        floats[1] = half(bytes, at + 82);
        ChunkScales { floats, integers: [1; 16], minima }
    }

    #[inline(always)]
    fn floats<S: Isa>(s: S, i: usize, codes: [u16; 16]) -> S::F {
        s.mul_floats(s.halves(codes), s.splat_float(if i == 0 { 1.0 } else { -1.0 }))
    }
}
