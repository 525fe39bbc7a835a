//! What the host draws a token from: the best tokens of a row of logits in rank order, and the sum of all
//! weights. The row itself stays on the card unless somebody asks for it.

#[cfg(test)]
mod tests;

use ds4_engine::Shortlist;

use crate::{
    device::{Args, Device, Kernel, Kernels},
    options::CudaError,
};

/// Tokens of a group.
const GROUP_TOKENS: usize = 32;
/// Groups of a warp, of which the weights are summed by themselves.
const WARP_GROUPS: usize = 8;
/// Threads of a block that looks for the largest, and of one that lists.
const SCANNERS: usize = 128;
const LISTERS: u32 = 1024;
/// Words of a list before its ids: the sum, whether a logit is not finite, two that are unused.
const HEAD_WORDS: usize = 4;
const LIST_WORDS: usize = HEAD_WORDS + 2 * Shortlist::LONGEST;

/// Bytes of a row's list.
pub const LIST_BYTES: usize = 4 * LIST_WORDS;

/// Parts of a row, one to a warp.
fn parts(vocab: usize) -> usize {
    vocab.div_ceil(GROUP_TOKENS * WARP_GROUPS)
}

/// Bytes of the maxima of a row's groups.
pub fn largest_bytes(vocab: usize) -> usize {
    4 * WARP_GROUPS * parts(vocab)
}

/// Bytes of the sums of a row's parts.
pub fn sum_bytes(vocab: usize) -> usize {
    16 * parts(vocab)
}

/// What the kernels want to know.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct SampleArgs {
    /// `[rows, vocab]`.
    logits: u64,
    /// `[rows]`.
    temperatures: u64,
    /// `largest_bytes` for each row.
    largest: u64,
    /// `sum_bytes` for each row.
    sums: u64,
    /// `LIST_BYTES` for each row.
    lists: u64,
    vocab: u32,
    groups: u32,
    parts: u32,
    unused: u32,
}

// SAFETY: mirrors the kernels'; the addresses are those of the scratch and of what the round was told.
unsafe impl Args for SampleArgs {}

/// Where things lie on the card.
#[derive(Clone, Copy)]
pub struct Places {
    /// `[rows, vocab]`.
    pub logits: u64,
    /// `[rows]`, at which weights are summed.
    pub temperatures: u64,
    /// Room for the maxima of groups.
    pub largest: u64,
    /// Room for the sums of parts.
    pub sums: u64,
    /// Room for the lists.
    pub lists: u64,
}

/// Lists the best tokens of `rows` rows of `vocab` logits.
pub fn list(
    device: &Device,
    kernels: &Kernels,
    rows: usize,
    vocab: usize,
    at: Places,
) -> Result<(), CudaError> {
    let Places { logits, temperatures, largest, sums, lists } = at;
    let parts = parts(vocab);
    let args = SampleArgs {
        logits,
        temperatures,
        largest,
        sums,
        lists,
        vocab: vocab as u32,
        groups: vocab.div_ceil(GROUP_TOKENS) as u32,
        parts: parts as u32,
        unused: 0,
    };
    let blocks = parts.div_ceil(SCANNERS / 32);
    device.launch(kernels, Kernel::ScanLogits, [blocks, rows, 1], SCANNERS as u32, 0, &args)?;
    device.launch(kernels, Kernel::ListLogits, [rows, 1, 1], LISTERS, 0, &args)
}

/// The shortlist in one of the lists; `None` if a logit of the row is not finite.
pub fn shortlist(words: &[u32], vocab: usize, temperature: f32) -> Option<Shortlist> {
    let (head, rest) = words.split_at_checked(HEAD_WORDS)?;
    let (ids, logits) = rest.split_at_checked(Shortlist::LONGEST)?;
    let count = vocab.min(Shortlist::LONGEST);
    let logits: Vec<f32> = logits.iter().take(count).map(|&bits| f32::from_bits(bits)).collect();
    let list = Shortlist::new(&ids[..count], &logits, vocab, temperature, f32::from_bits(head[0]));
    (head[1] == 0).then_some(list)
}

/// The words of each list.
pub fn lists(words: &[u32]) -> impl Iterator<Item = &[u32]> {
    words.chunks_exact(LIST_WORDS)
}
