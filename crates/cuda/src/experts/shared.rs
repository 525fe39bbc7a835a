//! What several rows have in common, where the card has clusters and the formats are Q8_0 and halves: the router's
//! product and the shared expert. The rows choose beside the shared expert's output, which waits for nobody.

#[cfg(test)]
mod tests;

use super::{ExpertsArgs, RouteArgs, route_shared};
use crate::{
    device::{Args, Device, DeviceInfo, Kernel, Kernels},
    matvec::Product,
    options::CudaError,
    scratch::Halves,
    tensor::{
        FEW_WARPS, HalfProduct, HalfProductList, MOST_SHARED,
        together::{Inner, TogetherList, TogetherProductsArgs},
    },
};

/// What the kernels of the output want to know.
#[repr(C)]
#[derive(Clone, Copy)]
struct SharedOutputArgs {
    product: TogetherProductsArgs,
    route: RouteArgs,
}

// SAFETY: mirrors the kernels'; what it names lives with the weights and the scratch.
unsafe impl Args for SharedOutputArgs {}

/// The lists of the shared expert's two launches.
pub struct Shared {
    input: TogetherList,
    output: TogetherList,
}

/// Asks for the shared memory that the kernels need.
pub fn prepare(kernels: &Kernels) -> Result<(), CudaError> {
    [
        Kernel::RouterAndShared8,
        Kernel::RouterAndShared16,
        Kernel::SharedOutput8,
        Kernel::SharedOutput16,
    ]
    .into_iter()
    .try_for_each(|kernel| kernels.allow_shared(kernel, MOST_SHARED as u32))
}

impl Shared {
    /// How a card does it, if its kernels know the matrices: those of the router, of the experts, of the shared one's
    /// output.
    pub fn new(
        card: &DeviceInfo,
        router: &HalfProductList,
        e: &ExpertsArgs,
        halves: &Halves,
        down: &HalfProductList,
    ) -> Option<Shared> {
        let (used, inner) = (e.used as usize, e.inner as usize);
        let gate = Product::new(e.shared_gate, 0, 0).strided(e.hidden as usize, (used + 1) * inner);
        let gate =
            HalfProduct::new(gate, halves.x).halving(halves.middle + (2 * used * inner) as u64);
        let inner = Inner { gate, up: e.shared_up, limit: e.shared_limit };
        let (input, output) = (TogetherList::with_inner(card, router, &inner)?, *down.together()?);
        Some(Shared { input, output })
    }

    /// The router's product, and what comes out of the shared expert's input.
    pub fn input(&self, device: &Device, kernels: &Kernels, rows: usize) -> Result<(), CudaError> {
        let of = [Kernel::RouterAndShared8, Kernel::RouterAndShared16];
        self.input.launch(device, kernels, of, rows)
    }

    /// The shared expert's output, and what each row chooses. A warp has room for the choice of any number of experts.
    pub fn output(
        &self,
        device: &Device,
        kernels: &Kernels,
        rows: usize,
        route: &RouteArgs,
    ) -> Result<(), CudaError> {
        let (product, [company, clusters], shared) = self.output.beside(rows);
        let args = SharedOutputArgs { product, route: *route };
        let shared = shared.max(FEW_WARPS * route_shared(route));
        let kernel = if rows > 8 { Kernel::SharedOutput16 } else { Kernel::SharedOutput8 };
        let grid = [company, clusters + 1, 1];
        device.launch_clusters(kernels, kernel, grid, 32 * FEW_WARPS as u32, shared, &args)
    }
}
