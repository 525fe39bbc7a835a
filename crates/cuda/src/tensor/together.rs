//! A few rows: products of Q8_0 and halves in one launch, where blocks of a cluster share the columns.

use super::{
    FEW_WARPS, HalfProduct, MOST_PRODUCTS, MOST_SHARED, SEGMENT, TILE,
    one::{PIECE_ROOM, blocks_of, share_out, tile},
    place, segments,
};
use crate::{
    device::{Args, Device, DeviceInfo, Kernel, Kernels},
    options::CudaError,
};

/// Blocks of the largest clusters, which every card has that has any.
const MOST_COMPANY: usize = 8;
/// Segments of a row that a block has at most.
const SEGMENTS: usize = 2;
/// Blocks that a multiprocessor holds at a time.
const RESIDENT: usize = 2;
/// Shared memory of a block whatever it does: its warps' pieces, and the box where sums are counted.
const ALWAYS: usize = FEW_WARPS * PIECE_ROOM + 16;

/// A product, and how its work is shared out.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct TogetherProduct {
    of: HalfProduct,
    tiles: u32,
    group_clusters: u32,
}

/// A list as the kernels want it.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct TogetherProductsArgs {
    products: [TogetherProduct; MOST_PRODUCTS],
    rows: u32,
    unused: u32,
}

// SAFETY: mirrors the kernels'; what it names lives with the weights and the scratch.
unsafe impl Args for TogetherProductsArgs {}

/// A list for a few rows.
#[derive(Clone, Copy, Debug)]
pub struct TogetherList {
    args: TogetherProductsArgs,
    /// Blocks of a cluster.
    company: usize,
    clusters: usize,
    /// Shared memory of a block for each eight rows.
    each_eight: usize,
}

impl TogetherList {
    /// The list for a card, if it has clusters and the kernels know all products.
    pub fn new(card: &DeviceInfo, products: &[HalfProduct]) -> Option<TogetherList> {
        let known = |p: &HalfProduct| p.x != 0 && tile(p).is_some();
        if !card.has_much_shared() || products.len() > MOST_PRODUCTS || !products.iter().all(known)
        {
            return None;
        }
        let widest = products.iter().map(|p| segments(p.product.cols() as usize)).max()?;
        let company = widest.div_ceil(SEGMENTS).next_power_of_two();
        if company > MOST_COMPANY {
            return None;
        }
        let of_eight = |p: &HalfProduct, tiles: usize| each_eight(p, tiles, company);
        let fits = |p: &HalfProduct, tiles| ALWAYS + 2 * of_eight(p, tiles) <= MOST_SHARED;
        let most = RESIDENT * (card.multiprocessors / company);
        let tiles = share_out(products, most, fits);
        let each_eight = products.iter().zip(&tiles).map(|(p, tiles)| of_eight(p, *tiles)).max()?;
        if ALWAYS + 2 * each_eight > MOST_SHARED {
            return None;
        }
        let mut placed = products.to_vec();
        let mut each = tiles.iter();
        let clusters = place(&mut placed, |p| each.next().map_or(0, |tiles| blocks_of(p, *tiles)));
        let products = [nowhere(); MOST_PRODUCTS];
        let mut args = TogetherProductsArgs { products, rows: 0, unused: 0 };
        for ((to, of), tiles) in args.products.iter_mut().zip(placed).zip(tiles) {
            let of_group = of.product.group_rows() as usize / (TILE * tiles);
            *to =
                TogetherProduct { of, tiles: tiles as u32, group_clusters: of_group.max(1) as u32 };
        }
        Some(TogetherList { args, company, clusters, each_eight })
    }

    /// Does the products for up to 16 rows.
    pub fn multiply(
        &self,
        device: &Device,
        kernels: &Kernels,
        rows: usize,
    ) -> Result<(), CudaError> {
        let (kernel, eights) = match rows {
            ..=8 => (Kernel::HalfProductsTogether8, 1),
            _ => (Kernel::HalfProductsTogether16, 2),
        };
        let args = TogetherProductsArgs { rows: rows as u32, ..self.args };
        let (grid, shared) = ([self.company, self.clusters, 1], ALWAYS + eights * self.each_eight);
        device.launch_clusters(kernels, kernel, grid, 32 * FEW_WARPS as u32, shared, &args)
    }
}

/// What lies behind the last product of a list: no cluster is its.
fn nowhere() -> TogetherProduct {
    let mut none = TogetherProduct::default();
    none.of.product.place(u32::MAX as usize);
    none
}

/// Shared memory of a block for eight vectors: their columns that are its, and the sums of the tiles that it adds up
/// of so many.
fn each_eight(p: &HalfProduct, tiles: usize, company: usize) -> usize {
    let segments = segments(p.product.cols() as usize);
    let line = 2 * SEGMENT * if segments > company { SEGMENTS } else { 1 } + 16;
    8 * (line + tiles.div_ceil(company) * segments * TILE * size_of::<f32>())
}

#[cfg(test)]
mod tests {
    use ds4_quant::Format;

    use super::*;
    use crate::matvec::{MatrixRef, Product};

    fn product(format: Format, rows: u32, cols: u32, groups: usize) -> HalfProduct {
        let matrix = MatrixRef { format: format as u32, rows, cols, ..MatrixRef::default() };
        HalfProduct::new(Product::grouped(matrix, 0, 0, groups), 1)
    }

    fn card(capability: u32) -> DeviceInfo {
        DeviceInfo { name: String::new(), memory: 0, capability, multiprocessors: 132 }
    }

    #[test]
    fn two_blocks_to_a_multiprocessor_do_a_large_product_at_once() {
        let queries = [product(Format::Q8_0, 32768, 1024, 1)];
        let groups = [product(Format::Q8_0, 8192, 4096, 8)];
        let outputs = [product(Format::Q8_0, 4096, 8192, 1)];
        for (products, company) in [(&queries, 1), (&groups, 4), (&outputs, 8)] {
            let list = TogetherList::new(&card(90), products).unwrap();
            assert_eq!((list.company, list.company * list.clusters), (company, 256));
            assert_eq!(list.args.products[0].tiles, 8);
            assert!(ALWAYS + 2 * list.each_eight < 112 << 10);
        }
    }

    #[test]
    fn what_cannot_be_done_together_is_not_listed() {
        let outputs = [product(Format::Q8_0, 4096, 8192, 1)];
        assert!(TogetherList::new(&card(80), &outputs).is_none());
        assert!(TogetherList::new(&card(120), &outputs).is_none());
        assert!(TogetherList::new(&card(90), &[product(Format::Q2K, 256, 256, 1)]).is_none());
        assert!(TogetherList::new(&card(90), &[product(Format::F16, 16, 8448, 1)]).is_none());
        // Where not all finds room at once, clusters follow one another.
        let vocabulary = [product(Format::Q8_0, 129_280, 4096, 1)];
        assert!(TogetherList::new(&card(90), &vocabulary).unwrap().clusters > 66);
    }
}
