//! The experts of many rows on tensor cores, sorted by expert, and what all ways of several rows share: how pairs are
//! sorted, inner vectors made whole numbers, outputs added.

use ds4_quant::Format;

use super::{
    items,
    tensor::{HalfExpertsArgs, most_items},
};
use crate::{
    device::{Device, Kernel, Kernels},
    matvec::{MatrixRef, StackRef},
    options::CudaError,
    scratch::Halves,
    stages::Part,
    tensor::{
        MANY_WARPS,
        bytes::{InnerNumbers, Numbers, table_bytes, unit_bytes},
        many_shared,
        wide::{self, PackArgs, WideArgs},
    },
};

/// Kernels for many rows, by the vectors that a block takes.
const MANY: [(usize, [Kernel; 2]); 3] = [
    (16, [Kernel::HalfExpertsIn16, Kernel::HalfExpertsOut16]),
    (32, [Kernel::HalfExpertsIn32, Kernel::HalfExpertsOut32]),
    (64, [Kernel::HalfExpertsIn64, Kernel::HalfExpertsOut64]),
];

/// Asks for the shared memory that the kernels need.
pub fn prepare(kernels: &Kernels) -> Result<(), CudaError> {
    for (vectors, of) in MANY {
        // The widest rows take more than the narrowest with their table and units.
        let most = many_shared(Format::F16 as u32, vectors) as u32;
        of.into_iter().try_for_each(|kernel| kernels.allow_shared(kernel, most))?;
    }
    Ok(())
}

/// Runs the experts of rows whose choice has been made, and whose experts have a few vectors each; the shared one has
/// all.
pub fn run_few_each(
    device: &Device,
    kernels: &Kernels,
    rows: usize,
    args: HalfExpertsArgs,
) -> Result<(), CudaError> {
    let e = args.experts;
    let (used, inner, hidden) = (e.used as usize, e.inner as usize, e.hidden as usize);
    let (per_item, [input, output]) = MANY[0];
    let shared = args.cut(per_item, SHARED_ALONE);
    group(device, kernels, &shared)?;
    let (threads, items) = (32 * MANY_WARPS as u32, rows.div_ceil(per_item));
    let room = |matrix: MatrixRef| many_shared(matrix.format, per_item);
    let grid = [inner.div_ceil(16 * MANY_WARPS), items, 1];
    device.launch(kernels, input, grid, threads, room(e.shared_gate), &shared)?;
    let grid = [hidden.div_ceil(32 * MANY_WARPS), items, 1];
    device.launch(kernels, output, grid, threads, room(e.shared_down), &shared)?;
    items::run(device, kernels, items::INPUT, rows * used, &args)?;
    few_outputs(device, kernels, rows, &args)?;
    join(device, kernels, rows, &args)
}

/// Which of the shared expert's pairs are in a list of items: they as well, or they alone.
const SHARED_TOO: u32 = 1;
const SHARED_ALONE: u32 = 2;

/// The same for more rows.
pub fn run(
    device: &Device,
    kernels: &Kernels,
    rows: usize,
    args: HalfExpertsArgs,
    halves: &Halves,
) -> Result<(), CudaError> {
    let e = args.experts;
    let (used, inner, hidden) = (e.used as usize, e.inner as usize, e.hidden as usize);
    let all = args.all();
    // About as many vectors as an expert has.
    let shared_by = rows * used / all.max(1);
    let fits = MANY.iter().find(|(vectors, _)| shared_by <= vectors * 3 / 4);
    let (per_item, [input, output]) = *fits.unwrap_or(&MANY[2]);
    let formats = [e.gate.first, e.down.first, e.shared_gate, e.shared_down].map(|m| m.format);
    // Where rounds are short there is no room for packed vectors, however few experts share the rows.
    let wide = wide::suits(device.info())
        && halves.packed != 0
        && shared_by > WIDE_FROM
        && formats.into_iter().all(wide::knows);
    if wide {
        return run_wide(device, kernels, rows, args, halves);
    }
    let args = args.cut(per_item, SHARED_TOO);
    group(device, kernels, &args)?;
    let items = most_items(rows, used, all, per_item);
    let threads = 32 * MANY_WARPS as u32;
    let room = |format: u32| {
        table_bytes(format) + unit_bytes(format, per_item, hidden) + many_shared(format, per_item)
    };
    let shared = |of: StackRef, shared: MatrixRef| room(of.first.format).max(room(shared.format));
    let grid = [inner.div_ceil(16 * MANY_WARPS), items, 1];
    device.launch(kernels, input, grid, threads, shared(e.gate, e.shared_gate), &args)?;
    if InnerNumbers::wanted_by(e.down.first.format) {
        number_inner(device, kernels, rows, &args)?;
    }
    let grid = [hidden.div_ceil(32 * MANY_WARPS), items, 1];
    device.launch(kernels, output, grid, threads, shared(e.down, e.shared_down), &args)?;
    join(device, kernels, rows, &args)
}

