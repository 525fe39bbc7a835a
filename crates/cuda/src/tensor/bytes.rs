//! Vectors as whole numbers, with which experts of IQ2_XXS and Q2_K are multiplied: what they are is told in `bytes.cuh`.

use ds4_quant::Format;

use super::BLOCK;

/// Where they are, whole numbers of few rows or of many: few are those whose experts' kernels take a few vectors each.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Numbers {
    /// Of few rows: `[rows, columns / 256]` of `Numbers::LINE`.
    pub lines: u64,
    /// Of many rows: `[rows, columns]`, halves.
    pub halves: u64,
    /// Of many rows: `[rows, columns / 256]`.
    pub units: u64,
}

impl Numbers {
    /// Bytes of 256 columns of a vector of few rows.
    pub const LINE: usize = BLOCK + 16;

    /// What few rows have, or many, of all that there is room for.
    pub fn of(self, few: bool) -> Numbers {
        match few {
            true => Numbers { lines: self.lines, ..Numbers::default() },
            false => Numbers { lines: 0, ..self },
        }
    }

    /// Bytes of a row's lines, halves and units.
    pub fn row_bytes(cols: usize) -> [usize; 3] {
        let blocks = cols / BLOCK;
        [blocks * Self::LINE, cols * size_of::<u16>(), blocks * size_of::<f32>()]
    }

    /// Whether matrices of a format are multiplied with such vectors.
    pub fn wanted_by(format: u32) -> bool {
        format == Format::Iq2Xxs as u32
    }
}

/// What belongs to inner vectors that are whole numbers in their places, of many rows.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InnerNumbers {
    /// `[pairs, columns / 256, 16]`, halves.
    pub sums: u64,
    /// `[pairs, columns / 256]`.
    pub units: u64,
}

impl InnerNumbers {
    /// Bytes of 256 columns of a vector of few rows.
    pub const LINE: usize = BLOCK + 2 * 16 + 16;

    /// What few rows have, or many: few have everything in lines.
    pub fn of(self, few: bool) -> InnerNumbers {
        if few { InnerNumbers::default() } else { self }
    }

    /// Bytes of a pair's sums and units.
    pub fn pair_bytes(cols: usize) -> [usize; 2] {
        let blocks = cols / BLOCK;
        [blocks * 16 * size_of::<u16>(), blocks * size_of::<f32>()]
    }

    /// Whether output matrices of a format are multiplied with such vectors.
    pub fn wanted_by(format: u32) -> bool {
        format == Format::Q2K as u32
    }
}

/// Shared memory of the table that a format is decoded with for few vectors, which are bytes, or for many.
pub fn table_bytes(format: u32) -> usize {
    if Numbers::wanted_by(format) { 256 * 8 * 16 } else { 0 }
}

/// Shared memory of the units of so many vectors.
pub fn unit_bytes(format: u32, vectors: usize, cols: usize) -> usize {
    if Numbers::wanted_by(format) { cols / BLOCK * vectors * size_of::<f32>() } else { 0 }
}
