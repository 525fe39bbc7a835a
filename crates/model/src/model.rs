//! A model, bound: its numbers and its weights, and a fingerprint to tell it from others.

use std::{fmt, path::Path};

use crate::{
    AttentionWeights, Compression, CompressorWeights, Config, ExpertWeights, HyperWeights,
    IndexerWeights, LayerWeights, Matrix, ModelError, MoeWeights, Routing, Source, Weights,
    catalogue::{self as tensors, CompressorEntries, Entry, ExpertEntries},
};

/// Tells models apart: a saved state belongs to one.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub [u8; 32]);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..8].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

/// A model whose every tensor was found and has the right shape.
#[derive(Clone, Debug)]
pub struct Model {
    /// Its numbers.
    pub config: Config,
    /// Its weights.
    pub weights: Weights,
    /// A hash of its numbers and of samples of its weights.
    pub fingerprint: Fingerprint,
}

impl Model {
    /// Opens and binds a model in any of the three file styles.
    pub fn open(path: &Path) -> Result<Model, ModelError> {
        Model::bind(&Source::open(path)?)
    }

    /// Finds every tensor and checks its shape. The weights stay in the file.
    pub fn bind(source: &Source) -> Result<Model, ModelError> {
        let config = source.config()?;
        let binder = Binder { source, config: &config };
        let weights = Weights {
            embedding: binder.matrix(&tensors::EMBEDDING, 0)?,
            layers: (0..config.layers.len()).map(|l| binder.layer(l)).collect::<Result<_, _>>()?,
            head_hc: HyperWeights {
                function: binder.matrix(&tensors::HEAD_HC_FUNCTION, 0)?,
                base: binder.vector(&tensors::HEAD_HC_BASE, 0)?,
                scale: binder.vector(&tensors::HEAD_HC_SCALE, 0)?,
            },
            head_norm: binder.vector(&tensors::HEAD_NORM, 0)?,
            output: binder.matrix(&tensors::OUTPUT, 0)?,
        };
        let fingerprint = fingerprint(&config, &weights);
        Ok(Model { config, weights, fingerprint })
    }
}

struct Binder<'a> {
    source: &'a Source,
    config: &'a Config,
}

