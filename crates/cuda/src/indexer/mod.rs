//! The indexer of CSA layers: which compressed rows a query attends to when it sees too many.

pub mod tensor;
#[cfg(test)]
mod tests;
pub mod together;

use crate::{
    device::{Args, Device, Kernel, Kernels},
    options::CudaError,
    rows::RowFormat,
};

/// The widest index rows that the kernel can hold in registers.
pub const WIDEST: usize = 128;
/// Values under one scale.
pub const GROUP: usize = 32;
/// Threads of a scoring block, and index rows that it scores.
const SCORERS: usize = 128;
const SCORED: usize = SCORERS / 4;

/// What `index_queries` wants to know.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct QueryArgs {
    /// The round's rows.
    pub rows: u64,
    /// `[rows, 4, rope / 2]`.
    pub turns: u64,
    /// `[rows, heads, dim]`.
    pub queries: u64,
    /// `[rows, heads, dim]`, signed bytes.
    pub codes: u64,
    /// `[rows, heads, dim / 32]`.
    pub scales: u64,
    /// Query heads.
    pub heads: u32,
    /// Their width.
    pub dim: u32,
    /// Trailing values that turn.
    pub rope: u32,
    /// Rows that a query attends to at most.
    pub top_k: u32,
    /// 1: nothing is rounded.
    pub plain: u32,
    /// Which rotation.
    pub turn: u32,
    /// The first row of the round that is meant.
    pub first: u32,
    /// Padding.
    pub unused: u32,
}

// SAFETY: mirrors the kernel's; the addresses are those of the scratch.
unsafe impl Args for QueryArgs {}

/// What the scoring kernels want to know. The one on tensor cores rotates and rounds the queries itself.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ScoreArgs {
    /// The round's rows.
    pub rows: u64,
    /// Tensor cores: `[rows, 4, rope / 2]`.
    pub turns: u64,
    /// `[rows, heads, dim]`.
    pub queries: u64,
    /// The same from `index_queries`, as codes.
    pub codes: u64,
    /// And their scales.
    pub scales: u64,
    /// `[rows, heads]`.
    pub weights: u64,
    /// `[rows, capacity]`.
    pub scores: u64,
    /// Of index rows.
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
    /// Tensor cores: which rotation.
    pub turn: u32,
    /// On the weights.
    pub scale: f32,
    /// Tensor cores: index rows that a block scores at once; `tensor::score` says it.
    pub lines: u32,
    /// Padding.
    pub unused: u32,
}

// SAFETY: mirrors the kernel's; the addresses are those of the scratch and of open slots.
unsafe impl Args for ScoreArgs {}

/// What `index_top` wants to know.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct TopArgs {
    /// The round's rows.
    pub rows: u64,
    /// From the scoring.
    pub scores: u64,
    /// `[rows, top_k]`.
    pub chosen: u64,
    /// Scores of a row.
    pub capacity: u32,
    /// Rows that a query attends to at most.
    pub top_k: u32,
    /// The first row of the round that is meant.
    pub first: u32,
    /// Padding.
    pub unused: u32,
}

// SAFETY: mirrors the kernel's; the addresses are those of the scratch.
unsafe impl Args for TopArgs {}

/// Rotates and rounds the queries of `rows` rows.
pub fn queries(
    device: &Device,
    kernels: &Kernels,
    rows: usize,
    args: &QueryArgs,
) -> Result<(), CudaError> {
    let grid = [args.heads as usize, rows, 1];
    device.launch(kernels, Kernel::IndexQueries, grid, 128, 4 * args.dim as usize, args)
}

/// Shared memory of a scoring block.
pub fn score_shared(heads: usize, dim: usize) -> usize {
    heads * dim + 4 * heads * (dim / GROUP) + 4 * heads
}

/// Scores the index rows that `rows` rows see.
pub fn score(
    device: &Device,
    kernels: &Kernels,
    rows: usize,
    args: &ScoreArgs,
) -> Result<(), CudaError> {
    let capacity = args.capacity as usize;
    if args.format.plain == 1 {
        let grid = [capacity.div_ceil(4), rows, 1];
        return device.launch(kernels, Kernel::IndexScoresPlain, grid, 128, 0, args);
    }
    let shared = score_shared(args.heads as usize, args.format.values as usize);
    let grid = [capacity.div_ceil(SCORED), rows, 1];
    device.launch(kernels, Kernel::IndexScores, grid, SCORERS as u32, shared, args)
}

/// Chooses the rows of the best scores for `rows` rows.
pub fn choose(
    device: &Device,
    kernels: &Kernels,
    rows: usize,
    args: &TopArgs,
) -> Result<(), CudaError> {
    // A thread for each four scores, as long as there are threads.
    let threads = (args.capacity / 4).clamp(256, 1024);
    device.launch(kernels, Kernel::IndexTop, [rows, 1, 1], threads, 0, args)
}
