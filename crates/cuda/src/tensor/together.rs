//! A few rows: products of Q8_0 and halves in one launch, where blocks of a cluster share the columns; among them that
//! of an expert's two input matrices, whose sums meet in a block.

use super::{
    FEW_WARPS, HalfProduct, HalfProductList, MOST_PRODUCTS, MOST_SHARED, SEGMENT, TILE,
    one::{PIECE_ROOM, knows_all, tile},
    segments,
};
use crate::{
    device::{Args, Device, DeviceInfo, Kernel, Kernels},
    matvec::MatrixRef,
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
    group_tiles: u32,
    limit: f32,
    up: u64,
}

/// The product of an expert's two input matrices: halves of what comes out of both.
#[derive(Clone, Copy, Debug)]
pub struct Inner {
    /// That of one, with its output as halves.
    pub gate: HalfProduct,
    /// The other.
    pub up: MatrixRef,
    /// What both are clamped to.
    pub limit: f32,
}

/// A list as the kernels want it.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct TogetherProductsArgs {
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
        let company = company(card, products)?;
        let one_each = products.iter().map(|p| TogetherProduct::new(*p, 1)).collect();
        let shared_out = share_out(one_each, most(card, company), company, |_| 1);
        TogetherList::of(company, shared_out)
    }

    /// The list of a router, and of an expert's input beside it.
    pub fn with_inner(
        card: &DeviceInfo,
        router: &HalfProductList,
        inner: &Inner,
    ) -> Option<TogetherList> {
        let (&[router, ..], 1, Inner { gate, up, limit }) =
            (&router.few.products, router.few.count, *inner)
        else {
            return None;
        };
        let company = company(card, &[router, gate])?;
        let alike = (up.format, up.rows, up.cols)
            == (gate.product.format(), gate.product.rows(), gate.product.cols());
        if !alike || !gate.halves() {
            return None;
        }
        // As many tiles as a block's warps take at once, and as many again while there are too many clusters.
        let at_once = |p: &HalfProduct| match segments(p.product.cols() as usize) > company {
            true => FEW_WARPS / SEGMENTS,
            false => FEW_WARPS,
        };
        let inner = TogetherProduct {
            up: up.codes,
            limit,
            ..TogetherProduct::new(gate, at_once(&gate) / 2)
        };
        let products = vec![TogetherProduct::new(router, at_once(&router)), inner];
        let round = |p: &TogetherProduct| at_once(&p.of) / p.matrices();
        TogetherList::of(company, share_out(products, most(card, company), company, round))
    }

    /// The list of products whose work is shared out.
    fn of(company: usize, mut products: Vec<TogetherProduct>) -> Option<TogetherList> {
        if !products.iter().all(|p| fits(p, company)) {
            return None;
        }
        let mut clusters = 0;
        for p in &mut products {
            p.of.product.place(clusters);
            clusters += p.clusters();
        }
        let each_eight = products.iter().map(|p| p.each_eight(company)).max()?;
        let nowhere = [nowhere(); MOST_PRODUCTS];
        let mut args = TogetherProductsArgs { products: nowhere, rows: 0, unused: 0 };
        args.products.get_mut(..products.len())?.copy_from_slice(&products);
        Some(TogetherList { args, company, clusters, each_eight })
    }

    /// Does the products for up to 16 rows.
    pub fn multiply(
        &self,
        device: &Device,
        kernels: &Kernels,
        rows: usize,
    ) -> Result<(), CudaError> {
        let of = [Kernel::HalfProductsTogether8, Kernel::HalfProductsTogether16];
        self.launch(device, kernels, of, rows)
    }

    /// The same with the kernels that do the list, of up to eight rows and of more.
    pub fn launch(
        &self,
        device: &Device,
        kernels: &Kernels,
        of: [Kernel; 2],
        rows: usize,
    ) -> Result<(), CudaError> {
        let (args, [company, clusters], shared) = self.beside(rows);
        let (grid, threads) = ([company, clusters, 1], 32 * FEW_WARPS as u32);
        let kernel = of[usize::from(rows > 8)];
        device.launch_clusters(kernels, kernel, grid, threads, shared, &args)
    }

    /// For a kernel that does the products beside other things: the list, the blocks of a cluster and the clusters,
    /// the shared memory of a block.
    pub fn beside(&self, rows: usize) -> (TogetherProductsArgs, [usize; 2], usize) {
        let args = TogetherProductsArgs { rows: rows as u32, ..self.args };
        (args, [self.company, self.clusters], ALWAYS + rows.div_ceil(8) * self.each_eight)
    }
}

impl HalfProductList {
    /// The list for a few rows where blocks are in clusters, if the card has those and they know all products.
    pub fn together(&self) -> Option<&TogetherList> {
        self.together.as_ref()
    }
}

impl TogetherProduct {
    /// A product, of which a cluster takes so many tiles.
    fn new(of: HalfProduct, tiles: usize) -> TogetherProduct {
        let group_tiles = (of.product.group_rows() as usize).div_ceil(TILE);
        TogetherProduct {
            of,
            tiles: tiles as u32,
            group_clusters: group_tiles.div_ceil(tiles) as u32,
            group_tiles: group_tiles as u32,
            ..TogetherProduct::default()
        }
    }

    /// The same with so many more tiles to a cluster.
    fn larger(&self, by: usize) -> TogetherProduct {
        let TogetherProduct { up, limit, .. } = *self;
        TogetherProduct { up, limit, ..TogetherProduct::new(self.of, self.tiles as usize + by) }
    }

