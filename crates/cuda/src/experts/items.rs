//! The experts of several rows where each has few of them and its format is known, see `items.cu`.

use ds4_quant::Format;

use super::tensor::HalfExpertsArgs;
use crate::{
    device::{Device, Kernel, Kernels},
    options::CudaError,
    tensor::{
        MOST_SHARED,
        bytes::{InnerNumbers, Numbers, table_bytes},
        tile_bytes,
    },
};

/// The most choices that a block can list.
pub const MOST_CHOICES: usize = 512;
/// Vectors of an item.
const VECTORS: usize = 3;
/// Bytes of an item as the warps of a block look it up, and of what stands before all.
const LISTED: usize = 32;
const LIST_HEAD: usize = 16;
/// Shared memory of a block on cards that have so much.
const MUCH_SHARED: usize = 227 << 10;

/// A kernel for one format.
#[derive(Clone, Copy)]
pub struct Known {
    format: Format,
    kernel: Kernel,
    /// Bytes that 256 columns of a vector take.
    line: usize,
    /// Of a block, of which a multiprocessor holds one; there are fewer where there is little shared memory.
    warps: usize,
}

/// That of gate and up.
pub const INPUT: Known = Known {
    format: Format::Iq2Xxs,
    kernel: Kernel::HalfExpertsIn8Iq2,
    line: Numbers::LINE,
    warps: 24,
};
/// That of the outputs.
pub const OUTPUT: Known = Known {
    format: Format::Q2K,
    kernel: Kernel::HalfExpertsOut8Q2,
    line: InnerNumbers::LINE,
    warps: 24,
};

/// Whether there is a kernel for gate and up of this format.
pub fn knows_input(format: u32) -> bool {
    format == INPUT.format as u32
}

/// Whether there is a kernel for so many outputs of this format: a warp takes 32.
pub fn knows_output(format: u32, rows: usize) -> bool {
    format == OUTPUT.format as u32 && rows.is_multiple_of(32)
}

fn most_shared(device: &Device) -> usize {
    if device.info().has_much_shared() { MUCH_SHARED } else { MOST_SHARED }
}

/// Asks for the shared memory that the kernels need.
pub fn prepare(device: &Device, kernels: &Kernels) -> Result<(), CudaError> {
    let most = most_shared(device) as u32;
    [INPUT, OUTPUT].into_iter().try_for_each(|known| kernels.allow_shared(known.kernel, most))
}

/// Bytes of shared memory beside the warps' own, and those of a warp: two pieces of two strips and their vectors.
fn shared(of: Known, pairs: usize) -> (usize, usize) {
    let common = table_bytes(of.format as u32) + LIST_HEAD + pairs * LISTED;
    (common, 2 * (2 * tile_bytes(of.format) + VECTORS * of.line))
}

/// Runs a kernel for the items of `pairs` pairs.
pub fn run(
    device: &Device,
    kernels: &Kernels,
    of: Known,
    pairs: usize,
    args: &HalfExpertsArgs,
) -> Result<(), CudaError> {
    let (common, each) = shared(of, pairs);
    let warps = ((most_shared(device) - common) / each).min(of.warps);
    let grid = [device.info().multiprocessors, 1, 1];
    device.launch(kernels, of.kernel, grid, 32 * warps as u32, common + warps * each, args)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::FEW;

    #[test]
    fn every_card_has_room_for_some_warps() {
        // Those of a Flash, and the most that few rows may have.
        let (flash, most_pairs) = (6 * FEW, MOST_CHOICES);
        for of in [INPUT, OUTPUT] {
            for (much, pairs, wanted) in
                [(true, flash, of.warps), (true, most_pairs, of.warps - 1), (false, most_pairs, 6)]
            {
                let (common, each) = shared(of, pairs);
                let most = if much { MUCH_SHARED } else { MOST_SHARED };
                assert!(common + wanted * each <= most, "{pairs} pairs of {}", of.format);
            }
        }
    }
}
