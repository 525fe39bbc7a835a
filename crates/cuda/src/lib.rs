//! The CUDA executor: the whole forward pass on one card, the state of slots packed on it.
//!
//! In the order of a forward pass: `executor` cuts batches into rounds, `step` takes a round through
//! the model as one sequence of launches without a host decision in it (so that a graph can replay
//! it), attention slice by slice, and one folder for each operation holds its kernel and its launcher:
//! `embed`, `hyper`, `matvec`, `tensor`, `rows`, `indexer`, `attend`, `experts`, `sample`. `upload`
//! brings the weights to the card (how they lie there is told in `matvec/weights.cuh`), `slot` and `pages`
//! are the state, `device` is all that speaks to the driver. `recording` replays what was launched before,
//! `plan` says what will be taken before it is, `limits` which models the kernels know, `health` whether the
//! card still answers, `stages` and `costs` where the time goes.
//!
//! Nothing of CUDA is needed to build this crate or to start a program that holds it: the driver is
//! looked for when an executor is made. The crate sees no text and no files but its kernel cache.

mod attend;
mod costs;
mod device;
mod embed;
mod executor;
mod experts;
mod fault;
mod health;
mod hyper;
mod indexer;
mod limits;
mod matvec;
mod options;
mod pages;
mod plan;
mod read_rate;
mod recording;
mod round;
mod rows;
mod sample;
mod scratch;
mod slot;
mod stages;
mod step;
mod tensor;
mod transfer;
mod upload;
mod weights;

pub use device::{DeviceInfo, KERNEL_SOURCE, devices, kernel_hash};
pub use executor::CudaExecutor;
pub use options::{CudaError, CudaOptions};
pub use plan::{Card, memory_plan};
