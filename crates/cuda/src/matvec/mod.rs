//! Matrices times vectors: several in one launch, a warp to a row of weights.
//!
//! The order of a sum depends on the row's columns alone, so a row of the batch gets the same bits
//! whatever its company.

use crate::{
    device::{Args, Device, Kernel, Kernels, Words},
    options::CudaError,
};

/// Warps of a block.
const WARPS: usize = 8;
/// Rows of a batch that share one reading of the weights.
const TOGETHER: usize = 8;

/// A matrix on the card.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct MatrixRef {
    /// Address of the codes.
    pub codes: u64,
    /// Address of what scales them, where that does not lie in tiles.
    pub scales: u64,
    /// `ds4_quant::Format`, by number.
    pub format: u32,
    /// Outputs.
    pub rows: u32,
    /// Inputs.
    pub cols: u32,
    /// 1 where it lies in tiles, see `weights.cuh`.
    pub tiled: u32,
}

/// Matrices of one shape and format, one behind the other.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct StackRef {
    /// The first.
    pub first: MatrixRef,
    /// Bytes from the codes of one to those of the next.
    pub codes_stride: u64,
    /// Bytes from the scales of one to those of the next.
    pub scales_stride: u64,
}

/// A matrix and the vectors that it turns into others.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Product {
    matrix: MatrixRef,
    x: u64,
    y: u64,
    x_stride: u32,
    y_stride: u32,
    group_rows: u32,
    group_stride: u32,
    first_block: u32,
    unused: u32,
}

// SAFETY: numbers without padding.
unsafe impl Words for Product {}

impl Product {
    /// `matrix` times each of the vectors at `x`, which follow one another, as do the results at `y`.
    pub fn new(matrix: MatrixRef, x: u64, y: u64) -> Product {
        Product {
            matrix,
            x,
            y,
            x_stride: matrix.cols,
            y_stride: matrix.rows,
            group_rows: matrix.rows,
            ..Product::default()
        }
    }

    /// As `new`, for a matrix whose rows fall into groups with inputs of their own.
    pub fn grouped(matrix: MatrixRef, x: u64, y: u64, groups: usize) -> Product {
        Product {
            x_stride: matrix.cols * groups as u32,
            group_rows: matrix.rows / groups as u32,
            group_stride: matrix.cols,
            ..Product::new(matrix, x, y)
        }
    }

    /// Says which block of the launch is its first.
    pub fn place(&mut self, first_block: usize) {
        self.first_block = first_block as u32;
    }

    /// As it is, with so many values from one vector to the next, and from one result to the next.
    pub fn strided(self, x_stride: usize, y_stride: usize) -> Product {
        Product { x_stride: x_stride as u32, y_stride: y_stride as u32, ..self }
    }

    /// As it is, but its output is not wanted as floats.
    pub fn without_floats(self) -> Product {
        Product { y: 0, ..self }
    }

    /// Outputs.
    pub fn rows(&self) -> u32 {
        self.matrix.rows
    }

    /// Inputs.
    pub fn cols(&self) -> u32 {
        self.matrix.cols
    }

    /// From one vector to the next.
    pub fn x_stride(&self) -> u32 {
        self.x_stride
    }

    /// How many outputs share an input.
    pub fn group_rows(&self) -> u32 {
        self.group_rows
    }

    /// Format of the weights, by number.
    pub fn format(&self) -> u32 {
        self.matrix.format
    }
}

/// Products that are launched together, listed on the card.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProductList {
    /// Of the list.
    pub address: u64,
    /// How many products.
    pub count: u32,
    /// How many blocks all of them need.
    pub blocks: usize,
}

impl ProductList {
    /// The same list, at an address so many bytes further on.
    pub fn further(self, bytes: u64) -> ProductList {
        ProductList { address: self.address + bytes, ..self }
    }

    /// Lists the products; `put` brings the list to the card and gives its address.
    pub fn new(
        mut products: Vec<Product>,
        put: impl FnOnce(&[Product]) -> Result<u64, CudaError>,
    ) -> Result<ProductList, CudaError> {
        let mut blocks = 0;
        for product in &mut products {
            product.place(blocks);
            blocks += (product.matrix.rows as usize).div_ceil(WARPS);
        }
        Ok(ProductList { address: put(&products)?, count: products.len() as u32, blocks })
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
    let (kernel, tiles) = match rows {
        1 => (Kernel::Products1, 1),
        _ => (Kernel::Products8, rows.div_ceil(TOGETHER)),
    };
    device.launch(kernels, kernel, [list.blocks, tiles, 1], 32 * WARPS as u32, 0, &args)
}

#[cfg(test)]
pub mod samples;
#[cfg(test)]
mod tests;
