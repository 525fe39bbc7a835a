//! Rows of `f32` to blocks with as little squared error as a search finds: the encoders that make a
//! smaller file from a larger one.
//!
//! A K-quant and an IQ2_XXS block have scales within scales, so the best code of a value depends on
//! what all others of its block need. Each search goes the same way: the best scale of each part
//! for itself, a common step that all of these come near to a multiple of, the codes again under
//! the scales that are stored, and the step again by least squares.
//!
//! A weight per column, the importance, says how much an error there costs; without it all cost the
//! same. Values that are not finite are refused, for there is no nearest code.

mod affine;
mod iq2xxs;
mod q2k;
mod q4k;

use crate::decode::check_bytes;
use crate::minifloat::{f16_decode, f16_encode};
use crate::scaled::largest_magnitude;
use crate::{Format, QuantError, encode_row, first_non_finite};

/// Values in a block of the formats that are searched.
const BLOCK: usize = 256;

/// Encodes a whole row: Q2_K, Q4_K and IQ2_XXS by search, the others by the rule of [`encode_row`].
///
/// `importance` has one weight per value, none negative; only the searches heed it.
pub fn quantise_row(
    format: Format,
    values: &[f32],
    importance: Option<&[f32]>,
    bytes: &mut [u8],
) -> Result<(), QuantError> {
    check_bytes(format, bytes.len(), values.len())?;
    if let Some(index) = values.iter().position(|x| !x.is_finite()) {
        return Err(QuantError::NotFinite { index });
    }
    if let Some(weights) = importance {
        if weights.len() != values.len() {
            let (expected, found) = (values.len(), weights.len());
            return Err(QuantError::Values { what: "the importance of a row", expected, found });
        }
        if let Some(index) = weights.iter().position(|w| !(w.is_finite() && *w >= 0.0)) {
            return Err(QuantError::Importance { index });
        }
    }
    match format {
        Format::Q2K => each_block(values, importance, bytes, q2k::encode),
        Format::Q4K => each_block(values, importance, bytes, q4k::encode),
        Format::Iq2Xxs => each_block(values, importance, bytes, iq2xxs::encode),
        _ => encode_row(format, values, bytes)?,
    }
    match first_non_finite(format, bytes) {
        None => Ok(()),
        Some(offset) => {
            let index = offset / format.block_bytes() * format.block_elems();
            Err(QuantError::TooLarge { format, index })
        }
    }
}

fn each_block<const BYTES: usize>(
    values: &[f32],
    importance: Option<&[f32]>,
    bytes: &mut [u8],
    encode: impl Fn(&Block, &mut [u8; BYTES]),
) {
    let (values, _) = values.as_chunks::<BLOCK>();
    let (blocks, _) = bytes.as_chunks_mut::<BYTES>();
    let mut weights = importance.map(|weights| weights.as_chunks::<BLOCK>().0.iter());
    for (values, bytes) in values.iter().zip(blocks) {
        let weights = weights.as_mut().and_then(Iterator::next);
        encode(&Block::new(values, weights), bytes);
    }
}

/// A block brought to magnitudes of at most 1, so that no sum of squares leaves the range of `f32`
/// whatever the values are, with weights of at most 1.
struct Block {
    values: [f32; BLOCK],
    weights: [f32; BLOCK],
    /// The power of two that the values were divided by.
    unit: f64,
}

impl Block {
    fn new(values: &[f32; BLOCK], weights: Option<&[f32; BLOCK]>) -> Block {
        let largest = largest_magnitude(values);
        // The next power of two, found in the exponent's bits. A block of zeros stays what it is.
        let unit = f64::from_bits(((largest.to_bits() >> 52) + 1) << 52);
        let unit = if largest == 0.0 { 1.0 } else { unit };
        let heaviest = weights.map_or(0.0, |weights| weights.iter().fold(0f32, |a, &b| a.max(b)));
        Block {
            values: values.map(|x| (f64::from(x) / unit) as f32),
            weights: match weights {
                Some(weights) if heaviest > 0.0 => weights.map(|w| w / heaviest),
                _ => [1.0; BLOCK],
            },
            unit,
        }
    }

    /// What a scale of this block becomes in the file, and what it is worth there.
    fn stored(&self, scale: f64) -> Step {
        let half = f16_encode((scale * self.unit) as f32);
        Step { half, value: (f64::from(f16_decode(half)) / self.unit) as f32 }
    }
}

/// A scale of a whole block: its f16, and its value among the block's own.
#[derive(Clone, Copy)]
struct Step {
    half: u16,
    value: f32,
}

/// The step of which every part's scale is nearly a whole number of times, at most `top` times, and
/// a number that `multiple` allows. `parts` are scales with what an error in them costs.
fn common_step(
    block: &Block,
    parts: &[(f32, f32)],
    candidates: impl Iterator<Item = f32>,
    multiple: impl Fn(f32) -> f32,
) -> Step {
    let largest = parts.iter().fold(0f32, |largest, &(scale, _)| largest.max(scale));
    let mut best: Option<(f32, Step)> = None;
    for times in candidates {
        let step = block.stored(f64::from(largest) / f64::from(times));
        let error: f32 = parts
            .iter()
            .map(|&(scale, cost)| {
                cost * (scale - step.value * multiple(scale / step.value)).powi(2)
            })
            .sum();
        if best.is_none_or(|(least, _)| error < least) {
            best = Some((error, step));
        }
    }
    best.map_or(Step { half: 0, value: 0.0 }, |(_, step)| step)
}

/// The nearest whole number from 0 to `top`. Adding and taking away 1.5 * 2^23 rounds to nearest
/// even without a call, so that loops over it vectorise.
#[inline(always)]
fn nearest(x: f32, top: f32) -> f32 {
    const SHIFT: f32 = 12_582_912.0;
    x.max(0.0).min(top) + SHIFT - SHIFT
}
