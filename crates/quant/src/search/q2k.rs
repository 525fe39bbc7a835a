//! Q2_K: sixteen sub-blocks of 16, codes of two bits, scales and minima of four.

use super::{
    Block,
    affine::{Shape, fit},
};

const SHAPE: Shape = Shape { part: 16, top: 3, top_scale: 15 };

pub(super) fn encode(block: &Block, out: &mut [u8; 84]) {
    let fitted = fit(&SHAPE, block);
    out.fill(0);
    for (byte, (scale, min)) in out.iter_mut().zip(fitted.steps) {
        *byte = scale | min << 4;
    }
    // Each half of 128 values has 32 bytes; every run of 32 has its own pair of their bits.
    for (i, run) in fitted.codes.as_chunks::<32>().0.iter().enumerate() {
        let (half, shift) = (i / 4, 2 * (i % 4));
        for (byte, code) in out[16 + 32 * half..][..32].iter_mut().zip(run) {
            *byte |= code << shift;
        }
    }
    out[80..82].copy_from_slice(&fitted.d.to_le_bytes());
    out[82..84].copy_from_slice(&fitted.dmin.to_le_bytes());
}
