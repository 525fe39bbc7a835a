//! The experts on tensor cores: one row's side by side, several rows' sorted by expert.

use ds4_quant::Format;

use super::{ExpertsArgs, RouteArgs, flash, items, route, route_shared, shared::Shared};
use crate::{
    device::{Args, Device, Kernel, Kernels},
    matvec::{MatrixRef, StackRef},
    options::CudaError,
    scratch::Halves,
    stages::Part,
    tensor::{
        self, FEW, FEW_WARPS, FewProductsArgs, HalfProductList, MANY_WARPS, MOST_SHARED, ROOM,
        STATIC_SHARED,
        bytes::{InnerNumbers, Numbers, table_bytes, unit_bytes, wanted_by},
        knows, many_shared, segments, tiles,
        wide::{self, PackArgs, WideArgs},
    },
};

/// What the kernels want to know beside what those in full precision do.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct HalfExpertsArgs {
    /// As in full precision.
    pub experts: ExpertsArgs,
    /// `[rows, hidden]`, halves.
    pub x: u64,
    /// The same as whole numbers.
    pub numbers: Numbers,
    /// What belongs to `middle` where it is whole numbers.
    pub inner_numbers: InnerNumbers,
    /// `[rows, used + 1, inner]`, halves.
    pub middle: u64,
    /// `[rows, used + 1, hidden]`; of one row, what its router's product is made of.
    pub parts: u64,
    /// `[rows, used + 1]`: pairs of row and choice, sorted by expert.
    pub order: u64,
    /// `most_items(...)` of them.
    pub items: u64,
    /// How a row chooses.
    pub route: RouteArgs,
    /// The product that the choice comes from.
    router: FewProductsArgs,
    router_blocks: u32,
    rows: u32,
    all: u32,
    per_item: u32,
    shared_items: u32,
    inner_tiles: u32,
    /// Blocks of the router that are done; zero between launches.
    arrived: u64,
}

// SAFETY: mirrors the kernel's; the addresses are those of the weights and of the scratch.
unsafe impl Args for HalfExpertsArgs {}

impl HalfExpertsArgs {
    /// The same for blocks that take so many tiles of 16 inner values.
    pub fn with_inner_tiles(self, tiles: usize) -> HalfExpertsArgs {
        HalfExpertsArgs { inner_tiles: tiles as u32, ..self }
    }
}

/// Bytes of an item.
pub const ITEM_BYTES: usize = 16;

/// How many items `rows` rows may need, with `per_item` pairs in each.
pub fn most_items(rows: usize, used: usize, all: usize, per_item: usize) -> usize {
    (rows * used).min(all) + rows * used / per_item + rows.div_ceil(per_item)
}

/// How many experts of a row a block can list.
const MOST_USED: u32 = 32;

/// Whether the kernels know experts of this shape.
pub fn suits(args: &ExpertsArgs) -> bool {
    let (hidden, inner) = (args.hidden as usize, args.inner as usize);
    let (gate, shared_gate) = (args.gate.first.format, args.shared_gate.format);
    ((wanted_by(gate) && hidden.is_multiple_of(256)) || knows(gate, hidden))
        && gate == args.up.first.format
        && knows(shared_gate, hidden)
        && shared_gate == args.shared_up.format
        && knows(args.down.first.format, inner)
        && knows(args.shared_down.format, inner)
        && args.used <= MOST_USED
        && FEW_WARPS * ROOM + output_sums(args.used as usize, inner) <= MOST_SHARED
}

/// Blocks of few rows that fit onto a multiprocessor at a time.
const RESIDENT: usize = 2;
/// The most tiles that a block of few rows takes one after another: there is no shared memory for the
/// sums of more.
const MOST_PASSES: usize = 3;

/// Bytes of the sums of gate and up: so many tiles, each of so many columns, for up to 8 rows at a time.
fn sums(tiles: usize, hidden: usize, rows: usize) -> usize {
    2 * tiles * segments(hidden) * rows.min(8) * 16 * size_of::<f32>()
}

