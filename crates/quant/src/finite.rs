//! Finding the blocks of a damaged file that would decode to NaN or infinity, by looking at as
//! little of each block as tells.

use crate::Format;
use crate::minifloat::e8m0_decode;

/// The offset in `bytes` of the first block that holds a NaN or an infinity: in its f16 scales
/// where it has some, in the number itself otherwise. `None` means that every whole block decodes
/// to finite values; of FP8 and FP4, whose scales lie elsewhere, it speaks of the codes alone.
///
/// An MXFP4 block whose scale is so large that its largest code would overflow counts as not
/// finite.
pub fn first_non_finite(format: Format, bytes: &[u8]) -> Option<usize> {
    match format {
        Format::F32 => find(bytes, |&block: &[u8; 4]| !f32::from_le_bytes(block).is_finite()),
        Format::BF16 => {
            find(bytes, |&block: &[u8; 2]| u16::from_le_bytes(block) & 0x7f80 == 0x7f80)
        }
        Format::F16 => find(bytes, |block: &[u8; 2]| half_is_broken(block, 0)),
        Format::Q8_0 => find(bytes, |block: &[u8; 34]| half_is_broken(block, 0)),
        Format::Q4_0 => find(bytes, |block: &[u8; 18]| half_is_broken(block, 0)),
        Format::Q2K => {
            find(bytes, |block: &[u8; 84]| half_is_broken(block, 80) || half_is_broken(block, 82))
        }
        Format::Q4K => {
            find(bytes, |block: &[u8; 144]| half_is_broken(block, 0) || half_is_broken(block, 2))
        }
        Format::Q5K => {
            find(bytes, |block: &[u8; 176]| half_is_broken(block, 0) || half_is_broken(block, 2))
        }
        Format::Q6K => find(bytes, |block: &[u8; 210]| half_is_broken(block, 208)),
        Format::Iq2Xxs => find(bytes, |block: &[u8; 66]| half_is_broken(block, 0)),
        Format::Mxfp4 => find(bytes, |block: &[u8; 17]| scale_overflows(block[0], LARGEST_FP4)),
        Format::Fp8Block => find(bytes, |&[code]: &[u8; 1]| code & 0x7f == 0x7f),
        Format::Fp4Block => None,
    }
}

/// The offset of the first scale of an FP8 or FP4 tensor that is NaN, or so large that the largest
/// code under it would overflow. Formats that hold their own scales have none.
pub fn first_non_finite_scale(format: Format, scales: &[u8]) -> Option<usize> {
    let largest = match format {
        Format::Fp8Block => LARGEST_FP8,
        Format::Fp4Block => LARGEST_FP4,
        _ => return None,
    };
    scales.iter().position(|&scale| scale_overflows(scale, largest))
}

const LARGEST_FP8: f32 = 448.0;
const LARGEST_FP4: f32 = 6.0;

fn find<const BYTES: usize>(bytes: &[u8], broken: impl Fn(&[u8; BYTES]) -> bool) -> Option<usize> {
    bytes.as_chunks::<BYTES>().0.iter().position(broken).map(|block| block * BYTES)
}

/// Whether the f16 at an offset is infinite or NaN.
#[inline(always)]
fn half_is_broken(block: &[u8], at: usize) -> bool {
    block[at + 1] & 0x7c == 0x7c
}

fn scale_overflows(scale: u8, largest_code: f32) -> bool {
    !(e8m0_decode(scale) * largest_code).is_finite()
}
