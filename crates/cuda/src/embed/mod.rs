//! Every stream of a row starts as the embedding of its token.

use crate::{
    device::{Args, Device, Kernel, Kernels},
    matvec::MatrixRef,
    options::CudaError,
};

const THREADS: usize = 128;

/// What the kernel wants to know.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct EmbedArgs {
    /// The embedding.
    pub matrix: MatrixRef,
    /// The round's rows.
    pub rows: u64,
    /// `[rows, streams, hidden]`.
    pub streams: u64,
    /// How many streams.
    pub count: u32,
    /// Padding.
    pub unused: u32,
}

// SAFETY: mirrors the kernel's; the addresses are those of the weights and of the scratch.
unsafe impl Args for EmbedArgs {}

/// Fills the streams of `rows` rows.
pub fn embed(
    device: &Device,
    kernels: &Kernels,
    rows: usize,
    args: &EmbedArgs,
) -> Result<(), CudaError> {
    let blocks = (args.matrix.cols as usize).div_ceil(4 * THREADS);
    device.launch(kernels, Kernel::Embed, [blocks, rows, 1], THREADS as u32, 0, args)
}
