//! Integer kernels: weights as they lie in the file times activations of one signed byte.
//!
//! ...

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
mod order;
mod portable;
mod scalar;
mod weights;

pub use activations::*;
pub use gemm::Panel;
pub use kernels::*;
pub use weights::*;

#[cfg(test)]
mod tests;
