//! The experts on tensor cores: one row's side by side, several rows' sorted by expert.

use super::{ExpertsArgs, RouteArgs, flash, items, many, route, route_shared, shared::Shared};
use crate::{
    device::{Args, Device, Kernel, Kernels},
    options::CudaError,
    scratch::Halves,
    tensor::{
        self, FEW, FEW_WARPS, FewProductsArgs, HalfProductList, MOST_SHARED, ROOM, STATIC_SHARED,
        bytes::{InnerNumbers, Numbers},
        knows, segments, tiles,
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
    /// The same for pairs that are cut into items of so many, the shared expert's pairs in one of the ways that the
    /// kernels know.
    pub fn cut(self, per_item: usize, shared_items: u32) -> HalfExpertsArgs {
        HalfExpertsArgs { per_item: per_item as u32, shared_items, ..self }
    }

    /// How many routed experts there are.
    pub fn all(&self) -> usize {
        self.all as usize
    }

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
    ((Numbers::wanted_by(gate) && hidden.is_multiple_of(256)) || knows(gate, hidden))
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
    many::prepare(kernels)?;
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
    let few_each = takes_few(experts, rows);
    let mut args = HalfExpertsArgs {
        experts: *experts,
        x: halves.x,
        numbers: halves.numbers.of(few_each),
        inner_numbers: halves.inner_numbers.of(few_each),
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
        match few_each {
            true => many::run_few_each(device, kernels, rows, args)?,
            false => many::run(device, kernels, rows, args, halves)?,
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
        many::few_outputs(device, kernels, rows, &args)?;
        many::join(device, kernels, rows, &args)?;
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
        many::group(device, kernels, &args)?;
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
        many::few_outputs(device, kernels, rows, &args)?;
    } else {
        let grid = [hidden.div_ceil(16 * FEW_WARPS), most_items, 1];
        device.launch(kernels, Kernel::HalfExpertsOut8, grid, threads, FEW_WARPS * ROOM, &args)?;
    }
    if !beside.adds_parts {
        many::join(device, kernels, rows, &args)?;
    }
    Ok(beside.adds_parts)
}

/// Whether experts take a few vectors at a time, of so many rows: always those of up to 16.
pub fn takes_few(e: &ExpertsArgs, rows: usize) -> bool {
    let known = items::knows_input(e.gate.first.format)
        && items::knows_output(e.down.first.format, e.hidden as usize);
    rows <= FEW || (known && rows * e.used as usize <= items::MOST_CHOICES)
}

#[cfg(test)]
mod tests {
    use ds4_quant::Format;

    use super::*;
    use crate::matvec::{MatrixRef, StackRef};

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