impl Binder<'_> {
    fn matrix(&self, entry: &Entry, layer: usize) -> Result<Matrix, ModelError> {
        self.source.matrix(self.config, entry, layer)
    }

    fn vector(&self, entry: &Entry, layer: usize) -> Result<Vec<f32>, ModelError> {
        self.source.vector(self.config, entry, layer)
    }

    fn layer(&self, l: usize) -> Result<LayerWeights, ModelError> {
        Ok(LayerWeights {
            attn_hc: HyperWeights {
                function: self.matrix(&tensors::ATTN_HC_FUNCTION, l)?,
                base: self.vector(&tensors::ATTN_HC_BASE, l)?,
                scale: self.vector(&tensors::ATTN_HC_SCALE, l)?,
            },
            attn_norm: self.vector(&tensors::ATTN_NORM, l)?,
            attention: self.attention(l)?,
            ffn_hc: HyperWeights {
                function: self.matrix(&tensors::FFN_HC_FUNCTION, l)?,
                base: self.vector(&tensors::FFN_HC_BASE, l)?,
                scale: self.vector(&tensors::FFN_HC_SCALE, l)?,
            },
            ffn_norm: self.vector(&tensors::FFN_NORM, l)?,
            moe: self.moe(l)?,
        })
    }

    fn attention(&self, l: usize) -> Result<AttentionWeights, ModelError> {
        let kind = self.config.layers[l];
        let compressor = match kind {
            Compression::None => None,
            _ => Some(self.compressor(&tensors::COMPRESSOR, l)?),
        };
        let indexer = match kind {
            Compression::Csa => Some(IndexerWeights {
                q_b: self.matrix(&tensors::INDEXER_Q_B, l)?,
                proj: self.matrix(&tensors::INDEXER_PROJ, l)?,
                compressor: self.compressor(&tensors::INDEX_COMPRESSOR, l)?,
            }),
            _ => None,
        };
        Ok(AttentionWeights {
            q_a: self.matrix(&tensors::Q_A, l)?,
            q_a_norm: self.vector(&tensors::Q_A_NORM, l)?,
            q_b: self.matrix(&tensors::Q_B, l)?,
            kv: self.matrix(&tensors::KV, l)?,
            kv_norm: self.vector(&tensors::KV_NORM, l)?,
            sinks: self.vector(&tensors::SINKS, l)?,
            output_a: self.matrix(&tensors::OUTPUT_A, l)?,
            output_b: self.matrix(&tensors::OUTPUT_B, l)?,
            compressor,
            indexer,
        })
    }

    fn compressor(
        &self,
        entries: &CompressorEntries,
        l: usize,
    ) -> Result<CompressorWeights, ModelError> {
        Ok(CompressorWeights {
            kv: self.matrix(&entries.kv, l)?,
            gate: self.matrix(&entries.gate, l)?,
            ape: self.vector(&entries.ape, l)?,
            norm: self.vector(&entries.norm, l)?,
        })
    }

    fn moe(&self, l: usize) -> Result<MoeWeights, ModelError> {
        let (source, config) = (self.source, self.config);
        let routing = if config.routes_by_hash(l) {
            Routing::Hash(source.table(config, &tensors::ROUTER_TABLE, l)?)
        } else {
            let bias = source.maybe_vector(config, &tensors::ROUTER_BIAS, l)?;
            Routing::Scores(bias.unwrap_or_else(|| vec![0.0; config.experts]))
        };
        let stack = |entry| source.experts(config, entry, l);
        let (gate, up) = (stack(&tensors::EXPERTS.gate)?, stack(&tensors::EXPERTS.up)?);
        let down = stack(&tensors::EXPERTS.down)?;
        let experts = gate.into_iter().zip(up).zip(down);
        Ok(MoeWeights {
            router: self.matrix(&tensors::ROUTER, l)?,
            routing,
            experts: experts.map(|((gate, up), down)| ExpertWeights { gate, up, down }).collect(),
            shared: self.expert(&tensors::SHARED_EXPERT, l)?,
        })
    }

    fn expert(&self, entries: &ExpertEntries, l: usize) -> Result<ExpertWeights, ModelError> {
        Ok(ExpertWeights {
            gate: self.matrix(&entries.gate, l)?,
            up: self.matrix(&entries.up, l)?,
            down: self.matrix(&entries.down, l)?,
        })
    }
}

/// Reading all of an 81 GB file to name it would take longer than to start it. The numbers, every
/// format, and the first bytes of the dense matrices and of each layer's first and last expert tell
/// apart any two models, and any two quantisations of one, that were not made to collide.
fn fingerprint(config: &Config, weights: &Weights) -> Fingerprint {
    let mut hash = blake3::Hasher::new();
    // The name is a label, not a property.
    let numbers = Config { name: String::new(), ..config.clone() };
    hash.update(format!("{numbers:?}").as_bytes());
    let mut sample = |matrix: &Matrix| {
        const BYTES: usize = 4096;
        hash.update(matrix.format().name().as_bytes());
        hash.update(&matrix.data()[..matrix.data().len().min(BYTES)]);
    };
    sample(&weights.embedding);
    sample(&weights.output);
    for layer in &weights.layers {
        let attention = &layer.attention;
        sample(&attention.q_a);
        sample(&attention.q_b);
        sample(&attention.kv);
        sample(&attention.output_b);
        for expert in [layer.moe.experts.first(), layer.moe.experts.last()].into_iter().flatten() {
            sample(&expert.gate);
            sample(&expert.up);
            sample(&expert.down);
        }
    }
    Fingerprint(*hash.finalize().as_bytes())
}
