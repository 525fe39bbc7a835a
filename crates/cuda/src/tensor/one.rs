//! One row alone: products of Q8_0 and halves in one launch, all of whose blocks run at the same time. They take
//! half of a multiprocessor, two of them, so that the next kernel's find room beside them.

use ds4_quant::Format;

use super::{
    BLOCK, FEW_WARPS, HalfProduct, MOST_PRODUCTS, MOST_SHARED, TILE, place, segments, tile_bytes,
};
use crate::{
    device::{Args, Device, Kernel, Kernels},
    options::CudaError,
};

/// What a warp has for a piece of weights.
pub const PIECE_ROOM: usize = tile_bytes(Format::Q8_0);
/// Blocks that a multiprocessor holds at a time.
const RESIDENT: usize = 2;

/// A product, and how its work is shared out.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct OneProduct {
    of: HalfProduct,
    tiles: u32,
    inverse: u32,
    onward: [u32; 2],
    group_blocks: u32,
    unused: u32,
}

/// A vector that is divided by its root mean square before it is multiplied.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct OneNorm {
    /// The vector, as floats.
    pub x: u64,
    /// What it is multiplied with then.
    pub weight: u64,
    /// What is added to the mean of the squares.
    pub eps: f32,
    beside: u32,
}

impl OneNorm {
    /// That of a vector.
    pub fn new(x: u64, weight: u64, eps: f32) -> OneNorm {
        OneNorm { x, weight, eps, beside: 0 }
    }
}

/// A list as the kernel wants it.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct OneProductsArgs {
    products: [OneProduct; MOST_PRODUCTS],
    norm: OneNorm,
}

// SAFETY: mirrors the kernel's; what it names lives with the weights and the scratch.
unsafe impl Args for OneProductsArgs {}

/// A list for one row.
#[derive(Clone, Copy, Debug)]
pub struct OneList {
    kernel: Kernel,
    args: OneProductsArgs,
    blocks: usize,
    shared: usize,
}

impl OneList {
    /// The list for a card of so many multiprocessors, if the kernel knows all products.
    pub fn new(products: &[HalfProduct], multiprocessors: usize) -> Option<OneList> {
        let known = |p: &HalfProduct| p.x != 0 && tile(p).is_some();
        if products.len() > MOST_PRODUCTS || !products.iter().all(known) {
            return None;
        }
        let tiles = share_out(products, RESIDENT * multiprocessors, fits);
        let shared = products.iter().zip(&tiles).map(|(p, tiles)| shared(p, *tiles)).max()?;
        if shared > MOST_SHARED {
            return None;
        }
        let mut placed = products.to_vec();
        let mut each = tiles.iter();
        let blocks = place(&mut placed, |p| each.next().map_or(0, |tiles| blocks_of(p, *tiles)));
        let mut args =
            OneProductsArgs { products: [nowhere(); MOST_PRODUCTS], norm: OneNorm::default() };
        for ((to, of), tiles) in args.products.iter_mut().zip(placed).zip(tiles) {
            *to = OneProduct::new(of, tiles);
        }
        Some(OneList { kernel: Kernel::HalfProducts1, args, blocks, shared })
    }

    /// The list of one product whose blocks divide its vector by its root mean square, if there is room.
    pub fn normed(
        product: HalfProduct,
        norm: OneNorm,
        multiprocessors: usize,
    ) -> Option<OneList> {
        let OneList { args, blocks, shared, .. } = OneList::new(&[product], multiprocessors)?;
        // The vector's values and what they are multiplied with.
        let shared = shared + 2 * size_of::<f32>() * product.product.cols() as usize;
        let args = OneProductsArgs { norm, ..args };
        let list = OneList { kernel: Kernel::HalfQueries1, args, blocks, shared };
        (shared <= MOST_SHARED).then_some(list)
    }

    /// The same beside the kernels before it: its input was there before the first of them began.
    pub fn beside(mut self) -> OneList {
        self.args.norm.beside = 1;
        self
    }

    /// Does the products.
    pub fn multiply(&self, device: &Device, kernels: &Kernels) -> Result<(), CudaError> {
        let (grid, threads) = ([self.blocks, 1, 1], 32 * FEW_WARPS as u32);
        device.launch(kernels, self.kernel, grid, threads, self.shared, &self.args)
    }
}

impl OneProduct {
    fn new(of: HalfProduct, tiles: usize) -> OneProduct {
        let cols = of.product.cols() as usize;
        let (columns, segments) = (cols / BLOCK, segments(cols));
        let (far, step) = (FEW_WARPS / segments, FEW_WARPS % segments);
        // The last segment of a row may have one block of columns only.
        let (onward, short) = (far * columns + 2 * step, 2 * segments - columns);
        let bytes = |blocks| (tile(&of).unwrap_or(0) * blocks) as u32;
        OneProduct {
            of,
            tiles: tiles as u32,
            inverse: 65536u32.div_ceil(segments as u32),
            onward: [bytes(onward), bytes(onward - short)],
            group_blocks: (of.product.group_rows() as usize / (TILE * tiles)).max(1) as u32,
            unused: 0,
        }
    }
}

/// What lies behind the last product of a list: no block is its.
fn nowhere() -> OneProduct {
    let mut none = OneProduct::default();
    none.of.product.place(u32::MAX as usize);
    none
}

