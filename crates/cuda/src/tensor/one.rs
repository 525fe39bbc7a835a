//! One row alone: products of Q8_0 and halves in one launch, all of whose blocks run at the same time. One takes half
//! of a multiprocessor, so that the next kernel's finds room beside it.

use ds4_quant::Format;

use super::{BLOCK, HalfProduct, MOST_PRODUCTS, MOST_SHARED, TILE, place, segments, tile_bytes};
use crate::{
    device::{Args, Device, DeviceInfo, Kernel, Kernels},
    options::CudaError,
    rows::{self, KeepArgs},
};

/// What a warp has for a piece of weights.
pub const PIECE_ROOM: usize = tile_bytes(Format::Q8_0);
/// Warps of a block.
const WARPS: usize = 16;
/// More than half of a multiprocessor's shared memory.
const SPREAD_SHARED: usize = 115 << 10;
/// A row's jobs beside its queries, at most.
const MOST_JOBS: usize = 3;
/// Shared memory that jobs beside the queries have without asking, and that counts.
const JOBS_SHARED: usize = 4 << 10;

/// A product, and how its work is shared out.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct OneProduct {
    of: HalfProduct,
    tiles: u32,
    inverse: u32,
    onward: [u32; 2],
    group_blocks: u32,
    late: u32,
}

/// A list as the kernel wants it.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct OneProductsArgs {
    products: [OneProduct; MOST_PRODUCTS],
}

// SAFETY: mirrors the kernel's; what it names lives with the weights and the scratch.
unsafe impl Args for OneProductsArgs {}

/// A list for one row.
#[derive(Clone, Copy, Debug)]
pub struct OneList {
    args: OneProductsArgs,
    blocks: usize,
    shared: usize,
}

impl OneList {
    /// The list for a card, if the kernel knows all products.
    pub fn new(card: &DeviceInfo, products: &[HalfProduct]) -> Option<OneList> {
        if !knows_all(products) {
            return None;
        }
        let most = most_shared(card);
        let fits = |p: &HalfProduct, tiles| shared(p, tiles) <= most;
        let tiles = share_out(products, card.multiprocessors, fits);
        let shared = products.iter().zip(&tiles).map(|(p, tiles)| shared(p, *tiles)).max()?;
        if shared > most {
            return None;
        }
        let mut placed = products.to_vec();
        let mut each = tiles.iter();
        let blocks = place(&mut placed, |p| each.next().map_or(0, |tiles| blocks_of(p, *tiles)));
        let mut args = OneProductsArgs { products: [nowhere(); MOST_PRODUCTS] };
        for ((to, of), tiles) in args.products.iter_mut().zip(placed).zip(tiles) {
            *to = OneProduct::new(of, tiles);
        }
        Some(OneList { args, blocks, shared })
    }

    /// The same behind a kernel that does not fill the card: a block asks for more than half of a multiprocessor's shared
    /// memory, so that none gets two while others get none. Two such kernels in a row would not overlap.
    pub fn spread(self, card: &DeviceInfo) -> OneList {
        let spreads = card.has_much_shared() && self.blocks <= card.multiprocessors;
        let shared = if spreads { self.shared.max(SPREAD_SHARED) } else { self.shared };
        OneList { shared, ..self }
    }

    /// The same before a kernel that has nothing to do ahead but to ask for its first weights: it begins when the last of
    /// these have been asked for, which would else wait behind its own.
    pub fn late(mut self) -> OneList {
        self.args.products.iter_mut().for_each(|p| p.late = 1);
        self
    }

    /// Does the products.
    pub fn multiply(&self, device: &Device, kernels: &Kernels) -> Result<(), CudaError> {
        let (grid, threads) = ([self.blocks, 1, 1], 32 * WARPS as u32);
        device.launch(kernels, Kernel::HalfProducts1, grid, threads, self.shared, &self.args)
    }
}

/// A low-rank query, which is divided by its root mean square before it is multiplied.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct OneNorm {
    /// It, as floats.
    pub x: u64,
    /// What it is multiplied with then.
    pub weight: u64,
    /// What is added to the mean of the squares.
    pub eps: f32,
    /// Padding.
    pub unused: u32,
}

