//! Where a forward pass first went wrong, and which tensor is to blame.

use ds4_engine::ExecError;
use ds4_model::{
    AttentionWeights, CompressorWeights, HyperWeights, Matrix, Model, MoeWeights, Routing,
    catalogue::{self as tensors, CompressorEntries, Entry},
};
use ds4_quant::{first_non_finite, first_non_finite_scale};

/// A part of the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The embedding of the token.
    Embedding,
    /// Attention of this layer.
    Attention(usize),
    /// The experts of this layer.
    Experts(usize),
    /// The output.
    Head,
}

/// The first value that was not finite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What computed it.
    pub place: Place,
    /// The token of the row.
    pub token: u32,
    /// The position of the row.
    pub position: usize,
}

impl Fault {
    /// The error for people. It reads every weight of the place, which takes a while, but nothing
    /// can be computed with this model any more.
    pub fn explain(&self, model: &Model) -> ExecError {
        let part = match self.place {
            Place::Embedding => "in the embedding".to_owned(),
            Place::Attention(layer) => format!("in the attention of layer {layer}"),
            Place::Experts(layer) => format!("in the experts of layer {layer}"),
            Place::Head => "in the output".to_owned(),
        };
        let Fault { token, position, .. } = self;
        ExecError::NotFinite {
            place: format!("{part}, for token {token} at position {position}"),
            cause: Search { model, found: None }.damage(self.place).unwrap_or_else(|| {
                "all its weights are finite, so the numbers must have grown out of range".to_owned()
            }),
        }
    }
}

/// A search for the first damaged tensor.
struct Search<'a> {
    model: &'a Model,
    found: Option<String>,
}

impl Search<'_> {
    fn damage(mut self, place: Place) -> Option<String> {
        let weights = &self.model.weights;
        match place {
            Place::Embedding => self.matrix(&weights.embedding),
            Place::Attention(l) => {
                let layer = &weights.layers[l];
                let hyper = (&tensors::ATTN_HC_BASE, &tensors::ATTN_HC_SCALE);
                self.hyper(&layer.attn_hc, hyper, l);
                self.vector(&layer.attn_norm, &tensors::ATTN_NORM, l);
                self.attention(&layer.attention, l);
            }
            Place::Experts(l) => {
                let layer = &weights.layers[l];
                let hyper = (&tensors::FFN_HC_BASE, &tensors::FFN_HC_SCALE);
                self.hyper(&layer.ffn_hc, hyper, l);
                self.vector(&layer.ffn_norm, &tensors::FFN_NORM, l);
                self.moe(&layer.moe, l);
            }
            Place::Head => {
                let hyper = (&tensors::HEAD_HC_BASE, &tensors::HEAD_HC_SCALE);
                self.hyper(&weights.head_hc, hyper, 0);
                self.vector(&weights.head_norm, &tensors::HEAD_NORM, 0);
                self.matrix(&weights.output);
            }
        }
        self.found
    }

    fn hyper(&mut self, weights: &HyperWeights, (base, scale): (&Entry, &Entry), layer: usize) {
        self.matrix(&weights.function);
        self.vector(&weights.base, base, layer);
        self.vector(&weights.scale, scale, layer);
    }

    fn attention(&mut self, weights: &AttentionWeights, layer: usize) {
        for matrix in
            [&weights.q_a, &weights.q_b, &weights.kv, &weights.output_a, &weights.output_b]
        {
            self.matrix(matrix);
        }
        self.vector(&weights.q_a_norm, &tensors::Q_A_NORM, layer);
        self.vector(&weights.kv_norm, &tensors::KV_NORM, layer);
        self.vector(&weights.sinks, &tensors::SINKS, layer);
        if let Some(compressor) = &weights.compressor {
            self.compressor(compressor, &tensors::COMPRESSOR, layer);
        }
        if let Some(indexer) = &weights.indexer {
            self.matrix(&indexer.q_b);
            self.matrix(&indexer.proj);
            self.compressor(&indexer.compressor, &tensors::INDEX_COMPRESSOR, layer);
        }
    }

    fn compressor(&mut self, w: &CompressorWeights, entries: &CompressorEntries, layer: usize) {
        self.matrix(&w.kv);
        self.matrix(&w.gate);
        self.vector(&w.ape, &entries.ape, layer);
        self.vector(&w.norm, &entries.norm, layer);
    }

    fn moe(&mut self, weights: &MoeWeights, layer: usize) {
        self.matrix(&weights.router);
        if let Routing::Scores(bias) = &weights.routing {
            self.vector(bias, &tensors::ROUTER_BIAS, layer);
        }
        for expert in [&weights.shared].into_iter().chain(&weights.experts) {
            for matrix in [&expert.gate, &expert.up, &expert.down] {
                self.matrix(matrix);
            }
        }
    }

    fn matrix(&mut self, matrix: &Matrix) {
        if self.found.is_some() {
            return;
        }
        let (name, format) = (matrix.name(), matrix.format());
        let scale = || matrix.scales().and_then(|scales| first_non_finite_scale(format, scales));
        if let Some(offset) = first_non_finite(format, matrix.data()) {
            self.found = Some(format!("tensor {name} has a damaged block at its byte {offset}"));
        } else if let Some(offset) = scale() {
            self.found = Some(format!("tensor {name} has a damaged scale at its scale {offset}"));
        }
    }

    fn vector(&mut self, values: &[f32], entry: &Entry, layer: usize) {
        if self.found.is_some() {
            return;
        }
        if let Some(i) = values.iter().position(|x| !x.is_finite()) {
            let name = match self.is_checkpoint() {
                true => entry.checkpoint_name(layer, 0),
                false => entry.gguf_name(layer),
            };
            self.found = Some(format!("tensor {name} is {} at its value {i}", values[i]));
        }
    }

    /// Small vectors do not carry the names they have in the file, but the embedding tells the style.
    fn is_checkpoint(&self) -> bool {
        self.model.weights.embedding.name() == tensors::EMBEDDING.checkpoint_name(0, 0)
    }
}