/// Bytes of a tile of a product, if the kernel knows its format.
pub fn tile(p: &HalfProduct) -> Option<usize> {
    let known = [Format::Q8_0, Format::F16].into_iter();
    known
        .map(|format| (format as u32, tile_bytes(format)))
        .find_map(|(format, bytes)| (format == p.product.format()).then_some(bytes))
}

/// Blocks of a product, each of which takes so many tiles.
pub fn blocks_of(p: &HalfProduct, tiles: usize) -> usize {
    (p.product.rows() as usize).div_ceil(TILE * tiles)
}

/// Shared memory of a block: its warps' pieces, the vector, and the sums of so many tiles.
fn shared(p: &HalfProduct, tiles: usize) -> usize {
    let cols = p.product.cols() as usize;
    FEW_WARPS * PIECE_ROOM + 2 * cols + tiles * segments(cols) * TILE * size_of::<f32>()
}

/// Whether a block has shared memory for so many tiles.
fn fits(p: &HalfProduct, tiles: usize) -> bool {
    shared(p, tiles) <= MOST_SHARED
}

/// How many tiles a block of each product takes, so that about `most` blocks are enough: those that are asked for
/// the fewest bytes take more of them, as far as they fit.
pub fn share_out(
    products: &[HalfProduct],
    most: usize,
    fits: impl Fn(&HalfProduct, usize) -> bool,
) -> Vec<usize> {
    let mut shares = vec![1; products.len()];
    loop {
        let blocks: usize = products.iter().zip(&shares).map(|(p, n)| blocks_of(p, *n)).sum();
        if blocks <= most {
            return shares;
        }
        let larger = products.iter().zip(&shares).enumerate().filter_map(|(i, (p, share))| {
            let next = larger(p, *share).filter(|next| fits(p, *next))?;
            Some((next * tile(p)? * p.product.cols() as usize, i, next))
        });
        let Some((_, i, next)) = larger.min() else { return shares };
        shares[i] = next;
    }
}

/// The next larger share of a product, if any: a block does not cross from one group of rows to the next.
fn larger(p: &HalfProduct, share: usize) -> Option<usize> {
    let all = (p.product.rows() as usize).div_ceil(TILE);
    let group = p.product.group_rows() as usize / TILE;
    let whole = |n: &usize| p.product.group_rows() == p.product.rows() || group.is_multiple_of(*n);
    (share + 1..=all).find(whole)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matvec::{MatrixRef, Product};

    fn product(format: Format, rows: u32, cols: u32, groups: usize) -> HalfProduct {
        let matrix = MatrixRef { format: format as u32, rows, cols, ..MatrixRef::default() };
        HalfProduct::new(Product::grouped(matrix, 0, 0, groups), 1)
    }

    /// Goes the way of each warp of a block, as the kernel does.
    #[test]
    fn warps_meet_every_segment_of_their_tiles() {
        for columns in 1..=super::super::WIDEST / BLOCK {
            let of = product(Format::F16, 16 * 5, (columns * BLOCK) as u32, 1);
            let one = OneProduct::new(of, 5);
            let (segments, inverse) = (segments(columns * BLOCK), one.inverse as usize);
            let step = FEW_WARPS - ((FEW_WARPS * inverse) >> 16) * segments;
            for warp in 0..FEW_WARPS {
                let tile = (warp * inverse) >> 16;
                let mut segment = warp - tile * segments;
                let mut at = (tile * columns + 2 * segment) * TILE * 512;
                for item in (warp..5 * segments).step_by(FEW_WARPS) {
                    let (tile, wanted) = (item / segments, item % segments);
                    assert_eq!(segment, wanted, "{columns} blocks, item {item}");
                    assert_eq!(at, (tile * columns + 2 * wanted) * TILE * 512, "{columns}, {item}");
                    segment += step;
                    let around = segment >= segments;
                    at += one.onward[usize::from(around)] as usize;
                    segment -= if around { segments } else { 0 };
                }
            }
        }
    }

    #[test]
    fn blocks_are_asked_for_about_as_many_bytes_and_run_at_once() {
        let queries = [product(Format::Q8_0, 32768, 1024, 1), product(Format::F16, 8192, 1024, 1)];
        assert_eq!(share_out(&queries, 264, fits), [12, 6]);
        let groups = [product(Format::Q8_0, 8192, 4096, 8)];
        assert_eq!(share_out(&groups, 264, fits), [2]);
        assert_eq!(share_out(&groups, 200, fits), [4], "no block crosses into the next group");
        let outputs = [product(Format::Q8_0, 4096, 8192, 1)];
        assert_eq!(share_out(&outputs, 264, fits), [1]);
        for list in [&queries[..], &groups, &outputs] {
            let list = OneList::new(list, 132).unwrap();
            assert!(list.blocks <= 264 && list.shared <= 55 << 10, "{}", list.shared);
        }
        let vocabulary = [product(Format::Q8_0, 129_280, 4096, 1)];
        assert_eq!(OneList::new(&vocabulary, 132).unwrap().blocks, 261);
        // Where there are too few multiprocessors, what fits is launched.
        let few = OneList::new(&vocabulary, 8).unwrap();
        assert!(few.shared <= MOST_SHARED && few.blocks > 16);
        assert!(OneList::new(&[product(Format::Q2K, 256, 256, 1)], 132).is_none());
    }
}
