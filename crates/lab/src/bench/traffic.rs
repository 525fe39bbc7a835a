//! The bytes that a decode step cannot do without, from the weights themselves: what the bandwidth
//! of the memory is compared with.
//!
//! Counted are the matrices that a token meets, as they are stored, and the cached rows that its
//! query sees. Vectors (norms, biases) and what a step writes are left out: under one part in a hundred.

use std::collections::BTreeMap;

use ds4_model::{Compression, Config, Matrix, Model, Rounding};
use ds4_quant::{IndexRow, KvRow, QuantError};

/// What a step reads of one model.
#[derive(Clone, Debug, PartialEq)]
pub struct Traffic {
    config: Config,
    /// Of every token, whoever else is in the batch.
    embedding_row: f64,
    /// Once for a batch.
    dense: f64,
    /// Once for a batch that has more compressed rows than a query attends to.
    choosing: f64,
    /// All routed experts of all layers; a batch reads those that one of its tokens uses.
    experts: f64,
    /// One attention row, one index row.
    row: f64,
    index_row: f64,
    /// Multiplications and additions with weights for one token of a prompt.
    operations: f64,
}

impl Traffic {
    /// What a step reads of this model, with its rows cached as `rounding` has them.
    pub fn of(model: &Model, rounding: Rounding) -> Result<Traffic, QuantError> {
        let (config, weights) = (model.config.clone(), &model.weights);
        let (row, index_row) = row_bytes(&config, rounding)?;
        let head = bytes(&weights.head_hc.function) + bytes(&weights.output);
        let mut traffic = Traffic {
            embedding_row: weights.embedding.row(0).len() as f64,
            dense: head,
            choosing: 0.0,
            experts: 0.0,
            row: row as f64,
            index_row: index_row as f64,
            operations: 0.0,
            config,
        };
        let share = traffic.experts_read(1);
        for layer in &weights.layers {
            let routed = || layer.moe.experts.iter().flat_map(|e| [&e.gate, &e.up, &e.down]);
            let choosing = || layer.attention.indexer.iter().flat_map(|i| [&i.q_b, &i.proj]);
            let sum = |of: fn(&Matrix) -> f64| {
                let all: f64 = layer.matrices().map(of).sum();
                let (routed, choosing) =
                    (routed().map(of).sum::<f64>(), choosing().map(of).sum::<f64>());
                (all - routed - choosing, routed, choosing)
            };
            let (dense, experts, choosing) = sum(bytes);
            traffic.dense += dense;
            traffic.experts += experts;
            traffic.choosing += choosing;
            let (dense, experts, choosing) = sum(operations);
            traffic.operations += dense + choosing + experts * share;
        }
        Ok(traffic)
    }

    /// Bytes of one step that evaluates one token for each of `batch` sessions, all of which have
    /// `length` tokens then. Which experts the tokens of a batch have in common depends on the tokens;
    /// as many as chance would have it are assumed.
    pub fn step(&self, batch: usize, length: usize) -> f64 {
        let sessions = batch as f64;
        let choosing = if self.chooses(length) { self.choosing } else { 0.0 };
        let cached = self.embedding_row + self.cache(length);
        self.dense + choosing + self.experts * self.experts_read(batch) + sessions * cached
    }

    /// Products and sums with weights for one token of a prompt, without the output head, which only
    /// the last token needs, and without attention, which grows with the context.
    pub fn operations_per_prompt_token(&self) -> f64 {
        self.operations
    }

    /// Which part of all experts `batch` tokens use together.
    fn experts_read(&self, batch: usize) -> f64 {
        let unused = 1.0 - self.config.experts_used as f64 / self.config.experts.max(1) as f64;
        1.0 - unused.powi(batch.try_into().unwrap_or(i32::MAX))
    }

    /// Whether there are more compressed rows than a query attends to, so that it must choose.
    fn chooses(&self, length: usize) -> bool {
        length / Compression::Csa.ratio() > self.config.indexer.top_k
    }

    /// The cached rows that the query of the last of `length` tokens sees.
    fn cache(&self, length: usize) -> f64 {
        let window = length.min(self.config.window) as f64 * self.row;
        let layers = self.config.layers.iter().map(|kind| {
            let compressed = length.checked_div(kind.ratio()).unwrap_or(0);
            let seen = match kind {
                Compression::Csa => compressed.min(self.config.indexer.top_k),
                _ => compressed,
            };
            let index = match kind {
                Compression::Csa if self.chooses(length) => compressed,
                _ => 0,
            };
            window + seen as f64 * self.row + index as f64 * self.index_row
        });
        layers.sum()
    }
}

/// How many bytes of weights there are in each format.
pub fn formats(model: &Model) -> BTreeMap<&'static str, u64> {
    model.weights.matrices().fold(BTreeMap::new(), |mut formats, matrix| {
        let name = matrix.format().name();
        let bytes = (matrix.data().len() + matrix.scales().map_or(0, <[u8]>::len)) as u64;
        *formats.entry(name).or_insert(0) += bytes;
        formats
    })
}

fn bytes(matrix: &Matrix) -> f64 {
    (matrix.data().len() + matrix.scales().map_or(0, <[u8]>::len)) as f64
}

fn operations(matrix: &Matrix) -> f64 {
    2.0 * matrix.rows() as f64 * matrix.cols() as f64
}

fn row_bytes(config: &Config, rounding: Rounding) -> Result<(usize, usize), QuantError> {
    let (width, index_width) = (config.head_dim, config.indexer.dim);
    let has_index = config.layers.contains(&Compression::Csa);
    Ok(match rounding {
        Rounding::Plain => (4 * width, 4 * index_width),
        Rounding::Official => {
            let index = if has_index { IndexRow::new(index_width)?.bytes() } else { 0 };
            (KvRow::new(width, config.rope.dims)?.bytes(), index)
        }
    })
}

#[cfg(test)]
#[path = "traffic_tests.rs"]
mod tests;
