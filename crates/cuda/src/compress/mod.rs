//! Compressed rows and index rows: windows of tokens, pooled.

use crate::{
    device::{Args, Device, Kernel, Kernels},
    options::CudaError,
    rows::RowFormat,
};

/// One compressor of a layer.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct CompressorArgs {
    /// `[dim]`.
    pub norm: u64,
    /// Of its rows.
    pub format: RowFormat,
    /// The ring of projections, in the slot's arena.
    pub pending_at: u64,
    /// The layer's rows, in a page.
    pub row_at: u64,
    /// Positions of the ring.
    pub depth: u32,
    /// 1: it makes index rows.
    pub index: u32,
}

/// What the kernel wants to know.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct CompressArgs {
    /// The round's rows.
    pub rows: u64,
    /// `[rows, 4, rope / 2]`.
    pub turns: u64,
    /// The compressor's, the indexer's.
    pub compressors: [CompressorArgs; 2],
    /// Tokens of a row.
    pub ratio: u32,
    /// Windows that overlap in it.
    pub windows: u32,
    /// Which rotation.
    pub turn: u32,
    /// Of the norm.
    pub eps: f32,
}

// SAFETY: mirrors the kernel's; the addresses are those of weights, scratch and open slots.
unsafe impl Args for CompressArgs {}

/// Makes the rows of all windows that end in the round.
pub fn compress(
    device: &Device,
    kernels: &Kernels,
    rows: usize,
    compressors: usize,
    args: &CompressArgs,
) -> Result<(), CudaError> {
    let values = args.compressors.iter().map(|c| c.format.values).max().unwrap_or(0);
    let shared = 4 * values as usize;
    device.launch(kernels, Kernel::Compress, [rows, compressors, 1], 256, shared, args)
}
