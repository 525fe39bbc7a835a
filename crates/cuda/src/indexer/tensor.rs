//! Scores of packed index rows on tensor cores, of the fast mode; the queries are rotated and rounded
//! on the way.

use crate::{
    device::{Args, Device, Kernel, Kernels},
    options::CudaError,
    rows::RowFormat,
};

/// Threads of a block, and index rows that they can score at once.
const THREADS: usize = 512;
const MOST_LINES: usize = THREADS / 32 * 16;
/// Blocks that fill a card; each has to prepare the query.
const BLOCKS: usize = 264;

/// What the kernel wants to know.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct TensorScoreArgs {
    /// The round's rows.
    pub rows: u64,
    /// `[rows, 4, rope / 2]`.
    pub turns: u64,
    /// `[rows, heads, dim]`.
    pub queries: u64,
    /// `[rows, heads]`.
    pub weights: u64,
    /// `[rows, capacity]`.
    pub scores: u64,
    /// Of index rows; they are packed.
    pub format: RowFormat,
    /// The layer's index rows, in a page.
    pub row_at: u64,
    /// Query heads.
    pub heads: u32,
    /// Scores of a row.
    pub capacity: u32,
    /// Rows that a query attends to at most.
    pub top_k: u32,
    /// The first row of the round that is meant.
    pub first: u32,
    /// Which rotation.
    pub turn: u32,
    /// On the weights.
    pub scale: f32,
    /// Index rows that a block scores at once: `score` says it.
    pub lines: u32,
    /// Padding.
    pub unused: u32,
}

// SAFETY: mirrors the kernel's; the addresses are those of the scratch and of open slots.
unsafe impl Args for TensorScoreArgs {}

/// Scores the index rows that `rows` rows see.
pub fn score(
    device: &Device,
    kernels: &Kernels,
    rows: usize,
    args: &TensorScoreArgs,
) -> Result<(), CudaError> {
    // Fewer index rows to a block, as long as there are blocks to spare: warps in each other's way.
    let capacity = args.capacity as usize;
    let spare = rows * capacity.div_ceil(MOST_LINES / 2) <= BLOCKS / 2;
    let lines = if spare { MOST_LINES / 2 } else { MOST_LINES };
    let blocks = capacity.div_ceil(lines).min(BLOCKS.div_ceil(rows.max(1)));
    let args = TensorScoreArgs { lines: lines as u32, ..*args };
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
