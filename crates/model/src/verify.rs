//! Finding damaged weights: blocks whose scale is no number.
//!
//! Vectors are checked when a model is bound. Matrices are not, for that would read the whole file;
//! this walk is for `inspect --check`, and for naming the culprit when a forward pass has met one.

use ds4_quant::{first_non_finite, first_non_finite_scale};

use crate::{LayerWeights, Matrix, Weights};

/// A value that is not finite.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The tensor.
    pub tensor: String,
    /// The byte of the tensor at which the first bad value, or its block, starts.
    pub offset: usize,
}

impl Matrix {
    /// The first value that is not finite, if there is one. Reads the whole matrix.
    pub fn damage(&self) -> Option<Damage> {
        let in_values = first_non_finite(self.format(), self.data());
        let in_scales = || first_non_finite_scale(self.format(), self.scales().unwrap_or_default());
        let offset = in_values.or_else(in_scales)?;
        Some(Damage { tensor: self.name().to_owned(), offset })
    }
}

impl LayerWeights {
    /// Every matrix of the layer.
    pub fn matrices(&self) -> impl Iterator<Item = &Matrix> {
        let attention = &self.attention;
        let fixed = [
            &self.attn_hc.function,
            &attention.q_a,
            &attention.q_b,
            &attention.kv,
            &attention.output_a,
            &attention.output_b,
            &self.ffn_hc.function,
            &self.moe.router,
        ];
        let indexer = attention.indexer.iter();
        let compressors =
            attention.compressor.iter().chain(indexer.clone().map(|indexer| &indexer.compressor));
        let experts = [&self.moe.shared].into_iter().chain(&self.moe.experts);
        fixed
            .into_iter()
            .chain(compressors.flat_map(|c| [&c.kv, &c.gate]))
            .chain(indexer.flat_map(|indexer| [&indexer.q_b, &indexer.proj]))
            .chain(experts.flat_map(|e| [&e.gate, &e.up, &e.down]))
    }
}

impl Weights {
    /// Every matrix of the model, in the order in which a token meets them.
    pub fn matrices(&self) -> impl Iterator<Item = &Matrix> {
        [&self.embedding]
            .into_iter()
            .chain(self.layers.iter().flat_map(LayerWeights::matrices))
            .chain([&self.head_hc.function, &self.output])
    }
}
