//! The experts on tensor cores: one row's side by side, several rows' sorted by expert.

use super::ExpertsArgs;
use crate::{
    device::{Args, Device, Kernel, Kernels},
    options::CudaError,
    tensor::{FEW, FEW_WARPS, MANY_WARPS, knows, many_shared, segments, tiles},
};

/// What the kernels want to know beside what those in full precision do.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct HalfExpertsArgs {
    /// As in full precision.
    pub experts: ExpertsArgs,
    /// `[rows, hidden]`, halves.
    pub x: u64,
    /// `[rows, used + 1, inner]`, halves.
    pub middle: u64,
    /// `[rows, used + 1, hidden]`.
    pub parts: u64,
    /// `[rows, used + 1]`: pairs of row and choice, sorted by expert.
    pub order: u64,
    /// `items(...)` of them.
    pub items: u64,
    /// Rows of the batch.
    pub rows: u32,
    /// How many routed experts there are.
    pub all: u32,
    /// Pairs of an item.
    pub per_item: u32,
    /// Padding.
    pub unused: u32,
}

// SAFETY: mirrors the kernel's; the addresses are those of the weights and of the scratch.
unsafe impl Args for HalfExpertsArgs {}

/// Bytes of an item.
pub const ITEM_BYTES: usize = 16;

/// How many items `rows` rows may need, with `per_item` pairs in each.
pub fn items(rows: usize, used: usize, all: usize, per_item: usize) -> usize {
    (rows * used).min(all) + rows * used / per_item + rows.div_ceil(per_item)
}

/// Whether the kernels know experts of this shape.
pub fn suits(args: &ExpertsArgs) -> bool {
    let (hidden, inner) = (args.hidden as usize, args.inner as usize);
    let pair = |gate: u32, up: u32| gate == up && knows(gate, hidden);
    pair(args.gate.first.format, args.up.first.format)
        && pair(args.shared_gate.format, args.shared_up.format)
        && knows(args.down.first.format, inner)
        && knows(args.shared_down.format, inner)
}

/// Asks for the shared memory that the kernels need.
pub fn prepare(kernels: &Kernels) -> Result<(), CudaError> {
    for (vectors, [input, output]) in MANY {
        kernels.allow_shared(input, many_shared(vectors) as u32)?;
        kernels.allow_shared(output, many_shared(vectors) as u32)?;
    }
    Ok(())
}

/// Kernels for many rows, by the vectors that a block takes.
const MANY: [(usize, [Kernel; 2]); 3] = [
    (16, [Kernel::HalfExpertsIn16, Kernel::HalfExpertsOut16]),
    (32, [Kernel::HalfExpertsIn32, Kernel::HalfExpertsOut32]),
    (64, [Kernel::HalfExpertsIn64, Kernel::HalfExpertsOut64]),
];

/// Runs the experts of `rows` rows.
pub fn run(
    device: &Device,
    kernels: &Kernels,
    rows: usize,
    args: HalfExpertsArgs,
) -> Result<(), CudaError> {
    let e = &args.experts;
    let (used, inner, hidden) = (e.used as usize, e.inner as usize, e.hidden as usize);
    let few_threads = 32 * FEW_WARPS as u32;
    let few_shared = tiles(hidden) * segments(hidden) * 256 * size_of::<f32>();
    let few_inner = inner.div_ceil(16 * tiles(hidden));
    if rows == 1 {
        let grid = [few_inner, used + 1, rows];
        device.launch(kernels, Kernel::HalfExpertsIn1, grid, few_threads, few_shared, &args)?;
        let (grid, shared) = ([hidden.div_ceil(16), rows, 1], (used + 1) * 16 * size_of::<f32>());
        return device.launch(kernels, Kernel::HalfExpertsOut1, grid, few_threads, shared, &args);
    }

    let all = args.all as usize;
    let shared_by = rows * used / all.max(1);
    let (per_item, kernels_of_many) = match rows {
        ..=FEW => (8, None),
        // About as many vectors as an expert has.
        _ => {
            let fits = MANY.iter().find(|(vectors, _)| shared_by <= vectors * 3 / 4);
            let (vectors, of) = fits.unwrap_or(&MANY[2]);
            (*vectors, Some(*of))
        }
    };
    let args = HalfExpertsArgs { per_item: per_item as u32, ..args };
    let items = items(rows, used, all, per_item);
    let shared = 2 * (all + 1) * size_of::<u32>();
    device.launch(kernels, Kernel::GroupPairs, [1, 1, 1], 1024, shared, &args)?;
    match kernels_of_many {
        None => {
            let grid = [few_inner, items, 1];
            device.launch(kernels, Kernel::HalfExpertsIn8, grid, few_threads, few_shared, &args)?;
            let grid = [hidden.div_ceil(16 * FEW_WARPS), items, 1];
            device.launch(kernels, Kernel::HalfExpertsOut8, grid, few_threads, 0, &args)?;
        }
        Some([input, output]) => {
            let (threads, shared) = (32 * MANY_WARPS as u32, many_shared(per_item));
            let grid = [inner.div_ceil(16 * MANY_WARPS), items, 1];
            device.launch(kernels, input, grid, threads, shared, &args)?;
            let grid = [hidden.div_ceil(32 * MANY_WARPS), items, 1];
            device.launch(kernels, output, grid, threads, shared, &args)?;
        }
    }
    let grid = [hidden.div_ceil(4 * 256), rows, 1];
    device.launch(kernels, Kernel::JoinExperts, grid, 256, 0, &args)
}
