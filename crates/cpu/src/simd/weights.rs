//! Rows of weights as they lie in the file.

use ds4_quant::Format;

/// Rows, and columns, under one scale of an FP8 matrix.
const FP8_TILE: usize = 128;
/// Columns under one scale of an FP4 matrix.
const FP4_GROUP: usize = 32;

/// A matrix of weights, still encoded.
#[derive(Clone, Copy, Debug)]
pub struct Weights<'a> {
    format: Format,
    rows: usize,
    cols: usize,
    row_bytes: usize,
    bytes: &'a [u8],
    scales: &'a [u8],
    scales_across: usize,
}

impl<'a> Weights<'a> {
    /// The matrix in `bytes`, with the E8M0 scales of formats that keep them apart. `None` if the
    /// sizes do not belong together.
    pub fn new(
        format: Format,
        (rows, cols): (usize, usize),
        bytes: &'a [u8],
        scales: &'a [u8],
    ) -> Option<Weights<'a>> {
        let row_bytes = format.row_bytes(cols)?;
        let (scales_down, scales_across) = match format {
            Format::Fp8Block => (rows.div_ceil(FP8_TILE), cols.div_ceil(FP8_TILE)),
            Format::Fp4Block => (rows, cols.div_ceil(FP4_GROUP)),
            _ => (0, 0),
        };
        let fits = rows.checked_mul(row_bytes) == Some(bytes.len())
            && scales_down.checked_mul(scales_across) == Some(scales.len());
        fits.then_some(Weights { format, rows, cols, row_bytes, bytes, scales, scales_across })
    }

    /// How the values are stored.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Outputs.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Inputs.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// The bytes of one row.
    #[inline(always)]
    pub(super) fn row(&self, row: usize) -> &'a [u8] {
        &self.bytes[row * self.row_bytes..][..self.row_bytes]
    }

    /// The scales of one row; none where the blocks hold their own.
    #[inline(always)]
    pub(super) fn row_scales(&self, row: usize) -> &'a [u8] {
        let line = if self.format == Format::Fp8Block { row / FP8_TILE } else { row };
        &self.scales[line * self.scales_across..][..self.scales_across]
    }
}
