//! IQ2_XXS: `[d: f16][8 groups of four grid indices and a word of signs and scale]`.

use super::{
    super::{
        codec::{ChunkScales, Chunks, Codec, Kind, Step, part},
        grid::LEVELS,
        isa::Isa,
    },
    Places, Sums, half, scales_alone,
};

const BLOCK: usize = 66;

/// Magnitudes from a grid, signs of even parity, a scale per 32 columns.
pub struct Iq2Xxs;

/// Which sign belongs to each byte of vector `v`.
const fn signs(v: usize) -> Places {
    let mut bits = [1 << v; 64];
    let mut i = 1;
    while i < 64 {
        bits[i] = 16 << v;
        i += 2;
    }
    bits
}

static SIGNS: [Places; 4] = [signs(0), signs(1), signs(2), signs(3)];

/// Four vectors of magnitudes.
#[inline(always)]
fn magnitudes<S: Isa>(s: S, codes: S::B) -> [S::B; 4] {
    s.lookup_fields(&LEVELS, codes)
}

impl Codec for Iq2Xxs {
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
                let groups = part(bytes, i * BLOCK + 2);
                let (codes, signs) = s.iq2xxs(groups);
                let magnitudes = magnitudes(s, codes);
                // 2 scale + 1 of each group, in the two integers that its weights meet; the one takes
                // the place of the sign below the scale.
                let scale = s.shr_int::<27>(s.dup_odd(s.as_ints(s.bytes(groups))));
                let scale = s.as_ints(s.or(s.as_bytes(scale), s.as_bytes(s.splat_int(1))));
                for n in 0..N {
                    // Two chains of additions: one of four would be waited for.
                    let mut sums = [zero; 2];
                    for v in 0..4 {
                        let x = s.signed(part(x[n].codes, 256 * i + 64 * v));
                        let x = s.flip(x, signs, s.bytes(&SIGNS[v]));
                        sums[v % 2] = s.dot(sums[v % 2], magnitudes[v], x);
                    }
                    firsts[n][half] = s.mul(s.add(sums[0], sums[1]), scale);
                }
            }
            for n in 0..N {
                sums[n].first[pair] = s.halve(firsts[n][0], firsts[n][1]);
            }
        }
        let scales = scales_alone::<S, BLOCK>(s, bytes, 0);
        (Sums::first_integers(s, &sums), s.mul_floats(scales, s.splat_float(0.125)))
    }

    #[inline(always)]
    fn activation_scales<S: Isa>(s: S, scales: &Self::Scales) -> S::F {
        s.twice(scales)
    }
}

impl Chunks for Iq2Xxs {
    const GROUPS: usize = 8;
    const KIND: Kind = Kind::Integers;
    const SIGNED: bool = true;

    #[inline(always)]
    fn bias(signed: i32) -> i32 {
        signed
    }

    /// A group has eight bytes of each vector.
    #[inline(always)]
    fn four(group: usize, i: usize) -> usize {
        i / 2 * 16 + 2 * group + i % 2
    }

    #[inline(always)]
    fn weights<S: Isa>(s: S, bytes: &Self::Bytes, i: usize) -> [S::B; 4] {
        let (codes, signs) = s.iq2xxs(part(bytes, i * BLOCK + 2));
        let mut vectors = magnitudes(s, codes);
        for (vector, which) in vectors.iter_mut().zip(&SIGNS) {
            *vector = s.ready(s.flip(*vector, signs, s.bytes(which)));
        }
        vectors
    }

    #[inline(always)]
    fn scales(bytes: &Self::Bytes, _: &Self::Powers, i: usize) -> ChunkScales {
        let block: &[u8; BLOCK] = part(bytes, i * BLOCK);
        let mut integers = [0; 16];
        for (group, integer) in integers[..8].iter_mut().enumerate() {
            *integer = i16::from(2 * (block[2 + 8 * group + 7] >> 4) + 1);
        }
        let mut floats = [0; 8];
        floats[0] = half(block, 0);
        ChunkScales { floats, integers, minima: [0; 16] }
    }

    #[inline(always)]
    fn floats<S: Isa>(s: S, _: usize, codes: [u16; 16]) -> S::F {
        s.mul_floats(s.halves(codes), s.splat_float(0.125))
    }
}
