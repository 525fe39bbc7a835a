//! Attention on tensor cores, of the fast mode.
//!
//! A tile of 64 rows is the unit whose arithmetic is fixed; up to twenty of them are a row's parts. Few
//! rows give each part to a block of its own, and the last block puts them together; many rows give
//! all parts to one block, which decodes a tile once for 64 heads.

use super::{AttendArgs, PARTS};
use crate::{
    device::{Device, Kernel, Kernels},
    options::CudaError,
};

/// Rows of a tile.
const SPAN: usize = 64;
/// Rows of a round from which on a block takes a whole row.
const MANY_ROWS: usize = 64;
/// Rows of a round up to which a block takes eight heads.
const FEW_ROWS: usize = 4;
/// Threads of a block.
const THREADS: u32 = 256;

/// A kernel, and how many times eight heads a block of it takes.
#[derive(Clone, Copy)]
struct Choice {
    kernel: Kernel,
    eights: usize,
}

const FEW: Choice = Choice { kernel: Kernel::Attend8, eights: 1 };
const SOME: Choice = Choice { kernel: Kernel::Attend16, eights: 2 };
const MANY: Choice = Choice { kernel: Kernel::Attend16Whole, eights: 2 };
const MANY_WIDE: Choice = Choice { kernel: Kernel::Attend64Whole, eights: 8 };

impl Choice {
    /// Shared memory of a block, as the kernel counts it.
    fn shared(self) -> usize {
        let asked_ahead = if self.eights == 8 { SPAN * 584 - 16 } else { 0 };
        self.eights * 13984 + 67616 + asked_ahead
    }
}

/// Lets the kernels use the shared memory that they want.
pub fn prepare(device: &Device, kernels: &Kernels) -> Result<(), CudaError> {
    let many = if device.info().has_much_shared() { MANY_WIDE } else { MANY };
    [FEW, SOME, many]
        .into_iter()
        .try_for_each(|choice| kernels.allow_shared(choice.kernel, choice.shared() as u32))
}

/// Bytes of the sums of the parts of one row.
pub fn partial_bytes(heads: usize, head_dim: usize) -> usize {
    let sums = head_dim.div_ceil(64) * 512;
    4 * heads.next_multiple_of(16) / 8 * PARTS * (sums + 16)
}

/// Bytes of the counts of a row's parts that have arrived.
pub fn arrival_bytes(heads: usize) -> usize {
    4 * heads.div_ceil(8)
}

/// Whether rounds of `rows` rows leave no parts behind, so that any number of rows may be launched
/// together. `visible` is the most that a row sees.
pub fn is_whole(rows: usize, visible: usize) -> bool {
    rows >= MANY_ROWS && visible <= PARTS * SPAN
}

/// Attention of `rows` rows; `whole`: what `is_whole` says of them.
pub fn attend(
    device: &Device,
    kernels: &Kernels,
    rows: usize,
    whole: bool,
    args: &AttendArgs,
) -> Result<(), CudaError> {
    let choice = match (whole, rows) {
        (true, _) if device.info().has_much_shared() => MANY_WIDE,
        (true, _) => MANY,
        (false, ..=FEW_ROWS) => FEW,
        (false, _) => SOME,
    };
    let blocks = (args.heads as usize).div_ceil(8 * choice.eights);
    let grid = [if whole { 1 } else { PARTS }, blocks, rows];
    device.launch(kernels, choice.kernel, grid, THREADS, choice.shared(), args)
}
