//! Hyper-connections: the residual state is several streams; a block reads a weighted sum of them and
//! writes back into all, while the streams mix among themselves.
//!
//! Two launches a block: `write` spreads over the streams' dimensions and also starts the projection
//! that the next block's weights come from; `read` ends it, two blocks of threads to a row.

use crate::{
    device::{Args, Device, Kernel, Kernels},
    matvec::MatrixRef,
    options::CudaError,
};

/// Dimensions of a stream that one block of `hyper_write` takes.
const CHUNK: usize = 64;
/// Streams that the kernels can hold.
pub const MOST_STREAMS: usize = 4;

/// The widest streams that `hyper_read` can hold.
pub const WIDEST: usize = 8192;

/// How many partial sums a row of the batch has.
pub fn chunks(hidden: usize) -> usize {
    hidden.div_ceil(CHUNK)
}

/// What `hyper_write` wants to know.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct WriteArgs {
    /// The function of the block that reads next.
    pub function: MatrixRef,
    /// The output of the block that writes, `[rows, hidden]`.
    pub out: u64,
    /// Its mix, `[rows, 2 n + n n]`.
    pub mix: u64,
    /// `[rows, n, hidden]`.
    pub streams: u64,
    /// `[rows, function.rows + 1, chunks]`.
    pub partial: u64,
    /// Width of a stream.
    pub hidden: u32,
    /// Streams.
    pub n: u32,
    /// Rows of a layer's function.
    pub mix_rows: u32,
    /// 0 before the first block: nothing is written.
    pub write: u32,
}

// SAFETY: mirrors the kernel's; the addresses are those of the weights and of the scratch.
unsafe impl Args for WriteArgs {}

/// What `hyper_read` wants to know.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ReadArgs {
    /// From `hyper_write`.
    pub partial: u64,
    /// `[rows, n, hidden]`.
    pub streams: u64,
    /// The function's base.
    pub base: u64,
    /// The function's scales.
    pub scale: u64,
    /// Weights of the norm of the input.
    pub norm: u64,
    /// `[rows, 2 n + n n]`.
    pub mix: u64,
    /// The input, `[rows, hidden]`; of the head only wanted rows.
    pub x: u64,
    /// The round's rows.
    pub rows: u64,
    /// Where a stage reports what is not finite.
    pub fault: u64,
    /// Width of a stream.
    pub hidden: u32,
    /// Streams.
    pub n: u32,
    /// Rows of a layer's function.
    pub mix_rows: u32,
    /// Partial sums.
    pub chunks: u32,
    /// Of the balancing.
    pub iterations: u32,
    /// 1 for the head.
    pub head: u32,
    /// What made the streams that are read.
    pub stage: u32,
    /// Added to the weights.
    pub hc_eps: f32,
    /// Added to mean squares.
    pub rms_eps: f32,
    /// Padding.
    pub unused: u32,
    /// The same as halves, or 0.
    pub half: u64,
}

// SAFETY: mirrors the kernel's; the addresses are those of the weights and of the scratch.
unsafe impl Args for ReadArgs {}

/// Writes a block's output back and starts the next block's projection.
pub fn write(
    device: &Device,
    kernels: &Kernels,
    rows: usize,
    args: &WriteArgs,
) -> Result<(), CudaError> {
    let grid = [chunks(args.hidden as usize), rows, 1];
    device.launch(kernels, Kernel::HyperWrite, grid, 256, 0, args)
}

/// Makes a block's input, and what its output will be written back with.
pub fn read(
    device: &Device,
    kernels: &Kernels,
    rows: usize,
    args: &ReadArgs,
) -> Result<(), CudaError> {
    // The head has nothing to write back.
    let blocks = if args.head == 1 { 1 } else { 2 };
    device.launch(kernels, Kernel::HyperRead, [rows, blocks, 1], 1024, 0, args)
}