/// Vectors of an expert from which on blocks for 128 are worth it.
const WIDE_FROM: usize = 24;

/// The same where the card multiplies in groups of warps.
fn run_wide(
    device: &Device,
    kernels: &Kernels,
    rows: usize,
    args: HalfExpertsArgs,
    halves: &Halves,
) -> Result<(), CudaError> {
    let e = args.experts;
    let args = args.cut(wide::VECTORS, SHARED_TOO);
    group(device, kernels, &args)?;
    let shared_items = rows.div_ceil(wide::VECTORS);
    let items = most_items(rows, e.used as usize, args.all(), wide::VECTORS) - shared_items;
    let both = WideArgs {
        items: args.items,
        order: args.order,
        weights: e.weights,
        used: e.used,
        limit: e.limit,
        shared_limit: e.shared_limit,
        shared_items: shared_items as u32,
        packed: halves.packed,
        ..WideArgs::default()
    };
    let input = WideArgs {
        upper: e.gate,
        lower: e.up,
        shared_upper: e.shared_gate,
        shared_lower: e.shared_up,
        middle: args.middle,
        units: args.numbers.units,
        ..both
    };
    let output = WideArgs {
        upper: e.down,
        lower: e.down,
        shared_upper: e.shared_down,
        shared_lower: e.shared_down,
        outputs: args.parts,
        inner: args.inner_numbers,
        ..both
    };
    let tiles =
        [(e.inner as usize).div_ceil(wide::ROWS / 2), (e.hidden as usize).div_ceil(wide::ROWS)];
    // A row's vector goes to all its experts; each has its own for the output.
    let x = if Numbers::wanted_by(e.gate.first.format) { args.numbers.halves } else { args.x };
    let vectors = [([x, args.x], e.hidden, e.used + 1), ([args.middle; 2], e.inner, 1)];
    let parts = [Part::ExpertsIn, Part::ExpertsOut].into_iter();
    for (((part, of), tiles), ([x, shared_x], width, per_row)) in
        parts.zip([input, output]).zip(tiles).zip(vectors)
    {
        let whole = part == Part::ExpertsOut && InnerNumbers::wanted_by(of.upper.first.format);
        if whole {
            number_inner(device, kernels, rows, &args)?;
        }
        // The kernels are the same for both parts, so their names do not tell.
        device.enter(part);
        let vectors = PackArgs {
            x,
            shared_x,
            to: halves.packed,
            items: of.items,
            order: of.order,
            rows: rows as u32,
            width,
            per_row,
            shared_items: of.shared_items,
            format: of.upper.first.format,
            shared_format: of.shared_upper.format,
        };
        wide::pack(device, kernels, items + shared_items, &vectors)?;
        let shared = WideArgs { only_shared: 1, ..of };
        let format = of.shared_upper.format;
        wide::launch(device, kernels, format, [tiles, shared_items, 1], &shared)?;
        match whole {
            true => wide::launch_whole(device, kernels, [tiles, items, 1], &of)?,
            false => {
                let format = of.upper.first.format;
                wide::launch(device, kernels, format, [tiles, items, 1], &of)?;
            }
        }
    }
    join(device, kernels, rows, &args)
}

/// The outputs of chosen experts that have a few vectors each, in a format that `items` knows.
pub fn few_outputs(
    device: &Device,
    kernels: &Kernels,
    rows: usize,
    args: &HalfExpertsArgs,
) -> Result<(), CudaError> {
    number_inner(device, kernels, rows, args)?;
    items::run(device, kernels, items::OUTPUT, rows * args.experts.used as usize, args)
}

/// Makes whole numbers of the inner vectors of chosen experts.
fn number_inner(
    device: &Device,
    kernels: &Kernels,
    rows: usize,
    args: &HalfExpertsArgs,
) -> Result<(), CudaError> {
    const WARPS: usize = 4;
    let e = &args.experts;
    let blocks = rows * e.used as usize * e.inner as usize / 256;
    let grid = [blocks.div_ceil(WARPS), 1, 1];
    device.launch(kernels, Kernel::NumberInner, grid, 32 * WARPS as u32, 0, args)
}

/// Sorts the pairs of row and choice by expert.
pub fn group(device: &Device, kernels: &Kernels, args: &HalfExpertsArgs) -> Result<(), CudaError> {
    let shared = 2 * (args.all() + 1) * size_of::<u32>();
    device.launch(kernels, Kernel::GroupPairs, [1, 1, 1], 1024, shared, args)
}

/// Threads of a block that adds up outputs.
const JOIN_THREADS: usize = 128;

/// Adds up each row's outputs.
pub fn join(
    device: &Device,
    kernels: &Kernels,
    rows: usize,
    args: &HalfExpertsArgs,
) -> Result<(), CudaError> {
    let grid = [(args.experts.hidden as usize).div_ceil(4 * JOIN_THREADS), rows, 1];
    device.launch(kernels, Kernel::JoinExperts, grid, JOIN_THREADS as u32, 0, args)
}
