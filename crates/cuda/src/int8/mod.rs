//! Quantised weights times eight-bit activations: the fast way. Whoever makes a vector also quantises
//! it, so that its many readers find it ready.

use ds4_quant::Format;

use crate::{
    device::{Args, Device, Kernel, Kernels, Words},
    experts::ExpertsArgs,
    matvec::{Product, ProductList},
    options::CudaError,
};

/// Values under one scale.
pub const GROUP: usize = 32;
/// Warps of a block.
const WARPS: usize = 8;
/// Rows of a matrix from which on a warp takes four.
const MANY_ROWS: usize = 16384;

/// Vectors in eight bits; all zero where there are none.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Quantised {
    /// `[rows, width]`.
    pub codes: u64,
    /// `[rows, width / 32]`.
    pub scales: u64,
    /// `[rows, width / 16]`.
    pub sums: u64,
}

/// A product whose input, or output, may be quantised.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Product8 {
    product: Product,
    x: Quantised,
    y: Quantised,
    rows_per_warp: u32,
    unused: u32,
}

// SAFETY: numbers without padding.
unsafe impl Words for Product8 {}

impl Product8 {
    /// A product with its input as eight bits, if it has that form.
    pub fn new(product: Product, x: Quantised) -> Product8 {
        // With so many rows the card is full however many a warp takes; four at once read the input
        // once and have more loads under way.
        let rows = product.rows() as usize;
        let many = rows >= MANY_ROWS && rows.is_multiple_of(GROUP);
        let rows_per_warp = if many { 4 } else { 1 };
        Product8 { product, x, rows_per_warp, ..Product8::default() }
    }

    /// The same, whose output is wanted in eight bits too.
    pub fn quantising(self, y: Quantised) -> Product8 {
        let fits = self.product.rows().is_multiple_of(GROUP as u32);
        let fast = self.product.format() == Format::Q8_0 as u32 && self.x.codes != 0;
        match y.codes != 0 && fits && fast {
            true => Product8 { y, rows_per_warp: 4, ..self },
            false => self,
        }
    }

    /// Whether the output will be there in eight bits.
    pub fn quantises(&self) -> bool {
        self.y.codes != 0
    }

    /// The product in full precision.
    pub fn plain(&self) -> Product {
        self.product
    }

    /// As many blocks as it needs, beginning with this one.
    pub fn place(&mut self, first_block: usize) -> usize {
        self.product.place(first_block);
        (self.product.rows() as usize).div_ceil(WARPS * self.rows_per_warp as usize)
    }
}

#[repr(C)]
#[derive(Clone, Copy)]
struct ProductsArgs {
    products: u64,
    count: u32,
    rows: u32,
}

// SAFETY: mirrors the kernel's; the list lives with the weights, what it names with the scratch.
unsafe impl Args for ProductsArgs {}

/// Does the products for `rows` rows of the batch.
pub fn multiply(
    device: &Device,
    kernels: &Kernels,
    list: &ProductList,
    rows: usize,
) -> Result<(), CudaError> {
    let args = ProductsArgs { products: list.address, count: list.count, rows: rows as u32 };
    // So many rows of a batch share one reading of the weights.
    let (kernel, together) = match rows {
        1 => (Kernel::Products8Bit1, 1),
        2..=4 => (Kernel::Products8Bit4, 4),
        _ => (Kernel::Products8Bit8, 8),
    };
    let tiles = rows.div_ceil(together);
    device.launch(kernels, kernel, [list.blocks, tiles, 1], 32 * WARPS as u32, 0, &args)
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Experts8Args {
    experts: ExpertsArgs,
    x: Quantised,
    middle: Quantised,
}

// SAFETY: mirrors the kernel's; the addresses are those of the weights and of the scratch.
unsafe impl Args for Experts8Args {}

/// Whether there are kernels for experts in these formats: routed gate, up, down, then shared.
pub fn knows(formats: [u32; 6]) -> bool {
    let [iq2, q2, q8] = [Format::Iq2Xxs, Format::Q2K, Format::Q8_0].map(|format| format as u32);
    formats == [iq2, iq2, q2, q8, q8, q8]
}

/// Runs the experts of `rows` rows.
pub fn experts(
    device: &Device,
    kernels: &Kernels,
    rows: usize,
    experts: &ExpertsArgs,
    x: Quantised,
    middle: Quantised,
) -> Result<(), CudaError> {
    let args = Experts8Args { experts: *experts, x, middle };
    let (used, inner) = (experts.used as usize, experts.inner as usize);
    let threads = 32 * WARPS as u32;
    let grid = [inner / GROUP, used + 1, rows];
    device.launch(kernels, Kernel::Experts8In, grid, threads, 0, &args)?;
    let grid = [(experts.hidden as usize).div_ceil(WARPS), rows, 1];
    device.launch(kernels, Kernel::Experts8Out, grid, threads, 0, &args)
}
