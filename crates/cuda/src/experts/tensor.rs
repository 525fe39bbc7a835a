//! The experts on tensor cores: one row's side by side, several rows' sorted by expert.

use ds4_quant::Format;

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
    let knows = |format: u32, cols| {
        format == Format::Iq2Xxs as u32 && cols % 256 == 0 || knows(format, cols)
    };
    let pair = |gate: u32, up: u32| gate == up && knows(gate, hidden);
    pair(args.gate.first.format, args.up.first.format)
        && pair(args.shared_gate.format, args.shared_up.format)
        && knows(args.down.first.format, inner)
        && knows(args.shared_down.format, inner)
}

/// Tiles that a block of few rows takes one after another, where each needs all its warps.
const INNER_PASSES: usize = 4;

/// Bytes of the table that a format is decoded with.
fn table_bytes(format: u32) -> usize {
    if format == Format::Iq2Xxs as u32 { 256 * 8 * 16 } else { 0 }
}

/// Asks for the shared memory that the kernels need.
pub fn prepare(kernels: &Kernels) -> Result<(), CudaError> {
    let table = table_bytes(Format::Iq2Xxs as u32);
    for (vectors, of) in MANY {
        for kernel in of {
            kernels.allow_shared(kernel, (table + many_shared(vectors)) as u32)?;
        }
    }
    use Kernel::{HalfExpertsIn1, HalfExpertsIn8, HalfExpertsOut1, HalfExpertsOut8};
    for kernel in [HalfExpertsIn1, HalfExpertsIn8, HalfExpertsOut1, HalfExpertsOut8] {
        kernels.allow_shared(kernel, MOST_SHARED)?;
    }
    Ok(())
}

/// As much shared memory as every card has for one block.
const MOST_SHARED: u32 = 99 << 10;

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
    let [input_table, output_table] = [e.gate, e.down].map(|stack| table_bytes(stack.first.format));
    // A block takes several tiles where each of them needs all its warps.
    let few_tiles = if tiles(hidden) == 1 { INNER_PASSES } else { tiles(hidden) };
    let few_shared = input_table + few_tiles * segments(hidden) * 256 * size_of::<f32>();
    let few_inner = inner.div_ceil(16 * few_tiles);
    if rows == 1 {
        let grid = [few_inner, used + 1, rows];
        device.launch(kernels, Kernel::HalfExpertsIn1, grid, few_threads, few_shared, &args)?;
        let grid = [hidden.div_ceil(16), rows, 1];
        let shared = output_table + (used + 1) * segments(inner) * 16 * size_of::<f32>();
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
            device.launch(
                kernels,
                Kernel::HalfExpertsOut8,
                grid,
                few_threads,
                output_table,
                &args,
            )?;
        }
        Some([input, output]) => {
            let (threads, shared) = (32 * MANY_WARPS as u32, many_shared(per_item));
            let grid = [inner.div_ceil(16 * MANY_WARPS), items, 1];
            device.launch(kernels, input, grid, threads, input_table + shared, &args)?;
            let grid = [hidden.div_ceil(32 * MANY_WARPS), items, 1];
            device.launch(kernels, output, grid, threads, output_table + shared, &args)?;
        }
    }
    let grid = [hidden.div_ceil(4 * 256), rows, 1];
    device.launch(kernels, Kernel::JoinExperts, grid, 256, 0, &args)
}
