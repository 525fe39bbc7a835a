//! Matrices times vectors on tensor cores: weights come to shared memory tile by tile and are decoded to half
//! precision in registers, vectors come as halves from whoever makes them, sums are floats.
//!
//! A product is defined by its columns alone (`few.cu` says how), so one row, a few, and a long prompt get the same
//! bits. One row of Q8_0 and halves goes to `one`, up to 16 where the card has clusters to `together`; what those do
//! not know, up to 16, to the kernels of `few.cu`; more to `many.cu`, or on Hopper to `wide`.
//! Experts of two bits are multiplied with whole numbers, whose sums are exact however they come about: `bytes` says what
//! they are.

pub mod bytes;
mod one;
pub mod together;
pub mod wide;

use ds4_quant::Format;
use one::OneList;
pub use one::{OneNorm, OneQueries};
use together::TogetherList;

use crate::{
    device::{Args, Device, DeviceInfo, Kernel, Kernels, Words},
    matvec::{Product, ProductList},
    options::CudaError,
};

/// Columns that are decoded together; a matrix must have a multiple of them.
const BLOCK: usize = 256;
/// Columns of a segment of a sum.
const SEGMENT: usize = 512;
/// The widest matrices: the segments of a tile's sums must fit into shared memory.
const WIDEST: usize = 24 * BLOCK * 4;
/// Warps of a block that takes few vectors.
pub const FEW_WARPS: usize = 8;
/// Warps of a block that takes many.
pub const MANY_WARPS: usize = 4;
/// Rows of weights that a block takes for many vectors.
const MANY_ROWS: usize = 128;
/// Vectors that a block takes of many.
const MANY_VECTORS: usize = 64;
/// The most vectors that are few.
pub const FEW: usize = 16;

/// Shared memory that a warp has for pieces of weights.
pub const ROOM: usize = 2 * tile_bytes(Format::Q8_0);
/// Shared memory that kernels for few vectors have without asking, and that counts: short lists.
pub const STATIC_SHARED: usize = 256;
/// As much as they may ask for on every card.
pub const MOST_SHARED: usize = (99 << 10) - STATIC_SHARED;
/// Rows of a tile of weights, as they lie in memory and wait in shared memory: codes of a block of columns, then scales.
pub const TILE: usize = 16;

/// Bytes of a tile; 0 of a format that has none.
pub const fn tile_bytes(format: Format) -> usize {
    let row = match format {
        Format::F16 => 512,
        Format::Q8_0 => 256 + 16,
        Format::Fp8Block => 256,
        Format::Mxfp4 | Format::Fp4Block => 128 + 8,
        Format::Iq2Xxs => 64 + 8,
        Format::Q2K => 64 + 20,
        Format::Q4K => 128 + 16,
        _ => 0,
    };
    TILE * row
}

/// Shared memory of a block that takes `vectors` vectors: a block of columns of its rows and of the vectors.
pub fn many_shared(format: u32, vectors: usize) -> usize {
    let known = Format::ALL.into_iter().find(|known| *known as u32 == format);
    MANY_ROWS / TILE * known.map_or(0, tile_bytes) + vectors * BLOCK * size_of::<u16>()
}

/// How many segments a sum of so many columns has.
pub fn segments(cols: usize) -> usize {
    cols.div_ceil(SEGMENT)
}

/// How many tiles of 16 rows a block for few vectors has.
pub fn tiles(cols: usize) -> usize {
    FEW_WARPS / segments(cols).min(FEW_WARPS)
}

/// Whether matrices of this format and so many columns have a product here. IQ2_XXS is for experts.
pub fn knows(format: u32, cols: usize) -> bool {
    let not_here = [Format::F32, Format::Iq2Xxs].map(|format| format as u32);
    !not_here.contains(&format) && cols.is_multiple_of(BLOCK) && cols <= WIDEST
}

/// A product whose input, or output, may be halves.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct HalfProduct {
    product: Product,
    x: u64,
    y: u64,
}

// SAFETY: numbers without padding.
unsafe impl Words for HalfProduct {}

impl HalfProduct {
    /// A product with its input as halves at `x`, if it can be done here; as floats otherwise.
    pub fn new(product: Product, x: u64) -> HalfProduct {
        // A block does not cross from one group of rows to the next.
        let whole_groups = product.group_rows() == product.rows()
            || product.group_rows().is_multiple_of(MANY_ROWS as u32);
        let here = whole_groups && knows(product.format(), product.cols() as usize);
        HalfProduct { product, x: if here { x } else { 0 }, y: 0 }
    }