    /// Matrices whose tiles are taken together.
    fn matrices(&self) -> usize {
        if self.up != 0 { 2 } else { 1 }
    }

    fn clusters(&self) -> usize {
        let groups = self.of.product.rows().div_ceil(self.of.product.group_rows());
        (groups * self.group_clusters) as usize
    }

    /// About the bytes that a cluster asks for.
    fn bytes(&self) -> usize {
        let cols = self.of.product.cols() as usize;
        self.matrices() * self.tiles as usize * tile(&self.of).unwrap_or(0) * cols
    }

    /// Shared memory of a block for eight vectors: their columns that are its, and the sums of the tiles that it adds up.
    fn each_eight(&self, company: usize) -> usize {
        let segments = segments(self.of.product.cols() as usize);
        let line = 2 * SEGMENT * if segments > company { SEGMENTS } else { 1 } + 16;
        let tiles = self.matrices() * (self.tiles as usize).div_ceil(company);
        8 * (line + tiles * segments * TILE * size_of::<f32>())
    }
}

/// Blocks of a cluster that do the products on a card, if it has clusters and the kernels know all of them.
fn company(card: &DeviceInfo, products: &[HalfProduct]) -> Option<usize> {
    if !card.has_much_shared() || !knows_all(products) {
        return None;
    }
    let widest = products.iter().map(|p| segments(p.product.cols() as usize)).max()?;
    let company = widest.div_ceil(SEGMENTS).next_power_of_two();
    (company <= MOST_COMPANY).then_some(company)
}

/// Products of which no more than `most` clusters are needed, if those have room: while there are more, those that would
/// be asked for the fewest bytes take a step more.
fn share_out(
    mut products: Vec<TogetherProduct>,
    most: usize,
    company: usize,
    step: impl Fn(&TogetherProduct) -> usize,
) -> Vec<TogetherProduct> {
    while products.iter().map(TogetherProduct::clusters).sum::<usize>() > most {
        let divisible = products.iter().enumerate().filter(|(_, p)| p.tiles < p.group_tiles);
        let larger = divisible.map(|(i, p)| (i, p.larger(step(p))));
        let larger = larger.filter(|(_, p)| fits(p, company));
        let Some((i, p)) = larger.min_by_key(|(_, p)| p.bytes()) else { break };
        products[i] = p;
    }
    products
}

/// Clusters that run at once. Those of more than two blocks do not find room everywhere, because a card's parts are
/// not all of one size: on 132 multiprocessors there are two times 30 of four blocks and 15 of eight, says the driver.
fn most(card: &DeviceInfo, company: usize) -> usize {
    let lost = if company > 2 { card.multiprocessors.div_ceil(11) } else { 0 };
    RESIDENT * ((card.multiprocessors - lost) / company)
}

/// Whether a block has room for sixteen vectors.
fn fits(p: &TogetherProduct, company: usize) -> bool {
    ALWAYS + 2 * p.each_eight(company) <= MOST_SHARED
}

/// What lies behind the last product of a list: no cluster is its.
fn nowhere() -> TogetherProduct {
    let mut none = TogetherProduct::default();
    none.of.product.place(u32::MAX as usize);
    none
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
    fn about_two_blocks_to_a_multiprocessor_do_a_large_product_at_once() {
        let queries = [product(Format::Q8_0, 32768, 1024, 1)];
        let groups = [product(Format::Q8_0, 8192, 4096, 8)];
        let outputs = [product(Format::Q8_0, 4096, 8192, 1)];
        // A group's clusters take as many tiles as there are, the last of them what is left.
        for (products, company, blocks, tiles) in
            [(&queries, 1, 256, 8), (&groups, 4, 4 * 8 * 7, 10), (&outputs, 8, 8 * 29, 9)]
        {
            let list = TogetherList::new(&card(90), products).unwrap();
            assert_eq!((list.company, list.company * list.clusters), (company, blocks));
            assert_eq!(list.args.products[0].tiles, tiles);
            assert!(ALWAYS + 2 * list.each_eight < 112 << 10);
        }
    }

    #[test]
    fn a_router_and_an_experts_input_are_done_at_once() {
        for (hidden, inner, experts, company, tiles, clusters) in
            [(4096, 2048, 256, 4, [4, 4], 36), (7168, 3072, 384, 8, [8, 8], 27)]
        {
            let router = [product(Format::F16, experts, hidden, 1)];
            let router = HalfProductList::new(&card(90), 0, &router, |_| Ok(0)).unwrap();
            let gate = product(Format::Q8_0, inner, hidden, 1).halving(1);
            let up = MatrixRef {
                codes: 1,
                format: Format::Q8_0 as u32,
                rows: inner,
                cols: hidden,
                ..MatrixRef::default()
            };
            let list = |gate, up| {
                TogetherList::with_inner(&card(90), &router, &Inner { gate, up, limit: 1.0 })
            };
            let found = list(gate, up).unwrap();
            assert_eq!((found.company, found.clusters), (company, clusters));
            assert_eq!([0, 1].map(|i| found.args.products[i].tiles), tiles);
            assert!(ALWAYS + 2 * found.each_eight <= MOST_SHARED);
            assert!(list(gate, MatrixRef { cols: 256, ..up }).is_none());
            assert!(list(product(Format::Q8_0, inner, hidden, 1), up).is_none());
            let other = product(Format::Q4K, inner, hidden, 1).halving(1);
            assert!(list(other, MatrixRef { format: Format::Q4K as u32, ..up }).is_none());
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
