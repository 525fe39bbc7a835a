//! The checkpoint's FP8: E4M3 codes; an e8m0 scale per 128 columns in a second tensor.
//!
//! The smaller codes are integers in units of 2^-9, the larger ones in units of 2^-1; so the 128
//! columns under a scale take two integers.

use super::{
    super::{
        codec::{Codec, Step, part},
        isa::Isa,
    },
    Sums,
};

/// E4M3 codes.
pub struct Fp8;

/// What the integers of eight tiles are in units of.
static UNITS: [f32; 16] = {
    let mut units = [1.0 / 512.0; 16];
    let mut i = 8;
    while i < 16 {
        units[i] = 0.5;
        i += 1;
    }
    units
};

impl Codec for Fp8 {
    type Bytes = [u8; 1024];
    type Powers = [u8; 8];
    type Codes = [i8; 1024];
    type Scales = [f32; 8];
    type Sums = [i16; 64];

    #[inline(always)]
    fn step<S: Isa, const N: usize>(
        s: S,
        bytes: &Self::Bytes,
        powers: &Self::Powers,
        x: &[Step<'_, Self>; N],
    ) -> ([S::I; N], S::F) {
        let zero = s.splat_int(0);
        let mut sums = [Sums::new(s); N];
        for pair in 0..4 {
            for n in 0..N {
                let mut parts = [[zero; 2]; 2];
                for tile in 0..2 {
                    for v in [4 * pair + 2 * tile, 4 * pair + 2 * tile + 1] {
                        let codes = s.bytes(part(bytes, 64 * v));
                        let x = s.signed(part(x[n].codes, 64 * v));
                        parts[tile] = s.dot_e4m3(parts[tile], codes, x);
                    }
                }
                sums[n].first[pair] = s.halve(parts[0][0], parts[1][0]);
                sums[n].second[pair] = s.halve(parts[0][1], parts[1][1]);
            }
        }
        let mut all = [0; 16];
        for (i, power) in all.iter_mut().enumerate() {
            *power = powers[i % 8];
        }
        (Sums::integers(s, &sums), s.mul_floats(s.powers(all), s.floats(&UNITS)))
    }

    #[inline(always)]
    fn activation_scales<S: Isa>(s: S, scales: &Self::Scales) -> S::F {
        s.twice(scales)
    }
}
