//! The mixture of experts: a router chooses a few for every row; one more is shared by all.
//!
//! In full precision here; on tensor cores in `tensor`, which sends one row of known formats to `flash`, rows with up to
//! 512 choices of known formats to `items`, what a few of them have in common to `shared`, many rows to `many`, and does the
//! others itself: one row by `one.cu`, a few by `tensor.cu`.

mod flash;
mod items;
mod many;
mod shared;
pub mod tensor;
#[cfg(test)]
mod tests;

pub use items::MOST_CHOICES;

use crate::{
    device::{Args, Device, Kernel, Kernels},
    matvec::{MatrixRef, StackRef},
    options::CudaError,
};

/// The most experts that the router's kernel can hold.
pub const MOST: usize = 1024;
/// Warps of a block.
const WARPS: usize = 8;

/// What `route` wants to know.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct RouteArgs {
    /// The round's rows.
    pub rows: u64,
    /// `[rows, experts]`.
    pub logits: u64,
    /// `[vocab, used]`, where tokens choose; 0 where scores do.
    pub table: u64,
    /// `[experts]`, where scores choose.
    pub bias: u64,
    /// `[rows, used]`.
    pub picked: u64,
    /// `[rows, used]`.
    pub weights: u64,
    /// Routed experts.
    pub experts: u32,
    /// How many a row uses.
    pub used: u32,
    /// On the weights.
    pub scale: f32,
    /// Padding.
    pub unused: u32,
}

// SAFETY: mirrors the kernel's; the addresses are those of the weights and of the scratch.
unsafe impl Args for RouteArgs {}

/// What the experts want to know.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct ExpertsArgs {
    /// Routed experts.
    pub gate: StackRef,
    /// Routed experts.
    pub up: StackRef,
    /// Routed experts.
    pub down: StackRef,
    /// The shared expert.
    pub shared_gate: MatrixRef,
    /// The shared expert.
    pub shared_up: MatrixRef,
    /// The shared expert.
    pub shared_down: MatrixRef,
    /// `[rows, hidden]`.
    pub x: u64,
    /// `[rows, used]`.
    pub picked: u64,
    /// `[rows, used]`.
    pub weights: u64,
    /// `[rows, used + 1, inner]`.
    pub middle: u64,
    /// `[rows, hidden]`.
    pub out: u64,
    /// Experts that a row uses.
    pub used: u32,
    /// Their inner width.
    pub inner: u32,
    /// Their outer width.
    pub hidden: u32,
    /// Padding.
    pub unused: u32,
    /// Clamp of routed experts.
    pub limit: f32,
    /// Clamp of the shared expert.
    pub shared_limit: f32,
}

// SAFETY: mirrors the kernel's; the addresses are those of the weights and of the scratch.
unsafe impl Args for ExpertsArgs {}

/// Shared memory of a block that makes a row's choice.
pub fn route_shared(args: &RouteArgs) -> usize {
    4 * (2 * args.experts + args.used) as usize
}

/// Chooses the experts of `rows` rows.
pub fn route(
    device: &Device,
    kernels: &Kernels,
    rows: usize,
    args: &RouteArgs,
) -> Result<(), CudaError> {
    let shared = route_shared(args);
    device.launch(kernels, Kernel::Route, [rows, 1, 1], 256, shared, args)
}

/// Runs the experts of `rows` rows.
pub fn run(
    device: &Device,
    kernels: &Kernels,
    rows: usize,
    args: &ExpertsArgs,
) -> Result<(), CudaError> {
    let (used, inner) = (args.used as usize, args.inner as usize);
    let threads = 32 * WARPS as u32;
    let grid = [inner.div_ceil(WARPS), used + 1, rows];
    device.launch(kernels, Kernel::ExpertsIn, grid, threads, 0, args)?;
    let grid = [(args.hidden as usize).div_ceil(WARPS), rows, 1];
    device.launch(kernels, Kernel::ExpertsOut, grid, threads, 0, args)
}
