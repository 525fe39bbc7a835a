//! The softmax over what a query sees.
//!
//! What a query sees is cut into at most [`PARTS`] parts, by its position alone, so that the blocks of
//! one query fill the card and a row's result does not depend on its company.

pub mod tensor;
#[cfg(test)]
mod tests;

use crate::{
    device::{Args, Device, Kernel, Kernels},
    options::CudaError,
    rows::RowFormat,
};

/// The widest head that the kernels can hold.
pub const WIDEST: usize = 512;
/// Rows that are decoded together.
const TILE: usize = 32;
/// Parts of a query's view at most.
const PARTS: usize = 20;
/// Heads of a block.
const HEADS: usize = 8;

/// What the kernels want to know.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct AttendArgs {
    /// The round's rows.
    pub rows: u64,
    /// `[rows, 4, rope / 2]`.
    pub turns: u64,
    /// `[rows, heads, head_dim]`, as projected.
    pub q: u64,
    /// `[rows, top_k]`.
    pub chosen: u64,
    /// `[heads]`.
    pub sinks: u64,
    /// Sums of the parts.
    pub partial: u64,
    /// `[rows, heads, head_dim]`.
    pub out: u64,
    /// Of attention rows.
    pub format: RowFormat,
    /// The window's ring, in the slot's arena.
    pub window_at: u64,
    /// The layer's compressed rows, in a page.
    pub row_at: u64,
    /// Query heads.
    pub heads: u32,
    /// Rows of the window.
    pub window: u32,
    /// Positions of its ring.
    pub window_depth: u32,
    /// Tokens of a compressed row, a power of two; 0 for none.
    pub ratio: u32,
    /// Compressed rows that are attended to at most, where they are chosen.
    pub top_k: u32,
    /// 1: they are chosen.
    pub choose: u32,
    /// Which rotation.
    pub turn: u32,
    /// The first row of the round that is meant.
    pub first: u32,
    /// Of the norm of the queries.
    pub eps: f32,
    /// On the scores.
    pub scale: f32,
    /// The same as halves, or 0.
    pub half: u64,
    /// `[rows, heads / 8]`: parts that have arrived; zero between launches.
    pub arrivals: u64,
    /// `[rows]`: the round's rows of the window; 0 where all are in the ring.
    pub waiting: u64,
}

// SAFETY: mirrors the kernel's; the addresses are those of weights, scratch and open slots.
unsafe impl Args for AttendArgs {}

/// Shared memory of a block.
pub fn shared(head_dim: usize) -> usize {
    4 * TILE * head_dim
}

/// Bytes of the sums of the parts of one row.
pub fn partial_bytes(heads: usize, head_dim: usize) -> usize {
    4 * heads * PARTS * (head_dim + 4)
}

/// Attention of `rows` rows.
pub fn attend(
    device: &Device,
    kernels: &Kernels,
    rows: usize,
    args: &AttendArgs,
) -> Result<(), CudaError> {
    let (heads, dim) = (args.heads as usize, args.format.values as usize);
    let grid = [PARTS, heads.div_ceil(HEADS), rows];
    device.launch(kernels, Kernel::AttendParts, grid, 32 * HEADS as u32, shared(dim), args)?;
    device.launch(kernels, Kernel::AttendJoin, [heads, rows, 1], 128, 0, args)
}
