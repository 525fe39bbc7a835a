//! Scores of packed index rows on tensor cores, of the fast mode; the queries are rotated and rounded
//! on the way.

use crate::{
    device::{Args, Device, Kernel, Kernels},
    options::CudaError,
    rows::RowFormat,
};

/// Index rows that a block scores at once.
const LINES: usize = 128;
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
    let blocks = (args.capacity as usize).div_ceil(LINES).min(BLOCKS.div_ceil(rows.max(1)));
    // For each eight heads: codes of 128 values, four scales, weights.
    let shared = (args.heads as usize).div_ceil(8) * (8 * 128 + 8 * 16 + 8 * 4);
    device.launch(kernels, Kernel::IndexScoresTensor, [blocks, rows, 1], 256, shared, args)
}