/// Bytes of the sums of one row's outputs.
fn output_sums(used: usize, inner: usize) -> usize {
    (used + 1) * segments(inner) * 16 * size_of::<f32>()
}

/// Shared memory of a block of few rows: where a multiprocessor has more than others, half of that.
fn most_shared(device: &Device) -> usize {
    if device.info().has_much_shared() { (113 << 10) - STATIC_SHARED } else { MOST_SHARED }
}

/// How many times a block of few rows may take its tiles, so that their sums fit beside `rooms`.
fn most_passes(most: usize, rooms: usize, hidden: usize, rows: usize) -> usize {
    let fits = |passes: &usize| rooms + sums(tiles(hidden) * passes, hidden, rows) <= most;
    (1..=MOST_PASSES).rev().find(fits).unwrap_or(1)
}

/// Asks for the shared memory that the kernels need.
pub fn prepare(device: &Device, kernels: &Kernels) -> Result<(), CudaError> {
    for (vectors, of) in MANY {
        // The widest rows take more than the narrowest and their table.
        let most = many_shared(Format::F16 as u32, vectors) as u32;
        of.into_iter().try_for_each(|kernel| kernels.allow_shared(kernel, most))?;
    }
    super::shared::prepare(kernels)?;
    items::prepare(device, kernels)?;
    flash::prepare(device, kernels)?;
    let most = most_shared(device) as u32;
    FEW_KERNELS.into_iter().try_for_each(|kernel| kernels.allow_shared(kernel, most))
}

/// Kernels for few rows.
const FEW_KERNELS: [Kernel; 5] = [
    Kernel::RouterAndShared,
    Kernel::HalfExpertsIn1,
    Kernel::HalfExpertsIn8,
    Kernel::HalfExpertsOut1,
    Kernel::HalfExpertsOut8,
];

/// Vectors of an item.
const ITEM_VECTORS: usize = 8;

/// Kernels for many rows, by the vectors that a block takes.
const MANY: [(usize, [Kernel; 2]); 3] = [
    (16, [Kernel::HalfExpertsIn16, Kernel::HalfExpertsOut16]),
    (32, [Kernel::HalfExpertsIn32, Kernel::HalfExpertsOut32]),
    (64, [Kernel::HalfExpertsIn64, Kernel::HalfExpertsOut64]),
];

/// The products beside the experts' own.
#[derive(Clone, Copy)]
pub struct Beside<'a> {
    /// That of the router.
    pub router: &'a HalfProductList,
    /// The format of its matrix.
    pub router_format: u32,
    /// That of the shared expert's output.
    pub down: &'a HalfProductList,
    /// Where the router's blocks count; zero between launches.
    pub arrived: u64,
    /// Whether who reads the outputs of a few rows adds up their parts.
    pub adds_parts: bool,
}

