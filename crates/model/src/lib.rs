//! The model: its numbers, its tensors in any of three file styles, and the readable forward pass.
//!
//! - [`Config`]: what the model is, read from the file.
//! - [`catalogue`]: every tensor, its name in each file style and its shape.
//! - [`Source`] and [`Model`]: a file opened, and a file bound.
//! - [`mod@reference`]: the forward pass in the order of the paper, slow and plain: the specification that
//!   every executor is held to.

mod algebra;
pub mod catalogue;
mod config;
mod config_read;
mod describe;
mod error;
mod facts;
mod model;
pub mod reference;
mod source;
mod verify;
mod weights;

pub use algebra::Real;
pub use config::{Compression, Config, Indexer, Rope};
pub use describe::describe;
pub use error::ModelError;
pub use model::{Fingerprint, Model};
pub use source::{ARCHITECTURE, Audit, Source, Stored};
pub use verify::Damage;
pub use weights::{
    AttentionWeights, CompressorWeights, ExpertWeights, FP4_GROUP, FP8_TILE, HyperWeights,
    IndexerWeights, LayerWeights, Matrix, MoeWeights, Routing, Weights,
};

/// Which of the model's own roundings are applied to what is cached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounding {
    /// As the model was trained: FP8 attention rows, Hadamard and FP4 index rows.
    Official,
    /// None, for checking.
    Plain,
}
