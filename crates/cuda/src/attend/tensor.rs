//! Attention on tensor cores, of the fast mode.
//!
//! A tile of 64 rows is the unit whose arithmetic is fixed; up to twenty of them are a row's parts. Few
//! rows give each part to a block of its own, and the last block puts them together, or, on cards with
//! clusters, each block a slice of all parts; many rows give all parts to one block, which decodes a tile
//! once for 64 heads.

use super::{AttendArgs, PARTS};
use crate::{
    device::{Device, Kernel, Kernels},
    options::CudaError,
    rows::RowFormat,
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

/// Shared memory of a block of a cluster, as the kernel counts it.
const TOGETHER_SHARED: usize = 103_408;
/// Blocks of a cluster: each slice of the values needs one, and so does each tile.
const CLUSTERS: [usize; 2] = [8, 10];

/// The most tiles whose blocks can be a cluster on a card; 0: it has no clusters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Together(pub usize);

/// Lets the kernels use the shared memory that they want, and asks the card what it can do.
pub fn prepare(device: &Device, kernels: &Kernels) -> Result<Together, CudaError> {
    let many = if device.info().has_much_shared() { MANY_WIDE } else { MANY };
    for choice in [FEW, SOME, many] {
        kernels.allow_shared(choice.kernel, choice.shared() as u32)?;
    }
    let (kernel, shared) = (Kernel::AttendTogether, TOGETHER_SHARED);
    if !device.info().has_much_shared() {
        return Ok(Together(0));
    }
    kernels.allow_shared(kernel, shared as u32)?;
    let mut most = 0;
    for blocks in CLUSTERS {
        if device.can_cluster(kernels, kernel, blocks, THREADS, shared)? {
            most = blocks;
        }
    }
    Ok(Together(most))
}

/// The rows that models have, as the kernels know them.
fn is_usual(format: &RowFormat) -> bool {
    let RowFormat { plain, values, bytes, nope, rope_at, .. } = *format;
    (plain, values, bytes, nope, rope_at) == (0, 512, 584, 448, 456)
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

/// Attention of `rows` rows, none of which sees more than `visible`; `whole`: what `is_whole` says of them.
pub fn attend(
    device: &Device,
    kernels: &Kernels,
    together: Together,
    rows: usize,
    (whole, visible): (bool, usize),
    args: &AttendArgs,
) -> Result<(), CudaError> {
    let tiles = visible.div_ceil(SPAN);
    if !whole && rows <= FEW_ROWS && tiles <= together.0 && is_usual(&args.format) {
        let blocks = if tiles <= CLUSTERS[0] { CLUSTERS[0] } else { CLUSTERS[1] };
        let (kernel, grid) =
            (Kernel::AttendTogether, [blocks, (args.heads as usize).div_ceil(8), rows]);
        return device.launch_clusters(kernels, kernel, grid, THREADS, TOGETHER_SHARED, args);
    }
    let choice = match (whole, rows) {
        (true, _) if device.info().has_much_shared() => MANY_WIDE,
        (true, _) => MANY,
        (false, ..=FEW_ROWS) => FEW,
        (false, _) => SOME,
    };
    let blocks = (args.heads as usize).div_ceil(8 * choice.eights);
    let grid = [if whole { 1 } else { tiles.min(PARTS) }, blocks, rows];
    device.launch(kernels, choice.kernel, grid, THREADS, choice.shared(), args)
}
