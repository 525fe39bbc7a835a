//! Many vectors on Hopper, whose warps multiply in groups: 128 rows of weights and up to 128 vectors to a
//! block, and a kernel for each format.

use ds4_quant::Format;

use super::{
    HalfProduct, MANY_ROWS, TILE,
    bytes::{InnerNumbers, table_bytes, unit_bytes},
    tile_bytes,
};
use crate::{
    device::{Args, Device, DeviceInfo, Kernel, Kernels},
    hyper,
    matvec::{MatrixRef, ProductList, StackRef},
    options::CudaError,
};

/// Rows of weights that a block takes.
pub const ROWS: usize = MANY_ROWS;
/// Vectors that a block takes.
pub const VECTORS: usize = 128;
/// Threads of a block.
const THREADS: usize = 256;
/// Six runs of columns of the vectors.
const RING: usize = 6 * 64 * VECTORS * size_of::<u16>();
/// Vectors that are packed side by side.
pub const SIDE_BY_SIDE: usize = 8;
/// Columns that a block packs.
const PACK_COLUMNS: usize = 1024;
/// Blocks of columns of its rows that a warp has room for.
const DEPTH: usize = 2;
/// Blocks that take the same rows of weights come one after another, this many at most: so what blocks that run
/// at the same time read, vectors and weights, is little.
const NEIGHBOURS: usize = 16;

/// The kernels, by format.
const KERNELS: [(Format, Kernel); 8] = [
    (Format::F16, Kernel::WideF16),
    (Format::Q8_0, Kernel::WideQ80),
    (Format::Fp8Block, Kernel::WideFp8),
    (Format::Mxfp4, Kernel::WideMxfp4),
    (Format::Fp4Block, Kernel::WideFp4),
    (Format::Iq2Xxs, Kernel::WideIq2Xxs),
    (Format::Q2K, Kernel::WideQ2K),
    (Format::Q4K, Kernel::WideQ4K),
];

/// What the kernels want to know.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct WideArgs {
    /// Products of one format, if there are no items.
    pub products: u64,
    /// How many.
    pub count: u32,
    /// Of the batch.
    pub rows: u32,
    /// Items of experts; the first says how many follow.
    pub items: u64,
    /// Pairs of row and choice, by expert.
    pub order: u64,
    /// Gates, or output matrices.
    pub upper: StackRef,
    /// What gates are paired with, or output matrices once more.
    pub lower: StackRef,
    /// The shared expert's.
    pub shared_upper: MatrixRef,
    /// The shared expert's.
    pub shared_lower: MatrixRef,
    /// What they are multiplied with, packed.
    pub packed: u64,
    /// `[rows, used]`.
    pub weights: u64,
    /// What comes out of output matrices.
    pub outputs: u64,
    /// What comes out of gates, or 0.
    pub middle: u64,
    /// Experts that a row uses.
    pub used: u32,
    /// How many items, the last, are the shared expert's.
    pub shared_items: u32,
    /// 1: those, 0: the others.
    pub only_shared: u32,
    /// Clamp of routed experts.
    pub limit: f32,
    /// Clamp of the shared expert.
    pub shared_limit: f32,
    /// Padding.
    pub unused: u32,
    /// Of vectors that are whole numbers, where matrices are IQ2_XXS.
    pub units: u64,
    /// Sums and units of those that output matrices of Q2_K are multiplied with.
    pub inner: InnerNumbers,
}

// SAFETY: mirrors the kernels'; lists live with the weights, what they name and the rest with the scratch.
unsafe impl Args for WideArgs {}

/// Where vectors lie, and where they go packed.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct PackArgs {
    /// The vectors: of rows, or of pairs.
    pub x: u64,
    /// Those that the shared expert takes.
    pub shared_x: u64,
    /// Room for them, packed.
    pub to: u64,
    /// Items of experts; 0: rows as they come.
    pub items: u64,
    /// Pairs of row and choice, by expert.
    pub order: u64,
    /// How many rows.
    pub rows: u32,
    /// Values of a vector.
    pub width: u32,
    /// Pairs that share a vector.
    pub per_row: u32,
    /// How many items, the last, are the shared expert's.
    pub shared_items: u32,
    /// Of the weights.
    pub format: u32,
    /// Of the shared expert's.
    pub shared_format: u32,
}

// SAFETY: mirrors the kernel's; all that it names lives with the scratch.
unsafe impl Args for PackArgs {}

/// Packs the vectors of rows, or of so many items.
pub fn pack(
    device: &Device,
    kernels: &Kernels,
    items: usize,
    args: &PackArgs,
) -> Result<(), CudaError> {
    let groups = match args.items {
        0 => (args.rows as usize).div_ceil(SIDE_BY_SIDE),
        _ => items * VECTORS / SIDE_BY_SIDE,
    };
    let grid = [(args.width as usize).div_ceil(PACK_COLUMNS), groups, 1];
    device.launch(kernels, Kernel::PackVectors, grid, 256, 0, args)
}

/// Packed vectors, as many as there must be room for: those of rows, and those of experts, each of whose items
/// may leave a group of its own unfilled.
pub fn packed_bytes(rows: usize, width: usize, experts: (usize, usize, usize)) -> usize {
    let (pairs, all, inner) = experts;
    if rows <= super::MANY_VECTORS {
        return 0;
    }
    let items = all + 1 + rows * pairs / VECTORS + 1;
    let of_rows = rows.next_multiple_of(SIDE_BY_SIDE) * width;
    of_rows.max((rows * pairs + SIDE_BY_SIDE * items) * inner) * size_of::<u16>()
}