/// Chooses and runs the experts of `rows` rows. Says whether their outputs are left in parts.
pub fn run(
    device: &Device,
    kernels: &Kernels,
    rows: usize,
    experts: &ExpertsArgs,
    route_args: &RouteArgs,
    halves: &Halves,
    beside: Beside<'_>,
) -> Result<bool, CudaError> {
    let (router, router_blocks, router_shared) = beside.router.few(rows);
    let mut args = HalfExpertsArgs {
        experts: *experts,
        x: halves.x,
        numbers: halves.numbers.of(takes_few(experts, rows)),
        inner_numbers: halves.inner_numbers.of(takes_few(experts, rows)),
        middle: halves.middle,
        parts: halves.parts,
        order: halves.order,
        items: halves.items,
        route: *route_args,
        router,
        router_blocks: router_blocks as u32,
        rows: rows as u32,
        all: route_args.experts,
        per_item: 0,
        shared_items: 0,
        inner_tiles: 0,
        arrived: beside.arrived,
    };
    if rows > FEW {
        tensor::multiply(device, kernels, beside.router, rows)?;
        route(device, kernels, rows, route_args)?;
        match takes_few(experts, rows) {
            true => run_items(device, kernels, rows, args)?,
            false => run_many(device, kernels, rows, args, halves)?,
        }
        return Ok(false);
    }
    let routed = (beside.router_format, route_args.experts);
    if let (1, Some(plan)) = (rows, flash::plan(device.info(), experts, routed)) {
        flash::run(device, kernels, plan, &args)?;
        return Ok(false);
    }
    let (used, inner, hidden) =
        (experts.used as usize, experts.inner as usize, experts.hidden as usize);
    let threads = 32 * FEW_WARPS as u32;
    let sums = |tiles: usize| sums(tiles, hidden, rows);
    let shared = Shared::new(device.info(), beside.router, experts, halves, beside.down);
    if let Some(shared) = &shared {
        shared.input(device, kernels, rows)?;
    } else {
        let grid = [router_blocks + inner.div_ceil(16 * tiles(hidden)), rows.div_ceil(8), 1];
        let shared = (FEW_WARPS * ROOM + sums(tiles(hidden)))
            .max(router_shared)
            .max(rows.min(8) * route_shared(route_args));
        device.launch(kernels, Kernel::RouterAndShared, grid, threads, shared, &args)?;
    }

    let (gate, down) = (experts.gate.first.format, experts.down.first.format);
    if rows == 1 {
        if shared.is_some() {
            route(device, kernels, rows, route_args)?;
        }
        let rooms = FEW_WARPS * ROOM;
        if items::knows_input(gate) {
            items::run(device, kernels, items::INPUT, used, &args)?;
        } else {
            let most_passes = most_passes(most_shared(device), rooms, hidden, 1);
            // All blocks at once, if they fit.
            let resident = RESIDENT * device.info().multiprocessors;
            let passes =
                (used * inner).div_ceil(16 * tiles(hidden) * resident).clamp(1, most_passes);
            args.inner_tiles = (tiles(hidden) * passes) as u32;
            let grid = [used * inner.div_ceil(16 * args.inner_tiles as usize), 1, 1];
            let pieces = rooms + sums(args.inner_tiles as usize);
            device.launch(kernels, Kernel::HalfExpertsIn1, grid, threads, pieces, &args)?;
        }
        if !items::knows_output(down, hidden) {
            let (grid, pieces) = ([hidden.div_ceil(16), 1, 1], rooms + output_sums(used, inner));
            device.launch(kernels, Kernel::HalfExpertsOut1, grid, threads, pieces, &args)?;
            return Ok(false);
        }
        tensor::multiply(device, kernels, beside.down, rows)?;
        number_inner(device, kernels, rows, &args)?;
        items::run(device, kernels, items::OUTPUT, used, &args)?;
        join(device, kernels, rows, &args)?;
        return Ok(false);
    }
    match &shared {
        Some(shared) => shared.output(device, kernels, rows, route_args)?,
        None => tensor::multiply(device, kernels, beside.down, rows)?,
    }
    let known = (items::knows_input(gate), items::knows_output(down, hidden));
    args.per_item = ITEM_VECTORS as u32;
    let most_items = most_items(rows, used, args.all as usize, ITEM_VECTORS);
    // Kernels that know the format find out by themselves who shares an expert.
    if known != (true, true) {
        group(device, kernels, &args)?;
    }
    if known.0 {
        items::run(device, kernels, items::INPUT, rows * used, &args)?;
    } else {
        let (rooms, vectors) = (FEW_WARPS * ROOM, rows.min(ITEM_VECTORS));
        let passes = most_passes(most_shared(device), rooms, hidden, vectors);
        args.inner_tiles = (tiles(hidden) * passes) as u32;
        let shared = rooms + self::sums(args.inner_tiles as usize, hidden, vectors);
        let grid = [inner.div_ceil(16 * args.inner_tiles as usize), most_items, 1];
        device.launch(kernels, Kernel::HalfExpertsIn8, grid, threads, shared, &args)?;
    }
    if known.1 {
        number_inner(device, kernels, rows, &args)?;
        items::run(device, kernels, items::OUTPUT, rows * used, &args)?;
    } else {
        let grid = [hidden.div_ceil(16 * FEW_WARPS), most_items, 1];
        device.launch(kernels, Kernel::HalfExpertsOut8, grid, threads, FEW_WARPS * ROOM, &args)?;
    }
    if !beside.adds_parts {
        join(device, kernels, rows, &args)?;
    }
    Ok(beside.adds_parts)
}

