//! The formats that this engine computes with, and how large their blocks are.

use std::fmt;

/// A way to store the values of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// The upper half of a single-precision number.
    BF16,
    /// Signed bytes with one scale per 32.
    Q8_0,
    /// Nibbles with one scale per 32.
    Q4_0,
    /// Two bits, with scale and minimum per 16.
    Q2K,
    /// Four bits, with scale and minimum per 32.
    Q4K,
    /// Five bits, with scale and minimum per 32.
    Q5K,
    /// Six bits, with a scale per 16.
    Q6K,
    /// About two bits: magnitudes from a grid of 256 rows of eight, signs of even parity.
    Iq2Xxs,
    /// E2M1 codes with one power-of-two scale per 32.
    Mxfp4,
    /// The original checkpoint's E4M3 codes; one power-of-two scale per 128 x 128 tile, in a second
    /// tensor.
    Fp8Block,
    /// The original checkpoint's E2M1 codes; one power-of-two scale per 32 columns, in a second
    /// tensor.
    Fp4Block,
}

impl Format {
    /// Every format, in the order of declaration.
    pub const ALL: [Format; 13] = [
        Format::F32,
        Format::F16,
        Format::BF16,
        Format::Q8_0,
        Format::Q4_0,
        Format::Q2K,
        Format::Q4K,
        Format::Q5K,
        Format::Q6K,
        Format::Iq2Xxs,
        Format::Mxfp4,
        Format::Fp8Block,
        Format::Fp4Block,
    ];

    /// The format of a ggml type id, or `None` if nothing here computes with it.
    pub fn from_ggml(id: u32) -> Option<Format> {
        Format::ALL.into_iter().find(|format| format.ggml_id() == Some(id))
    }

    /// The ggml type id; the checkpoint's own formats have none.
    pub fn ggml_id(self) -> Option<u32> {
        match self {
            Format::F32 => Some(0),
            Format::F16 => Some(1),
            Format::BF16 => Some(30),
            Format::Q8_0 => Some(8),
            Format::Q4_0 => Some(2),
            Format::Q2K => Some(10),
            Format::Q4K => Some(12),
            Format::Q5K => Some(13),
            Format::Q6K => Some(14),
            Format::Iq2Xxs => Some(16),
            Format::Mxfp4 => Some(39),
            Format::Fp8Block | Format::Fp4Block => None,
        }
    }

    /// The name that people know the format by.
    pub fn name(self) -> &'static str {
        match self {
            Format::F32 => "F32",
            Format::F16 => "F16",
            Format::BF16 => "BF16",
            Format::Q8_0 => "Q8_0",
            Format::Q4_0 => "Q4_0",
            Format::Q2K => "Q2_K",
            Format::Q4K => "Q4_K",
            Format::Q5K => "Q5_K",
            Format::Q6K => "Q6_K",
            Format::Iq2Xxs => "IQ2_XXS",
            Format::Mxfp4 => "MXFP4",
            Format::Fp8Block => "FP8",
            Format::Fp4Block => "FP4",
        }
    }

    /// Values in one block. A row is a whole number of blocks.
    pub fn block_elems(self) -> usize {
        match self {
            Format::F32 | Format::F16 | Format::BF16 | Format::Fp8Block => 1,
            Format::Fp4Block => 2,
            Format::Q8_0 | Format::Q4_0 | Format::Mxfp4 => 32,
            Format::Q2K | Format::Q4K | Format::Q5K | Format::Q6K | Format::Iq2Xxs => 256,
        }
    }

    /// Bytes of one block.
    pub fn block_bytes(self) -> usize {
        match self {
            Format::F32 => 4,
            Format::F16 | Format::BF16 => 2,
            Format::Q8_0 => 34,
            Format::Q4_0 => 18,
            Format::Q2K => 84,
            Format::Q4K => 144,
            Format::Q5K => 176,
            Format::Q6K => 210,
            Format::Iq2Xxs => 66,
            Format::Mxfp4 => 17,
            Format::Fp8Block | Format::Fp4Block => 1,
        }
    }

    /// Bytes of a row of `cols` values: `None` if that is no whole number of blocks or does not
    /// fit.
    pub fn row_bytes(self, cols: usize) -> Option<usize> {
        if !cols.is_multiple_of(self.block_elems()) {
            return None;
        }
        (cols / self.block_elems()).checked_mul(self.block_bytes())
    }

    /// Rows and columns that share one scale of the second tensor; `None` where the blocks hold
    /// their own.
    pub fn scale_tile(self) -> Option<(usize, usize)> {
        match self {
            Format::Fp8Block => Some((128, 128)),
            Format::Fp4Block => Some((1, 32)),
            _ => None,
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