/// Whether a card has such products.
pub fn suits(card: &DeviceInfo) -> bool {
    card.is_hopper()
}

/// Whether there is a kernel for a format.
pub fn knows(format: u32) -> bool {
    KERNELS.iter().any(|(known, _)| *known as u32 == format)
}

/// Shared memory of a block.
fn shared(format: Format) -> usize {
    let bytes = tile_bytes(format) / TILE;
    let units = unit_bytes(format as u32, VECTORS, hyper::WIDEST);
    table_bytes(format as u32) + RING + DEPTH * ROWS * bytes + units
}

/// Asks for the shared memory that the kernels need.
pub fn prepare(kernels: &Kernels) -> Result<(), CudaError> {
    kernels.allow_shared(Kernel::WideWholeQ2K, whole_shared() as u32)?;
    KERNELS
        .into_iter()
        .try_for_each(|(format, kernel)| kernels.allow_shared(kernel, shared(format) as u32))
}

/// Shared memory of a block whose vectors are whole numbers for Q2_K: beside the rest two times their sums and units.
fn whole_shared() -> usize {
    let [sums, units] = InnerNumbers::pair_bytes(super::BLOCK);
    shared(Format::Q2K) + 2 * VECTORS * (sums + units)
}

/// Starts the kernel of output matrices of Q2_K whose vectors are whole numbers.
pub fn launch_whole(
    device: &Device,
    kernels: &Kernels,
    grid: [usize; 3],
    args: &WideArgs,
) -> Result<(), CudaError> {
    device.launch(kernels, Kernel::WideWholeQ2K, grid, THREADS as u32, whole_shared(), args)
}

/// Starts the kernel of a format; without a list of products in `args` it takes items.
pub fn launch(
    device: &Device,
    kernels: &Kernels,
    format: u32,
    grid: [usize; 3],
    args: &WideArgs,
) -> Result<(), CudaError> {
    let of = KERNELS.into_iter().find(|(known, _)| *known as u32 == format);
    of.map_or(Ok(()), |(format, kernel)| {
        device.launch(kernels, kernel, grid, THREADS as u32, shared(format), args)
    })
}

/// Products that are launched together: those of each format, and those that have no kernel here.
#[derive(Clone, Copy, Debug)]
pub struct Lists {
    by_format: [ProductList; KERNELS.len()],
    rest: ProductList,
    /// Where the vectors are that all of them but the rest are multiplied with, and how many values they have.
    x: u64,
    width: u32,
}

impl Lists {
    /// Lists the products; `append` puts some of them to where the card will find them.
    pub fn new(
        products: &[HalfProduct],
        mut append: impl FnMut(&[HalfProduct]) -> ProductList,
    ) -> Lists {
        let (x, width) = products.iter().find(|p| p.takes_halves()).map_or((0, 0), |p| p.input());
        let of = |product: &HalfProduct| {
            (product.takes_halves() && product.input() == (x, width))
                .then(|| product.plain().format())
        };
        let mut list = |pick: &dyn Fn(&&HalfProduct) -> bool| {
            append(&products.iter().filter(pick).copied().collect::<Vec<_>>())
        };
        Lists {
            by_format: KERNELS.map(|(format, _)| list(&|p| of(p) == Some(format as u32))),
            rest: list(&|p| !of(p).is_some_and(knows)),
            x,
            width,
        }
    }

    /// All lists, which `append` has counted from the beginning of the first, for their real beginning.
    pub fn at(self, address: u64) -> Lists {
        Lists {
            by_format: self.by_format.map(|list| list.further(address)),
            rest: self.rest.further(address),
            ..self
        }
    }

    /// Those that have no kernel here.
    pub fn rest(&self) -> ProductList {
        self.rest
    }

    /// Does the others for `rows` rows of the batch; there is room at `packed` for their vectors.
    pub fn multiply(
        &self,
        device: &Device,
        kernels: &Kernels,
        rows: usize,
        packed: u64,
    ) -> Result<(), CudaError> {
        let tiles = rows.div_ceil(VECTORS);
        let turns = tiles.div_ceil(NEIGHBOURS);
        KERNELS.iter().zip(&self.by_format).try_for_each(|((format, _), list)| {
            let ProductList { address, count, blocks } = *list;
            if count == 0 {
                return Ok(());
            }
            let rows = rows as u32;
            let (x, to, width, format_number) = (self.x, packed, self.width, *format as u32);
            let vectors =
                PackArgs { x, to, rows, width, format: format_number, ..PackArgs::default() };
            pack(device, kernels, 0, &vectors)?;
            let args = WideArgs { products: address, count, rows, packed, ..WideArgs::default() };
            let grid = [tiles.div_ceil(turns), blocks, turns];
            launch(device, kernels, *format as u32, grid, &args)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shared memory that the kernels have without asking.
    const STATIC: usize = 2 << 10;

    #[test]
    fn a_block_fits_into_a_multiprocessor() {
        for (format, _) in KERNELS {
            assert!(shared(format) + STATIC <= 227 << 10, "{format}");
        }
        assert!(whole_shared() + STATIC <= 227 << 10);
    }
}
