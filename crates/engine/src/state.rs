//! The state of one slot, in the form that every backend shares.
//!
//! This is what `export` gives and `import` takes, so a session may move between machines and
//! backends. It holds no token ids and no logits; the session adds those, and the envelope
//! (version, checksum, model fingerprint).

use ds4_model::Rounding;

/// The state of one slot at length `len`.
#[derive(Clone, Debug, PartialEq)]
pub struct SlotState {
    /// Tokens evaluated.
    pub len: usize,
    /// How the rows are encoded: packed in the official rounding, `f32` in the plain one.
    pub rounding: Rounding,
    /// How many of the last positions it can still be truncated to.
    pub rewind: usize,
    /// One entry per layer.
    pub layers: Vec<LayerState>,
}

/// The state of one layer. Rows are bytes as cached: `ds4_quant`'s packed rows, or `f32` little-endian.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LayerState {
    /// Window rows of the last positions, oldest first: those that the next query can see after a
    /// truncation of at most `rewind`, so `min(len, window - 1 + rewind)` rows.
    pub window: Vec<u8>,
    /// Compressed rows `0 .. len / ratio`.
    pub compressed: Vec<u8>,
    /// Index rows `0 .. len / ratio`, on CSA layers.
    pub index: Vec<u8>,
    /// What the compressor still needs of the last positions, oldest first.
    pub pending: Pending,
    /// The same for the indexer's compressor.
    pub index_pending: Pending,
}

/// Compressor projections of the last positions, oldest first; the scores include the position bias.
///
/// Positions run from `first_needed(len - rewind)` to `len - 1`, where `first_needed(n)` is the first
/// token of the window that holds position `n`, or one window earlier where windows overlap.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pending {
    /// `[positions, windows * dim]`.
    pub kv: Vec<f32>,
    /// `[positions, windows * dim]`.
    pub score: Vec<f32>,
}

/// The first position whose projections are needed to go on from length `len`: the rows that are
/// complete at `len` need nothing more, the next one needs its own window and, where windows
/// overlap, the one before.
pub fn first_needed(len: usize, ratio: usize, windows: usize) -> usize {
    let own = len / ratio * ratio;
    own.saturating_sub((windows - 1) * ratio)
}

#[cfg(test)]
mod tests {
    use super::first_needed;

    #[test]
    fn overlapping_windows_need_the_one_before() {
        assert_eq!(first_needed(0, 4, 2), 0);
        assert_eq!(first_needed(3, 4, 2), 0);
        assert_eq!(first_needed(4, 4, 2), 0);
        assert_eq!(first_needed(8, 4, 2), 4);
        assert_eq!(first_needed(11, 4, 2), 4);
        assert_eq!(first_needed(127, 128, 1), 0);
        assert_eq!(first_needed(128, 128, 1), 128);
    }
}
