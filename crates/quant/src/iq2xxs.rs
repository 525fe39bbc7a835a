//! IQ2_XXS: `[d: f16][8 groups of 8 bytes]`, 32 values per group.
//!
//! A group is four grid indices and a little-endian word: seven bits of signs for each index,
//! lowest first, and on top a four-bit scale. `x = d (scale + 1/2) / 4 magnitude sign`.

use crate::iq2xxs_grid::GRID;
use crate::minifloat::f16_decode;

pub(crate) fn decode(block: &[u8; 66], out: &mut [f32; 256]) {
    let [d0, d1, groups @ ..] = block;
    let d = f16_decode(u16::from_le_bytes([*d0, *d1]));
    let (groups, _) = groups.as_chunks::<8>();
    for (&[i0, i1, i2, i3, w0, w1, w2, w3], out) in groups.iter().zip(out.as_chunks_mut::<32>().0) {
        let word = u32::from_le_bytes([w0, w1, w2, w3]);
        let scale = d * ((word >> 28) as f32 + 0.5) * 0.25;
        for (l, (index, out)) in
            [i0, i1, i2, i3].into_iter().zip(out.as_chunks_mut::<8>().0).enumerate()
        {
            let signs = signs(word >> (7 * l) & 127);
            for (j, (x, &magnitude)) in out.iter_mut().zip(&GRID[usize::from(index)]).enumerate() {
                let flip = (signs >> j & 1) << 31;
                *x = f32::from_bits((scale * f32::from(magnitude)).to_bits() ^ flip);
            }
        }
    }
}

/// The eight signs, bit set for minus, of which seven are stored: their number is even, and that
/// gives the last.
fn signs(seven: u32) -> u32 {
    seven | (seven.count_ones() & 1) << 7
}
