//! How cached rows are encoded. Packing is also the model's own rounding: what a query sees is
//! always what was stored, also for rows of its own chunk, so chunks cannot matter.

use ds4_model::{Config, Rounding};
use ds4_quant::{FP8_GROUP, IndexRow, KvRow, QuantError, e8m0_decode, hadamard};

use crate::floats::{e4m3, widen_f16};

/// The encoding of one kind of row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowFormat {
    /// Key/value rows: FP8 and f16.
    Attention(KvRow),
    /// Index rows: Hadamard transform and FP4.
    Index(IndexRow),
    /// `f32`, little-endian, nothing rounded.
    Plain(usize),
}

/// The encodings of a model's rows.
#[derive(Clone, Copy, Debug)]
pub struct RowFormats {
    /// Window rows and compressed rows.
    pub attention: RowFormat,
    /// Index rows.
    pub index: RowFormat,
}

impl RowFormats {
    /// Those of a model, or why its shapes cannot be encoded.
    pub fn new(config: &Config, rounding: Rounding) -> Result<RowFormats, QuantError> {
        Ok(match rounding {
            Rounding::Official => {
                let dim = config.indexer.dim;
                if config.layers.contains(&ds4_model::Compression::Csa) && !dim.is_power_of_two() {
                    return Err(QuantError::NotPowerOfTwo(dim));
                }
                RowFormats {
                    attention: RowFormat::Attention(KvRow::new(config.head_dim, config.rope.dims)?),
                    index: RowFormat::Index(IndexRow::new(dim)?),
                }
            }
            Rounding::Plain => RowFormats {
                attention: RowFormat::Plain(config.head_dim),
                index: RowFormat::Plain(config.indexer.dim),
            },
        })
    }
}

impl RowFormat {
    /// Bytes of a row.
    pub fn bytes(&self) -> usize {
        match self {
            RowFormat::Attention(row) => row.bytes(),
            RowFormat::Index(row) => row.bytes(),
            RowFormat::Plain(values) => values * size_of::<f32>(),
        }
    }

    /// Values of a row.
    pub fn values(&self) -> usize {
        match self {
            RowFormat::Attention(row) => row.values(),
            RowFormat::Index(row) => row.values(),
            RowFormat::Plain(values) => *values,
        }
    }

    /// Encodes a row. An index row is transformed in place first, as its queries are.
    pub fn pack(&self, values: &mut [f32], row: &mut [u8]) {
        let packed = match self {
            RowFormat::Attention(format) => format.pack(values, row),
            RowFormat::Index(format) => hadamard(values).and_then(|()| format.pack(values, row)),
            RowFormat::Plain(_) => {
                for (bytes, x) in row.as_chunks_mut().0.iter_mut().zip(values) {
                    *bytes = x.to_le_bytes();
                }
                Ok(())
            }
        };
        debug_assert!(packed.is_ok(), "sizes follow from the format: {packed:?}");
    }

    /// Decodes a row.
    pub fn unpack(&self, row: &[u8], values: &mut [f32]) {
        let unpacked = match self {
            RowFormat::Attention(format) => {
                unpack_attention(format, row, values);
                Ok(())
            }
            RowFormat::Index(format) => format.unpack(row, values),
            RowFormat::Plain(_) => {
                for (x, bytes) in values.iter_mut().zip(row.as_chunks().0) {
                    *x = f32::from_le_bytes(*bytes);
                }
                Ok(())
            }
        };
        debug_assert!(unpacked.is_ok(), "sizes follow from the format: {unpacked:?}");
    }
}

/// As `KvRow::unpack`, with vectors.
fn unpack_attention(format: &KvRow, row: &[u8], values: &mut [f32]) {
    let (nope, rope) = values.split_at_mut(format.nope());
    let (head, halves) = row.split_at(format.rope_at());
    let (codes, scales) = head.split_at(format.nope());
    let groups = nope.chunks_mut(FP8_GROUP).zip(codes.chunks(FP8_GROUP));
    for ((group, codes), &scale) in groups.zip(scales) {
        e4m3(codes, e8m0_decode(scale), group);
    }
    widen_f16(halves, rope);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_unpacked_as_quant_says() {
        for (dim, rope) in [(512, 64), (48, 16), (100, 10)] {
            let format = KvRow::new(dim, rope).unwrap();
            let values: Vec<f32> =
                (0..dim).map(|i| ((i * 37 % 101) as f32 - 50.0) * 0.07).collect();
            let mut row = vec![0; format.bytes()];
            format.pack(&values, &mut row).unwrap();
            row[0] = 0x7f;
            let (mut want, mut got) = (vec![0.0; dim], vec![0.0; dim]);
            format.unpack(&row, &mut want).unwrap();
            RowFormat::Attention(format).unpack(&row, &mut got);
            let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<u32>>();
            assert!(want[0].is_nan() && got[0].is_nan());
            assert_eq!(bits(&got[1..]), bits(&want[1..]));
        }
    }
}