    /// The same, with its output as halves at `y` instead of floats, if it can be done here.
    pub fn halving(self, y: u64) -> HalfProduct {
        match self.x != 0 {
            true => HalfProduct { y, product: self.product.without_floats(), ..self },
            false => self,
        }
    }

    /// Whether the input is halves.
    pub fn takes_halves(&self) -> bool {
        self.x != 0
    }

    /// Where the input is, as halves, and how many values it is from one vector to the next.
    fn input(&self) -> (u64, u32) {
        (self.x, self.product.x_stride())
    }

    /// Whether the output is halves.
    pub fn halves(&self) -> bool {
        self.y != 0
    }

    /// The product in full precision.
    pub fn plain(&self) -> Product {
        self.product
    }

    /// Blocks for few rows.
    fn few_blocks(&self) -> usize {
        let per_block = match self.x != 0 {
            true => 16 * tiles(self.product.cols() as usize),
            false => FEW_WARPS,
        };
        (self.product.rows() as usize).div_ceil(per_block)
    }

    fn many_shared(&self) -> usize {
        if self.x == 0 { 0 } else { many_shared(self.product.format(), MANY_VECTORS) }
    }

    fn sums(&self) -> usize {
        let cols = self.product.cols() as usize;
        if self.x == 0 { 0 } else { tiles(cols) * segments(cols) * 16 * size_of::<f32>() }
    }
}

/// The most products that are launched together.
const MOST_PRODUCTS: usize = 8;

/// Products that are launched together.
#[derive(Clone, Copy, Debug)]
pub struct HalfProductList {
    /// For one row, where there is a kernel for all products.
    one: Option<OneList>,
    /// For a few, where there is one.
    together: Option<TogetherList>,
    few: FewProductsArgs,
    few_blocks: usize,
    many: ProductList,
    /// Where the card multiplies in groups of warps: for more vectors than a block of others takes.
    wide: Option<wide::Lists>,
    /// Room for the vectors that those are multiplied with.
    packed: u64,
    /// Bytes of shared memory for the sums of a vector.
    sums: usize,
    /// Bytes of shared memory of a block for many vectors.
    many_shared: usize,
    /// Whether all are of Q8_0, for which there are kernels.
    q8: bool,
}

impl HalfProductList {
    /// Lists the products for a card, where there is room at `packed` for many vectors; `put` brings the
    /// list to it and gives its address.
    pub fn new(
        card: &DeviceInfo,
        packed: u64,
        products: &[HalfProduct],
        put: impl FnOnce(&[HalfProduct]) -> Result<u64, CudaError>,
    ) -> Result<HalfProductList, CudaError> {
        let count = products.len();
        let mut few = FewProductsArgs {
            products: [HalfProduct::default(); MOST_PRODUCTS],
            count: count as u32,
            rows: 0,
        };
        let Some(room) = few.products.get_mut(..count) else {
            return Err(CudaError::TooManyProducts { count, most: MOST_PRODUCTS });
        };
        room.copy_from_slice(products);
        let few_blocks = place(room, HalfProduct::few_blocks);
        let sums = products.iter().map(HalfProduct::sums).max().unwrap_or(0);
        let q8 = products.iter().all(|p| p.x != 0 && p.product.format() == Format::Q8_0 as u32);
        let mut listed = Vec::new();
        let mut append = |products: &[HalfProduct]| append(&mut listed, products);
        let many = append(products);
        let wide = wide::suits(card).then(|| wide::Lists::new(products, append));
        let address = put(&listed)?;
        Ok(HalfProductList {
            one: OneList::new(card, products),
            together: TogetherList::new(card, products),
            few,
            few_blocks,
            many: many.further(address),
            wide: wide.map(|lists| lists.at(address)),
            packed,
            sums,
            many_shared: products.iter().map(HalfProduct::many_shared).max().unwrap_or(0),
            q8,
        })
    }

    /// The same behind a kernel that does not fill the card, see `OneList::spread`.
    pub fn spread(self, card: &DeviceInfo) -> HalfProductList {
        HalfProductList { one: self.one.map(|one| one.spread(card)), ..self }
    }

    /// The same before a kernel that has nothing to do ahead but to ask for weights, see `OneList::late`.
    pub fn late(self) -> HalfProductList {
        HalfProductList { one: self.one.map(OneList::late), ..self }
    }