/// Whether experts take a few vectors at a time, of so many rows: always those of up to 16.
pub fn takes_few(e: &ExpertsArgs, rows: usize) -> bool {
    let known = items::knows_input(e.gate.first.format)
        && items::knows_output(e.down.first.format, e.hidden as usize);
    rows <= FEW || (known && rows * e.used as usize <= items::MOST_CHOICES)
}

/// The same for rows whose choice has been made, and whose experts have a few vectors each. The shared expert has all.
fn run_items(
    device: &Device,
    kernels: &Kernels,
    rows: usize,
    args: HalfExpertsArgs,
) -> Result<(), CudaError> {
    let e = args.experts;
    let (used, inner, hidden) = (e.used as usize, e.inner as usize, e.hidden as usize);
    let (per_item, [input, output]) = MANY[0];
    let shared = HalfExpertsArgs { per_item: per_item as u32, shared_items: SHARED_ALONE, ..args };
    group(device, kernels, &shared)?;
    let (threads, items) = (32 * MANY_WARPS as u32, rows.div_ceil(per_item));
    let room = |matrix: MatrixRef| many_shared(matrix.format, per_item);
    let grid = [inner.div_ceil(16 * MANY_WARPS), items, 1];
    device.launch(kernels, input, grid, threads, room(e.shared_gate), &shared)?;
    let grid = [hidden.div_ceil(32 * MANY_WARPS), items, 1];
    device.launch(kernels, output, grid, threads, room(e.shared_down), &shared)?;
    items::run(device, kernels, items::INPUT, rows * used, &args)?;
    number_inner(device, kernels, rows, &args)?;
    items::run(device, kernels, items::OUTPUT, rows * used, &args)?;
    join(device, kernels, rows, &args)
}

/// What a list of items says that has the shared expert's alone.
const SHARED_ALONE: u32 = 2;

