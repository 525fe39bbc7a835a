//! What the rows of a round see of the compressed rows: how many at most, and, where there are too
//! many, which.

use ds4_model::Compression;

use super::{Launches, attention::Slice};
use crate::{
    indexer::{self, QueryArgs, ScoreArgs, TopArgs},
    options::CudaError,
    round::TURN_COMPRESSED,
    scratch::ATTEND_ROWS,
    slot::LayerShape,
};

/// Scores of index rows that there is room for, where a row has no more than fit.
const SCORES: usize = 16 << 20;

/// Rows of a slice that choose index rows together, each with `capacity` scores.
pub fn together(fast: bool, slice: usize, capacity: usize) -> usize {
    match fast {
        true => (SCORES / capacity.max(1)).min(slice).max(ATTEND_ROWS),
        false => ATTEND_ROWS,
    }
}

/// The most scores of index rows that there will be room for, with timelines of up to `context` tokens.
pub fn most_scores(fast: bool, slice: usize, context: usize) -> usize {
    let capacity = capacity(context);
    // More rows choose together where there are fewer scores to each, and the other way round.
    let most = if fast { SCORES.min(slice.saturating_mul(capacity)) } else { 0 };
    most.max(ATTEND_ROWS.saturating_mul(capacity))
}

/// Scores that a row has room for in a timeline of `tokens` tokens.
pub fn capacity(tokens: usize) -> usize {
    (tokens / Compression::Csa.ratio()).checked_next_power_of_two().unwrap_or(usize::MAX).max(1024)
}

impl Launches<'_> {
    /// The most rows that a row of the round can see in a layer.
    pub fn visible(&self, of: &LayerShape) -> usize {
        let config = &self.model.config;
        let (csa, top_k) = (Compression::Csa, config.indexer.top_k);
        let compressed = match (of.kind, self.key.capacity) {
            (Compression::None, _) => 0,
            (Compression::Csa, _) => top_k,
            // Only where there is something to choose from is the length bounded.
            _ if !config.layers.contains(&csa) => return usize::MAX,
            (kind, capacity) => (capacity.max(top_k) + 1) * csa.ratio() / kind.ratio(),
        };
        config.window + compressed
    }

    /// Chooses the compressed rows that `count` rows of a slice from `first` on attend to.
    pub fn choose(
        &self,
        of: &LayerShape,
        slice: Slice,
        first: usize,
        count: usize,
    ) -> Result<(), CudaError> {
        let (config, s) = (&self.model.config, self.scratch);
        let (index, format) = (&config.indexer, self.shape.formats.index);
        let (heads, top_k) = (index.heads as u32, index.top_k as u32);
        let capacity = self.key.capacity as u32;
        let score = ScoreArgs {
            rows: slice.rows,
            turns: slice.turns,
            queries: s.index_q,
            codes: s.index_codes,
            scales: s.index_scales,
            weights: slice.within(s.index_weights, 4 * index.heads),
            scores: self.scores,
            format,
            row_at: of.index_at as u64,
            heads,
            capacity,
            top_k,
            first: first as u32,
            turn: TURN_COMPRESSED,
            scale: 1.0 / ((index.heads * index.dim) as f32).sqrt(),
            lines: 0,
            unused: 0,
        };
        let (device, kernels, together) = (self.device, self.kernels, self.choose_together);
        if self.fast
            && indexer::together::choose(device, kernels, together, count, &score, s.chosen)?
        {
            return Ok(());
        }
        if self.fast && format.plain == 0 {
            indexer::tensor::score(self.device, self.kernels, count, &score)?;
        } else {
            let queries = QueryArgs {
                rows: slice.rows,
                turns: slice.turns,
                queries: s.index_q,
                codes: s.index_codes,
                scales: s.index_scales,
                heads,
                dim: index.dim as u32,
                rope: config.rope.dims as u32,
                top_k,
                plain: format.plain,
                turn: TURN_COMPRESSED,
                first: first as u32,
                unused: 0,
            };
            indexer::queries(self.device, self.kernels, count, &queries)?;
            indexer::score(self.device, self.kernels, count, &score)?;
        }
        let top = TopArgs {
            rows: slice.rows,
            scores: self.scores,
            chosen: s.chosen,
            capacity,
            top_k,
            first: first as u32,
            unused: 0,
        };
        indexer::choose(self.device, self.kernels, count, &top)
    }
}
