//! The CPU executor: the whole forward pass in `f32` on a pool of threads, the state of slots packed
//! as the model rounds it.
//!
//! A slot's state and every logit are functions of its tokens alone, to the bit: the order of every
//! sum is fixed, rows are seen as they are stored, and neither chunks, company nor threads have a say.
//! In the order of a forward pass: `executor` cuts batches into rounds, `step` takes a round through
//! the model, `hyper`, `attention` (with `compressor`, `indexer`, `attend`) and `moe` are its parts;
//! `matmul`, `floats`, `simd` and `pool` are what they compute with; `slot` and what is below is the state.
//!
//! The crate sees no text and no files: it is given a model and token ids.

mod attend;
mod attention;
mod compressor;
mod executor;
mod fault;
mod floats;
mod hyper;
mod indexer;
mod matmul;
mod moe;
mod near;
mod norm;
mod operand;
mod options;
mod pool;
mod rope;
mod round;
mod rows;
mod scan;
mod segments;
#[allow(dead_code, reason = "a processor uses one level of it, and the benches some more")]
mod simd;
mod slot;
mod split;
mod stages;
mod step;
mod tail;
mod transfer;

pub use executor::CpuExecutor;
pub use options::{Activations, CpuError, CpuOptions, Numa};
