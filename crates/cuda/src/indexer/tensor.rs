//! Scores of packed index rows on tensor cores, of the fast mode; the queries are rotated and rounded
//! on the way.

use super::ScoreArgs;
use crate::{
    device::{Device, Kernel, Kernels},
    options::CudaError,
};

/// Threads of a block, and index rows that they can score at once.
const THREADS: usize = 512;
const MOST_LINES: usize = THREADS / 32 * 16;
/// Blocks that fill a card; each has to prepare the query.
const BLOCKS: usize = 264;

/// Scores the index rows that `rows` rows see.
pub fn score(
    device: &Device,
    kernels: &Kernels,
    rows: usize,
    args: &ScoreArgs,
) -> Result<(), CudaError> {
    // Fewer index rows to a block, as long as there are blocks to spare: warps in each other's way.
    let capacity = args.capacity as usize;
    let spare = rows * capacity.div_ceil(MOST_LINES / 2) <= BLOCKS / 2;
    let lines = if spare { MOST_LINES / 2 } else { MOST_LINES };
    let blocks = capacity.div_ceil(lines).min(BLOCKS.div_ceil(rows.max(1)));
    let args = ScoreArgs { lines: lines as u32, ..*args };
    // For each eight heads: codes of 128 values, four scales, weights.
    let shared = (args.heads as usize).div_ceil(8) * (8 * 128 + 8 * 16 + 8 * 4);
    device.launch(
        kernels,
        Kernel::IndexScoresTensor,
        [blocks, rows, 1],
        THREADS as u32,
        shared,
        &args,
    )
}