    /// For a kernel that does the products of a few rows beside other things: the list, the blocks that
    /// it needs, the shared memory of one.
    pub fn few(&self, rows: usize) -> (FewProductsArgs, usize, usize) {
        let args = FewProductsArgs { rows: rows as u32, ..self.few };
        (args, self.few_blocks, FEW_WARPS * ROOM + rows.min(8) * self.sums)
    }
}

/// Puts products behind those that are listed, for blocks of many vectors.
fn append(listed: &mut Vec<HalfProduct>, products: &[HalfProduct]) -> ProductList {
    let first = listed.len();
    listed.extend_from_slice(products);
    let blocks = place(&mut listed[first..], |p| (p.product.rows() as usize).div_ceil(MANY_ROWS));
    let address = (first * size_of::<HalfProduct>()) as u64;
    ProductList { address, count: products.len() as u32, blocks }
}

/// Gives each product its blocks; the sum of them.
fn place(products: &mut [HalfProduct], mut blocks_of: impl FnMut(&HalfProduct) -> usize) -> usize {
    let mut blocks = 0;
    for product in products {
        product.product.place(blocks);
        blocks += blocks_of(product);
    }
    blocks
}

/// A list of products for many rows, as the kernel wants it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct ProductsArgs {
    products: u64,
    count: u32,
    rows: u32,
}

// SAFETY: mirrors the kernel's; the list lives with the weights, what it names with the scratch.
unsafe impl Args for ProductsArgs {}

/// The same for few rows, with the list in it.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct FewProductsArgs {
    products: [HalfProduct; MOST_PRODUCTS],
    count: u32,
    rows: u32,
}

// SAFETY: as above.
unsafe impl Args for FewProductsArgs {}

/// Asks for the shared memory that the kernels need.
pub fn prepare(device: &Device, kernels: &Kernels) -> Result<(), CudaError> {
    use Kernel::{
        HalfProducts8, HalfProducts8Q8, HalfProducts16, HalfProducts16Q8, HalfProductsMany,
        HalfProductsTogether8, HalfProductsTogether16,
    };
    if wide::suits(device.info()) {
        wide::prepare(kernels)?;
    }
    one::prepare(device, kernels)?;
    [
        HalfProducts8,
        HalfProducts8Q8,
        HalfProducts16,
        HalfProducts16Q8,
        HalfProductsTogether8,
        HalfProductsTogether16,
        HalfProductsMany,
    ]
    .into_iter()
    .try_for_each(|kernel| kernels.allow_shared(kernel, MOST_SHARED as u32))
}

/// Does the products for `rows` rows of the batch.
pub fn multiply(
    device: &Device,
    kernels: &Kernels,
    list: &HalfProductList,
    rows: usize,
) -> Result<(), CudaError> {
    if rows > FEW {
        let wide = list.wide.filter(|_| rows > MANY_VECTORS);
        if let Some(wide) = wide {
            wide.multiply(device, kernels, rows, list.packed)?;
        }
        let ProductList { address, count, blocks } = wide.map_or(list.many, |wide| wide.rest());
        let args = ProductsArgs { products: address, count, rows: rows as u32 };
        let grid = [rows.div_ceil(MANY_VECTORS), blocks, 1];
        let (threads, kernel) = (32 * MANY_WARPS as u32, Kernel::HalfProductsMany);
        return device.launch(kernels, kernel, grid, threads, list.many_shared, &args);
    }
    if let (1, Some(one)) = (rows, &list.one) {
        return one.multiply(device, kernels);
    }
    if let Some(together) = &list.together {
        return together.multiply(device, kernels, rows);
    }
    let (args, blocks, one) = list.few(rows);
    let two = one + (rows - rows.min(8)) * list.sums;
    let wide = rows > 8 && two <= MOST_SHARED;
    let kernel = match (wide, list.q8) {
        (false, false) => Kernel::HalfProducts8,
        (false, true) => Kernel::HalfProducts8Q8,
        (true, false) => Kernel::HalfProducts16,
        (true, true) => Kernel::HalfProducts16Q8,
    };
    let (tiles, shared) = if wide { (1, two) } else { (rows.div_ceil(8), one) };
    device.launch(kernels, kernel, [blocks, tiles, 1], 32 * FEW_WARPS as u32, shared, &args)
}

#[cfg(test)]
mod tests;