/// What the queries' kernel wants to know.
#[repr(C)]
#[derive(Clone, Copy)]
struct OneQueriesArgs {
    list: OneProductsArgs,
    norm: OneNorm,
    keep: KeepArgs,
    blocks: u32,
    unused: u32,
}

// SAFETY: mirrors the kernel's; what it names lives with the weights, the scratch and open slots.
unsafe impl Args for OneQueriesArgs {}

/// The products of a row's low-rank query, beside which the row is kept.
#[derive(Clone, Copy, Debug)]
pub struct OneQueries {
    list: OneList,
    norm: OneNorm,
}

impl OneQueries {
    /// Those for a card, if the kernel knows them all.
    pub fn new(card: &DeviceInfo, products: &[HalfProduct], norm: OneNorm) -> Option<OneQueries> {
        // On other cards a multiprocessor holds one block, and the jobs shall not wait for products.
        let spared = if card.is_hopper() { 0 } else { MOST_JOBS };
        let multiprocessors = card.multiprocessors.saturating_sub(spared).max(1);
        let list = OneList::new(&DeviceInfo { multiprocessors, ..card.clone() }, products)?;
        let rank = products.first()?.product.cols();
        // The query's values and what they are multiplied with lie behind what else a block has.
        let needed = |(p, of): (&HalfProduct, &OneProduct)| {
            shared(p, of.tiles as usize) + 2 * size_of::<f32>() * rank as usize
        };
        let needed = products.iter().zip(&list.args.products).map(needed).max()?;
        let fits = needed <= most_shared(card) && products.iter().all(|p| p.product.cols() == rank);
        let list = OneList { shared: list.shared.max(needed), ..list };
        fits.then_some(OneQueries { list, norm })
    }

    /// Does the products and the row's other jobs, so many.
    pub fn multiply_and_keep(
        &self,
        device: &Device,
        kernels: &Kernels,
        jobs: usize,
        keep: &KeepArgs,
    ) -> Result<(), CudaError> {
        let OneList { args: list, blocks, shared } = self.list;
        let args =
            OneQueriesArgs { list, norm: self.norm, keep: *keep, blocks: blocks as u32, unused: 0 };
        let (grid, shared) = ([blocks + jobs, 1, 1], shared.max(rows::keep_shared(keep)));
        device.launch(kernels, Kernel::HalfQueries1, grid, 32 * WARPS as u32, shared, &args)
    }
}

