//! The grid of IQ2_XXS as the kernels want it: two bits for each magnitude.

use std::sync::LazyLock;

use ds4_quant::{Format, decode_row};

#[cfg(target_arch = "x86_64")]
use super::codec::part;

/// The magnitudes that two bits stand for; the last is not used.
pub const LEVELS: [u8; 4] = [8, 25, 43, 0];

/// Which magnitudes each of the 256 indices stands for: entry `j` is bits `2j` and `2j + 1`.
pub struct Grid([u16; 256]);

impl Grid {
    /// The one grid. It is read off the decoder, so it is written down in one place only.
    pub fn get() -> &'static Grid {
        static GRID: LazyLock<Grid> = LazyLock::new(|| Grid(read()));
        &GRID
    }

    /// The bits of all entries of one row.
    #[inline(always)]
    pub fn row(&self, index: u8) -> u16 {
        self.0[usize::from(index)]
    }

    /// All rows, 32 at a time.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    pub fn eighths(&self) -> &[[u16; 32]; 8] {
        part(self.0.as_chunks().0, 0)
    }

    /// One magnitude.
    pub fn magnitude(&self, index: u8, entry: usize) -> u8 {
        LEVELS[usize::from(self.row(index) >> (2 * entry) & 3)]
    }
}

fn read() -> [u16; 256] {
    let mut grid = [0; 256];
    for (group, rows) in grid.chunks_exact_mut(4).enumerate() {
        // A block whose scale is 8 and whose signs are all plus: its values are its magnitudes.
        let mut block = [0; 66];
        block[1] = 0x48;
        for (i, index) in block[2..6].iter_mut().enumerate() {
            *index = (4 * group + i) as u8;
        }
        let mut values = [0.0; 256];
        let decoded = decode_row(Format::Iq2Xxs, &block, &mut values);
        debug_assert!(decoded.is_ok(), "{decoded:?}");
        for (row, values) in rows.iter_mut().zip(values.chunks_exact(8)) {
            for (j, &value) in values.iter().enumerate() {
                let level = LEVELS.iter().position(|&level| f32::from(level) == value);
                *row |= (level.unwrap_or(0) as u16) << (2 * j);
            }
        }
    }
    grid
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_index_has_its_own_row() {
        let mut rows: Vec<u16> = (0..=255).map(|index| Grid::get().row(index)).collect();
        assert_eq!(rows[..4], [0x0000, 0x0002, 0x0005, 0x0008]);
        rows.sort_unstable();
        assert!(rows.windows(2).all(|pair| pair[0] < pair[1]));
    }
}
