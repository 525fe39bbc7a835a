//! Hyper-connections: the residual state is several streams; a block reads a weighted sum of them and
//! writes back into all, while the streams mix among themselves.
//!
//! Between two blocks a row's output is written back, the new streams are projected, and the projection
//! says how the next input is made of them. For a few rows that is one launch, a cluster of blocks to a
//! row, or to two (`together.cu`); for many, and on cards without such clusters, it is two (`kernel.cu`).
//! All take the same steps (`steps.cuh`), so that no bit depends on which it was.

#[cfg(test)]
mod tests;

use crate::{
    device::{Args, Device, Kernel, Kernels},
    matvec::MatrixRef,
    options::CudaError,
    tensor::bytes::Numbers,
};

/// Dimensions of a stream that a block of threads takes.
const CHUNK: usize = 256;
/// Sums of a chunk.
const SUMS: usize = 32;
/// Blocks of a cluster at most.
const MOST_BLOCKS: usize = 16;
/// Rows that a block of `hyper_read` mixes, a warp each.
const MIXED: usize = 8;
/// Up to so many rows, clusters are the faster way.
const FEW: usize = 16;
/// Up to so many rows each has a cluster of its own. Clusters of more would not all run at once: each must
/// find room in one part of the card, of which there are seven or eight.
const ALONE: usize = 8;
/// Parts of an output that clusters add up, at most.
const MOST_PARTS: usize = 8;
/// Streams that the kernels can hold.
pub const MOST_STREAMS: usize = 4;

/// The widest streams that the kernels can hold.
pub const WIDEST: usize = 8192;

/// Bytes of the sums of a row of the batch.
pub fn partial_bytes(hidden: usize) -> usize {
    4 * SUMS * hidden.div_ceil(CHUNK)
}

/// What the kernels want to know.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct HyperArgs {
    /// The function of the block that reads next.
    pub function: MatrixRef,
    /// The output of the block that writes, `[rows, hidden]`, or `[rows, parts, hidden]`.
    pub out: u64,
    /// `[rows, 2 n + n n]`: what it is written back with, then the same for the next block.
    pub mix: u64,
    /// `[rows, n, hidden]`.
    pub streams: u64,
    /// Sums, `partial_bytes` for each row.
    pub partial: u64,
    /// The function's base.
    pub base: u64,
    /// The function's scales.
    pub scale: u64,
    /// Weights of the norm of the input.
    pub norm: u64,
    /// The input, `[rows, hidden]`; of the head only wanted rows.
    pub x: u64,
    /// The same as halves, or 0.
    pub half: u64,
    /// And as whole numbers, where those are wanted.
    pub numbers: Numbers,
    /// The round's rows.
    pub rows: u64,
    /// Where a stage reports what is not finite.
    pub fault: u64,
    /// How many rows.
    pub count: u32,
    /// How many a block of `hyper_write` takes: `run` says it.
    pub per_block: u32,
    /// Width of a stream.
    pub hidden: u32,
    /// Streams.
    pub n: u32,
    /// Rows of a layer's function.
    pub mix_rows: u32,
    /// Parts of a stream: `run` says it.
    pub chunks: u32,
    /// 0 before the first block: nothing is written.
    pub write: u32,
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
    /// What a row's output still has to be added up from: the last of them, then the others in order. 0 if it is whole.
    pub parts: u32,
    /// Padding.
    pub unused: u32,
}

// SAFETY: mirrors the kernels'; the addresses are those of the weights, the scratch and the round.
unsafe impl Args for HyperArgs {}

/// How streams of a width are taken on a card.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// A few rows in one launch.
    Together,
    /// Always in two.
    Apart,
}

/// Asks the card how it can take streams `hidden` wide.
pub fn prepare(device: &Device, kernels: &Kernels, hidden: usize) -> Result<Way, CudaError> {
    let blocks = hidden.div_ceil(CHUNK);
    // One block alone has nobody to write to, and that is what the instructions are for.
    if !(2..=MOST_BLOCKS).contains(&blocks) {
        return Ok(Way::Apart);
    }
    for kernel in [
        Kernel::HyperTogether,
        Kernel::HyperTogether2,
        Kernel::HyperTogetherParts,
        Kernel::HyperTogether2Parts,
    ] {
        if !device.can_cluster(kernels, kernel, blocks, 256, 0)? {
            return Ok(Way::Apart);
        }
    }
    Ok(Way::Together)
}

/// Whether `run` takes outputs of so many rows in so many parts.
pub fn adds_parts(way: Way, rows: usize, parts: usize) -> bool {
    way == Way::Together && rows <= FEW && parts <= MOST_PARTS
}

/// Ends one block and makes the input of the next, and what its output will be written back with. Outputs are in
/// parts only if `adds_parts` has said so.
pub fn run(device: &Device, kernels: &Kernels, way: Way, args: HyperArgs) -> Result<(), CudaError> {
    let rows = args.count as usize;
    let chunks = (args.hidden as usize).div_ceil(CHUNK);
    // As few as keep the card busy: every block reads its share of the function.
    let per_block = if rows <= FEW { 1 } else { 4 * (rows / 128).clamp(1, 4) };
    let args = HyperArgs { chunks: chunks as u32, per_block: per_block as u32, ..args };
    if way == Way::Together && rows <= FEW {
        let (kernel, clusters) = match (rows <= ALONE, args.parts > 0) {
            (true, false) => (Kernel::HyperTogether, rows),
            (true, true) => (Kernel::HyperTogetherParts, rows),
            (false, false) => (Kernel::HyperTogether2, rows.div_ceil(2)),
            (false, true) => (Kernel::HyperTogether2Parts, rows.div_ceil(2)),
        };
        return device.launch_clusters(kernels, kernel, [chunks, clusters, 1], 256, 0, &args);
    }
    let grid = [chunks, rows.div_ceil(per_block), 1];
    device.launch(kernels, Kernel::HyperWrite, grid, 256, 0, &args)?;
    let mixers = if args.head == 1 { 0 } else { rows.div_ceil(MIXED) };
    device.launch(kernels, Kernel::HyperRead, [mixers + rows, 1, 1], 256, 0, &args)
}
