//! Rows of the key/value cache as they lie in memory.
//!
//! The model rounds these rows anyway (`round`), so packing the codes loses nothing: unpacking
//! gives what the round trip gives, bit for bit, NaN included. Only the rotary values, which the
//! model leaves alone, are rounded here, to f16.

use crate::QuantError;
use crate::checkpoint::{decode_fp4_row, encode_fp4_row};
use crate::minifloat::{f16_decode, f16_encode};
use crate::scaled::{FP4_GROUP, FP8_GROUP, KV_FP8, decode_fp8, encode_fp8, largest_magnitude};

/// A key/value row:
/// `[e4m3 codes][e8m0 scales, one per 64][zeros up to a multiple of 8][rotary values as f16]`.
///
/// The codes are the values without rotary position, "nope" for short. 584 bytes for 512 values of
/// which 64 are rotary: 448 + 7 + 1 + 128.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KvRow {
    nope: usize,
    rope: usize,
    rope_at: usize,
    bytes: usize,
}

impl KvRow {
    /// The layout of a row of `head_dim` values, the last `rope` of them rotary.
    pub fn new(head_dim: usize, rope: usize) -> Result<KvRow, QuantError> {
        let layout = || {
            let nope = head_dim.checked_sub(rope).filter(|_| head_dim > 0)?;
            let rope_at =
                nope.checked_add(nope.div_ceil(FP8_GROUP))?.checked_next_multiple_of(8)?;
            let bytes = rope.checked_mul(2)?.checked_add(rope_at)?;
            Some(KvRow { nope, rope, rope_at, bytes })
        };
        layout().ok_or(QuantError::RowShape { dim: head_dim, rope })
    }

    /// Bytes of one row.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Values of one row.
    pub fn values(&self) -> usize {
        self.nope + self.rope
    }

    /// How many values are E4M3 codes, and where their scales begin, in bytes.
    pub fn nope(&self) -> usize {
        self.nope
    }

    /// Where the rotary values begin, in bytes.
    pub fn rope_at(&self) -> usize {
        self.rope_at
    }

    /// Packs one row.
    pub fn pack(&self, values: &[f32], row: &mut [u8]) -> Result<(), QuantError> {
        self.check(values.len(), row.len())?;
        let (nope, rope) = values.split_at(self.nope);
        let (head, halves) = row.split_at_mut(self.rope_at);
        let (codes, scales) = head.split_at_mut(self.nope);
        scales.fill(0);
        let groups = nope.chunks(FP8_GROUP).zip(codes.chunks_mut(FP8_GROUP));
        for ((group, codes), scale) in groups.zip(scales) {
            *scale = KV_FP8.scale(largest_magnitude(group));
            encode_fp8(group, *scale, codes);
        }
        for (half, &x) in halves.as_chunks_mut::<2>().0.iter_mut().zip(rope) {
            *half = f16_encode(x).to_le_bytes();
        }
        Ok(())
    }

    /// Unpacks one row.
    pub fn unpack(&self, row: &[u8], values: &mut [f32]) -> Result<(), QuantError> {
        self.check(values.len(), row.len())?;
        let (nope, rope) = values.split_at_mut(self.nope);
        let (head, halves) = row.split_at(self.rope_at);
        let (codes, scales) = head.split_at(self.nope);
        let groups = nope.chunks_mut(FP8_GROUP).zip(codes.chunks(FP8_GROUP));
        for ((group, codes), &scale) in groups.zip(scales) {
            decode_fp8(codes, scale, group);
        }
        for (&half, x) in halves.as_chunks::<2>().0.iter().zip(rope) {
            *x = f16_decode(u16::from_le_bytes(half));
        }
        Ok(())
    }

    fn check(&self, values: usize, bytes: usize) -> Result<(), QuantError> {
        check_row("a key/value row", (self.values(), values), (self.bytes, bytes))
    }
}

/// An index row: `[e2m1 codes, the even column in the low nibble][e8m0 scales, one per 32]`, which
/// is an FP4 row of the checkpoint with its scales behind it. 68 bytes for 128 values: 64 + 4.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexRow {
    dim: usize,
}

impl IndexRow {
    /// The layout of a row of `dim` values, an even number.
    pub fn new(dim: usize) -> Result<IndexRow, QuantError> {
        if dim == 0 || !dim.is_multiple_of(2) {
            return Err(QuantError::RowShape { dim, rope: 0 });
        }
        Ok(IndexRow { dim })
    }

    /// Bytes of one row.
    pub fn bytes(&self) -> usize {
        self.scales_at() + self.dim.div_ceil(FP4_GROUP)
    }

    /// Values of one row.
    pub fn values(&self) -> usize {
        self.dim
    }

    /// Where the scales begin, in bytes.
    pub fn scales_at(&self) -> usize {
        self.dim / 2
    }

    /// Packs one row of values that the Hadamard transform has already rotated.
    pub fn pack(&self, values: &[f32], row: &mut [u8]) -> Result<(), QuantError> {
        self.check(values.len(), row.len())?;
        let (codes, scales) = row.split_at_mut(self.scales_at());
        encode_fp4_row(values, codes, scales)
    }

    /// Unpacks one row; the values stay rotated.
    pub fn unpack(&self, row: &[u8], values: &mut [f32]) -> Result<(), QuantError> {
        self.check(values.len(), row.len())?;
        let (codes, scales) = row.split_at(self.scales_at());
        decode_fp4_row(codes, scales, values)
    }

    fn check(&self, values: usize, bytes: usize) -> Result<(), QuantError> {
        check_row("an index row", (self.dim, values), (self.bytes(), bytes))
    }
}

fn check_row(
    what: &'static str,
    (values, found_values): (usize, usize),
    (bytes, found_bytes): (usize, usize),
) -> Result<(), QuantError> {
    if found_values != values {
        return Err(QuantError::Values { what, expected: values, found: found_values });
    }
    if found_bytes != bytes {
        return Err(QuantError::Length { what, expected: bytes, found: found_bytes });
    }
    Ok(())
}
