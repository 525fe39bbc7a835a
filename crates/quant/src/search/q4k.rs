//! Q4_K: eight sub-blocks of 32, codes of four bits, scales and minima of six.

use super::{
    Block,
    affine::{Shape, fit},
};

const SHAPE: Shape = Shape { part: 32, top: 15, top_scale: 63 };

pub(super) fn encode(block: &Block, out: &mut [u8; 144]) {
    let fitted = fit(&SHAPE, block);
    out.fill(0);
    out[0..2].copy_from_slice(&fitted.d.to_le_bytes());
    out[2..4].copy_from_slice(&fitted.dmin.to_le_bytes());
    let packed = &mut out[4..16];
    for (j, &(scale, min)) in fitted.steps.iter().take(8).enumerate() {
        if j < 4 {
            packed[j] |= scale;
            packed[j + 4] |= min;
        } else {
            // The lower four bits together; the upper two where the first four left room.
            packed[j + 4] = scale & 15 | min << 4;
            packed[j - 4] |= scale >> 4 << 6;
            packed[j] |= min >> 4 << 6;
        }
    }
    for (i, run) in fitted.codes.as_chunks::<32>().0.iter().enumerate() {
        let (pair, shift) = (i / 2, 4 * (i % 2));
        for (byte, code) in out[16 + 32 * pair..][..32].iter_mut().zip(run) {
            *byte |= code << shift;
        }
    }
}
