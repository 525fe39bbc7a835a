//! Integer kernels: weights as they lie in the file times activations of one signed byte.
//!
//! [`Activations`] are quantised once and meet every matrix of their [`Form`]. [`Kernels`] are chosen
//! once for the processor. A product is made of exact integers and of float operations in one fixed
//! order, which `scalar` spells out: so every instruction set, and every number of tokens and rows at
//! a time, gives the same bits.
//!
//! `isa` is what is asked of an instruction set; `avx512`, `avx2` and `neon` are the answers, and
//! `portable` what they share. `codec` is what is asked of a format; `formats` are the answers. `gemv`
//! multiplies a few tokens, `gemm` many. The module sees slices: no files, no model, no threads.

#![allow(
    clippy::needless_range_loop,
    reason = "vectors of one index belong together; zips hide it"
)]

mod activations;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod codec;
mod formats;
mod gemm;
mod gemv;
mod grid;
mod isa;
mod kernels;
#[cfg(target_arch = "aarch64")]
mod neon;
mod order;
mod portable;
mod scalar;
#[cfg(test)]
mod tests;
mod weights;

pub use activations::{Activations, Form, Token};
pub use gemm::Panel;
pub use kernels::Kernels;
#[allow(unused_imports, reason = "the executor takes the best level; the bench compares them")]
pub use kernels::Level;
pub use weights::Weights;
