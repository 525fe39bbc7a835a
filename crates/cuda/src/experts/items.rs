//! The experts of several rows where each has few of them and its format is known, see `items.cu`.

use ds4_quant::Format;

use super::tensor::HalfExpertsArgs;
use crate::{
    device::{Device, Kernel, Kernels},
    options::CudaError,
    tensor::{MOST_SHARED, NEAR_LINE, table_bytes},
};

/// Warps of a block, of which a multiprocessor holds one; fewer where there is little shared memory.
const WARPS: usize = 20;
/// Vectors of an item.
pub const VECTORS: usize = 3;
/// Bytes of an item as the warps of a block look it up.
const LISTED: usize = 32;
/// Shared memory of a block on cards that have so much.
const MUCH_SHARED: usize = 220 << 10;

/// Formats of gate and up, and of the output, that have a kernel, and bytes of a block of columns.
const INPUT: (Format, usize, Kernel) = (Format::Iq2Xxs, 64 + 8, Kernel::HalfExpertsIn8Iq2);
const OUTPUT: (Format, usize, Kernel) = (Format::Q2K, 64 + 20, Kernel::HalfExpertsOut8Q2);

/// Whether there is a kernel for gate and up of this format.
pub fn knows_input(format: u32) -> bool {
    format == INPUT.0 as u32
}

/// Whether there is a kernel for so many outputs of this format: a warp takes 32.
pub fn knows_output(format: u32, rows: usize) -> bool {
    format == OUTPUT.0 as u32 && rows.is_multiple_of(32)
}

fn most_shared(device: &Device) -> usize {
    if device.info().has_much_shared() { MUCH_SHARED } else { MOST_SHARED }
}

/// Asks for the shared memory that the kernels need.
pub fn prepare(device: &Device, kernels: &Kernels) -> Result<(), CudaError> {
    let most = most_shared(device) as u32;
    [INPUT, OUTPUT].into_iter().try_for_each(|(_, _, kernel)| kernels.allow_shared(kernel, most))
}

/// Bytes of shared memory beside the warps' own, and those of a warp: two pieces of two strips and their vectors.
fn shared((format, encoded, _): (Format, usize, Kernel), pairs: usize) -> (usize, usize) {
    (table_bytes(format as u32) + pairs * LISTED, 2 * (2 * 16 * encoded + VECTORS * NEAR_LINE))
}

fn launch(
    device: &Device,
    kernels: &Kernels,
    of: (Format, usize, Kernel),
    pairs: usize,
    args: &HalfExpertsArgs,
) -> Result<(), CudaError> {
    let (common, each) = shared(of, pairs);
    let warps = ((most_shared(device) - common) / each).min(WARPS);
    let grid = [device.info().multiprocessors, 1, 1];
    device.launch(kernels, of.2, grid, 32 * warps as u32, common + warps * each, args)
}

/// The inner vectors of the items of `pairs` pairs.
pub fn input(
    device: &Device,
    kernels: &Kernels,
    pairs: usize,
    args: &HalfExpertsArgs,
) -> Result<(), CudaError> {
    launch(device, kernels, INPUT, pairs, args)
}

/// Their outputs.
pub fn output(
    device: &Device,
    kernels: &Kernels,
    pairs: usize,
    args: &HalfExpertsArgs,
) -> Result<(), CudaError> {
    launch(device, kernels, OUTPUT, pairs, args)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::FEW;

    #[test]
    fn every_card_has_room_for_some_warps() {
        // The most pairs that few rows may have.
        for of in [INPUT, OUTPUT] {
            for (most, pairs, wanted) in [
                (MUCH_SHARED, 6 * FEW, WARPS),
                (MUCH_SHARED, 32 * FEW, WARPS),
                (MOST_SHARED, 32 * FEW, 6),
            ] {
                let (common, each) = shared(of, pairs);
                assert!(common + wanted * each <= most, "{pairs} pairs of {}", of.0);
            }
        }
    }
}
