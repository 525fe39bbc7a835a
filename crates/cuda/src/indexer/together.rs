//! Scores and choice of a few rows in one launch, of the fast mode on cards that have clusters.

use super::{ScoreArgs, WIDEST};
use crate::{
    device::{Args, Device, Kernel, Kernels},
    options::CudaError,
};

/// Threads of a block.
const THREADS: u32 = 256;
/// Blocks of a row that has few index rows, and of one that has many.
const CLUSTERS: [usize; 2] = [8, 16];
/// Index rows that are few.
const FEW_SCORES: usize = 2048;
/// The most that a block of a cluster should have to score: of 8192 index rows one launch takes 27 us, of 2048 it takes
/// 16, and two launches hardly take longer for more rows.
const MOST_OF_BLOCK: usize = 256;
/// Rows of a launch up to which a cluster for each is the faster way.
const FEW_ROWS: usize = 16;
/// What a block keeps besides query and scores, as the kernel counts it.
const CHOICE_SHARED: usize = 8512;

/// What `index_together` wants to know.
#[repr(C)]
#[derive(Clone, Copy)]
struct TogetherArgs {
    /// What the scoring kernels are told, but for where scores lie.
    score: ScoreArgs,
    /// `[rows, top_k]`.
    chosen: u64,
}

// SAFETY: mirrors the kernel's; the addresses are those of the scratch and of open slots.
unsafe impl Args for TogetherArgs {}

/// The most blocks that can be a row's cluster on a card; 0: it has no clusters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Together(usize);

/// Shared memory of a block, with room for `capacity` scores.
fn shared(heads: usize, capacity: usize) -> usize {
    let query = heads.div_ceil(8) * (8 * WIDEST + 8 * 16 + 8 * 4);
    CHOICE_SHARED + query + capacity.div_ceil(32) * (32 + 4) * 4
}

/// Asks the card what it can do for queries of so many heads.
pub fn prepare(device: &Device, kernels: &Kernels, heads: usize) -> Result<Together, CudaError> {
    let kernel = Kernel::IndexTogether;
    let mut most = 0;
    for blocks in CLUSTERS {
        let shared = shared(heads, blocks * MOST_OF_BLOCK);
        kernels.allow_shared(kernel, shared as u32)?;
        if device.can_cluster(kernels, kernel, blocks, THREADS, shared)? {
            most = blocks;
        }
    }
    Ok(Together(most))
}

/// Chooses the index rows of the best scores for `rows` rows, which `chosen` will list, if they are so few, and
/// have so few index rows, that one launch is the faster way. Otherwise it does nothing and says so.
pub fn choose(
    device: &Device,
    kernels: &Kernels,
    together: Together,
    rows: usize,
    score: &ScoreArgs,
    chosen: u64,
) -> Result<bool, CudaError> {
    let capacity = score.capacity as usize;
    let usual = (score.format.plain, score.format.values as usize) == (0, WIDEST);
    if !usual || rows > FEW_ROWS || capacity > together.0 * MOST_OF_BLOCK {
        return Ok(false);
    }
    let blocks = if capacity <= FEW_SCORES { CLUSTERS[0] } else { together.0 };
    let (kernel, shared) = (Kernel::IndexTogether, shared(score.heads as usize, capacity));
    let args = TogetherArgs { score: *score, chosen };
    device.launch_clusters(kernels, kernel, [blocks, rows, 1], THREADS, shared, &args)?;
    Ok(true)
}