impl OneProduct {
    fn new(of: HalfProduct, tiles: usize) -> OneProduct {
        let cols = of.product.cols() as usize;
        let (columns, segments) = (cols / BLOCK, segments(cols));
        let (far, step) = (WARPS / segments, WARPS % segments);
        // The last segment of a row may have one block of columns only.
        let (onward, short) = (far * columns + 2 * step, 2 * segments - columns);
        let bytes = |blocks| (tile(&of).unwrap_or(0) * blocks) as u32;
        OneProduct {
            of,
            tiles: tiles as u32,
            inverse: 65536u32.div_ceil(segments as u32),
            onward: [bytes(onward), bytes(onward - short)],
            group_blocks: (of.product.group_rows() as usize / (TILE * tiles)).max(1) as u32,
            late: 0,
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

/// Whether the kernel knows all products of a list.
pub fn knows_all(products: &[HalfProduct]) -> bool {
    products.len() <= MOST_PRODUCTS && products.iter().all(|p| p.x != 0 && tile(p).is_some())
}

/// Blocks of a product, each of which takes so many tiles.
fn blocks_of(p: &HalfProduct, tiles: usize) -> usize {
    (p.product.rows() as usize).div_ceil(TILE * tiles)
}

/// Shared memory of a block: its warps' pieces, the vector, and the sums of so many tiles.
fn shared(p: &HalfProduct, tiles: usize) -> usize {
    let cols = p.product.cols() as usize;
    WARPS * PIECE_ROOM + 2 * cols + tiles * segments(cols) * TILE * size_of::<f32>()
}

/// Shared memory that a block may ask for: where there is much, half of a multiprocessor's.
fn most_shared(card: &DeviceInfo) -> usize {
    if card.has_much_shared() { (113 << 10) - JOBS_SHARED } else { MOST_SHARED - JOBS_SHARED }
}

/// Asks for the shared memory that the kernels need.
pub fn prepare(device: &Device, kernels: &Kernels) -> Result<(), CudaError> {
    let info = device.info();
    let most = if info.has_much_shared() { SPREAD_SHARED } else { most_shared(info) } as u32;
    [Kernel::HalfProducts1, Kernel::HalfQueries1]
        .into_iter()
        .try_for_each(|kernel| kernels.allow_shared(kernel, most))
}

/// How many tiles a block of each product takes, so that about `most` blocks are enough: those that are asked for
/// the fewest bytes take more of them, as far as they fit.
fn share_out(
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
            let step = WARPS - ((WARPS * inverse) >> 16) * segments;
            for warp in 0..WARPS {
                let tile = (warp * inverse) >> 16;
                let mut segment = warp - tile * segments;
                let mut at = (tile * columns + 2 * segment) * TILE * 512;
                for item in (warp..5 * segments).step_by(WARPS) {
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

    fn card(capability: u32, multiprocessors: usize) -> DeviceInfo {
        DeviceInfo { name: String::new(), memory: 0, capability, multiprocessors }
    }

    #[test]
    fn blocks_are_asked_for_about_as_many_bytes_and_run_at_once() {
        let card = card(90, 132);
        let share_out = |products: &[HalfProduct], most| {
            share_out(products, most, |p, tiles| shared(p, tiles) <= most_shared(&card))
        };
        let queries = [product(Format::Q8_0, 32768, 1024, 1), product(Format::F16, 8192, 1024, 1)];
        assert_eq!(share_out(&queries, 132), [24, 12]);
        let groups = [product(Format::Q8_0, 8192, 4096, 8)];
        assert_eq!(share_out(&groups, 132), [4]);
        assert_eq!(share_out(&groups, 100), [8], "no block crosses into the next group");
        let outputs = [product(Format::Q8_0, 4096, 8192, 1)];
        assert_eq!(share_out(&outputs, 132), [2]);
        let vocabulary = [product(Format::Q8_0, 129_280, 4096, 1)];
        for list in [&queries[..], &groups, &outputs, &vocabulary] {
            let list = OneList::new(&card, list).unwrap();
            assert!(list.blocks <= 132 && 2 * (list.shared + (1 << 10)) <= 228 << 10);
            // Beside one that is spread there is room for one that is not.
            let spread = list.spread(&card).shared + (1 << 10);
            assert!(2 * spread > 228 << 10 && spread + list.shared + (1 << 10) <= 228 << 10);
        }
        assert!(OneList::new(&card, &[product(Format::Q2K, 256, 256, 1)]).is_none());
        let norm = OneNorm::default();
        assert!(OneQueries::new(&card, &queries, norm).is_some());
        assert!(OneQueries::new(&card, &[queries[0], groups[0]], norm).is_none());
        // Where a multiprocessor holds one block there is one left for each job.
        let small = DeviceInfo { capability: 80, multiprocessors: 108, ..card };
        let list = OneQueries::new(&small, &queries, norm).unwrap().list;
        assert!(list.blocks + MOST_JOBS <= 108, "{}", list.blocks);
    }

    #[test]
    fn smaller_cards_have_room_too() {
        let vocabulary = product(Format::Q8_0, 129_280, 4096, 1);
        for (card, blocks) in [(card(80, 108), 100), (card(86, 8), 100), (card(120, 170), 100)] {
            let list = OneList::new(&card, &[vocabulary]).unwrap();
            assert!(list.shared <= most_shared(&card) && list.blocks > blocks);
        }
        // What does not run at once is not kept from running two at a time.
        let (card, wide) = (card(90, 132), product(Format::Q8_0, 129_280, 7168, 1));
        let list = OneList::new(&card, &[wide]).unwrap();
        assert!(list.blocks > 132 && list.spread(&card).shared == list.shared);
    }
}