/// The same for many rows, whose choice has been made.
fn run_many(
    device: &Device,
    kernels: &Kernels,
    rows: usize,
    mut args: HalfExpertsArgs,
    halves: &Halves,
) -> Result<(), CudaError> {
    let e = args.experts;
    let (used, inner, hidden) = (e.used as usize, e.inner as usize, e.hidden as usize);
    let all = args.all as usize;
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
    (args.per_item, args.shared_items) = (per_item as u32, 1);
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
    mut args: HalfExpertsArgs,
    halves: &Halves,
) -> Result<(), CudaError> {
    let e = args.experts;
    (args.per_item, args.shared_items) = (wide::VECTORS as u32, 1);
    group(device, kernels, &args)?;
    let shared_items = rows.div_ceil(wide::VECTORS);
    let items = most_items(rows, e.used as usize, args.all as usize, wide::VECTORS) - shared_items;
    let all = args;
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
    let x = if wanted_by(e.gate.first.format) { args.numbers.halves } else { args.x };
    let vectors = [([x, args.x], e.hidden, e.used + 1), ([args.middle; 2], e.inner, 1)];
    let parts = [Part::ExpertsIn, Part::ExpertsOut].into_iter();
    for (((part, args), tiles), ([x, shared_x], width, per_row)) in
        parts.zip([input, output]).zip(tiles).zip(vectors)
    {
        // The kernels are the same for both parts, so their names do not tell.
        device.enter(part);
        let whole = part == Part::ExpertsOut && InnerNumbers::wanted_by(args.upper.first.format);
        if whole {
            number_inner(device, kernels, rows, &all)?;
        }
        let of = PackArgs {
            x,
            shared_x,
            to: halves.packed,
            items: args.items,
            order: args.order,
            rows: rows as u32,
            width,
            per_row,
            shared_items: args.shared_items,
            format: args.upper.first.format,
            shared_format: args.shared_upper.format,
        };
        wide::pack(device, kernels, items + shared_items, &of)?;
        let shared = WideArgs { only_shared: 1, ..args };
        let format = args.shared_upper.format;
        wide::launch(device, kernels, format, [tiles, shared_items, 1], &shared)?;
        match whole {
            true => wide::launch_whole(device, kernels, [tiles, items, 1], &args)?,
            false => {
                let format = args.upper.first.format;
                wide::launch(device, kernels, format, [tiles, items, 1], &args)?;
            }
        }
    }
    join(device, kernels, rows, &args)
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
fn group(device: &Device, kernels: &Kernels, args: &HalfExpertsArgs) -> Result<(), CudaError> {
    let shared = 2 * (args.all as usize + 1) * size_of::<u32>();
    device.launch(kernels, Kernel::GroupPairs, [1, 1, 1], 1024, shared, args)
}

/// Threads of a block that adds up outputs.
const JOIN_THREADS: usize = 128;

/// Adds up each row's outputs.
fn join(
    device: &Device,
    kernels: &Kernels,
    rows: usize,
    args: &HalfExpertsArgs,
) -> Result<(), CudaError> {
    let grid = [(args.experts.hidden as usize).div_ceil(4 * JOIN_THREADS), rows, 1];
    device.launch(kernels, Kernel::JoinExperts, grid, JOIN_THREADS as u32, 0, args)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_of_few_rows_fit_whatever_the_published_width() {
        for (most, hidden, wanted) in
            [((113 << 10) - STATIC_SHARED, 4096, 3), (MOST_SHARED, 4096, 1), (MOST_SHARED, 7168, 1)]
        {
            for vectors in [1, ITEM_VECTORS] {
                let rooms = FEW_WARPS * ROOM;
                let passes = most_passes(most, rooms, hidden, vectors);
                assert!(passes >= wanted, "{passes} passes, {hidden}, {vectors}");
                let tiles = tiles(hidden) * passes;
                assert!(rooms + sums(tiles, hidden, vectors) <= most, "{hidden}, {vectors}");
            }
        }
    }

    /// What is taken here must be launched on every card, for one row and for several.
    #[test]
    fn experts_whose_sums_have_no_room_are_left_to_others() {
        let shape = |cols: usize| MatrixRef {
            format: Format::Q8_0 as u32,
            cols: cols as u32,
            ..MatrixRef::default()
        };
        let args = |used: usize, inner: usize, hidden: usize| {
            let stack = |cols| StackRef { first: shape(cols), ..StackRef::default() };
            let (into, out) = (hidden, inner);
            ExpertsArgs {
                gate: stack(into),
                up: stack(into),
                down: stack(out),
                shared_gate: shape(into),
                shared_up: shape(into),
                shared_down: shape(out),
                used: used as u32,
                inner: inner as u32,
                hidden: hidden as u32,
                ..ExpertsArgs::default()
            }
        };
        for (used, inner, here) in [
            (6, 2048, true),
            (8, 3072, true),
            (9, 24_576, true),
            (10, 24_576, false),
            (29, 8192, true),
            (30, 8192, false),
            (32, 7168, true),
            (33, 256, false),
        ] {
            assert_eq!(suits(&args(used, inner, 4096)), here, "{used} of {inner}");
        }
        let widest = crate::hyper::WIDEST;
        assert!(FEW_WARPS * ROOM + sums(tiles(widest), widest, ITEM_VECTORS) <= MOST_SHARED);
    }
}
