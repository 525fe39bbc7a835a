//! One row's experts in the formats that a Flash of two bits has: each kernel leaves room for the blocks of the next.

use ds4_quant::Format;

use super::{ExpertsArgs, tensor::HalfExpertsArgs};
use crate::{
    device::{Device, DeviceInfo, Kernel, Kernels},
    options::CudaError,
    tensor::{FEW_WARPS, bytes, segments, tile_bytes, tiles},
};

/// Shared memory that the kernels have without asking, and that counts: a choice.
const CHOICE_SHARED: usize = (2 << 10) + 256;
/// The most experts that they choose from.
const MOST_EXPERTS: usize = 256;
/// What may be lost before the lines of a vector begin at a multiple of this.
const VECTOR_LINE: usize = 512;
/// Tiles that a warp has under way: of the chosen experts' input two of gate and of up.
const SHARED_AHEAD: usize = 2;
const IN_AHEAD: usize = 2 * 2;
const OUT_AHEAD: usize = 4;
/// Warps of a block of outputs, and what its list has for a task.
const OUT_WARPS: usize = 12;
const DOWN_TASK: usize = 16;

/// How the kernels are launched for experts of a shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Tiles of 16 inner values that a block takes.
    inner_tiles: usize,
    /// Blocks, warps, shared memory: of the router with the shared expert's input, of the others' inputs, of outputs.
    first: (usize, usize, usize),
    input: (usize, usize, usize),
    output: (usize, usize, usize),
}

/// Blocks of 256 columns.
fn blocks_of(cols: usize) -> usize {
    cols / 256
}

/// Shared memory that a block may ask for.
fn most_shared(card: &DeviceInfo) -> usize {
    (if card.has_much_shared() { 227 << 10 } else { 99 << 10 }) - CHOICE_SHARED
}

/// Asks for the shared memory that the kernels need.
pub fn prepare(device: &Device, kernels: &Kernels) -> Result<(), CudaError> {
    let most = most_shared(device.info()) as u32;
    [Kernel::OneRouterAndShared, Kernel::OneExpertsIn, Kernel::OneExpertsOut]
        .into_iter()
        .try_for_each(|kernel| kernels.allow_shared(kernel, most))
}

/// How the kernels do it on a card, if they know the formats and there is room for the shape. Of the router they
/// want to know the format and the experts.
pub fn plan(card: &DeviceInfo, e: &ExpertsArgs, (router, experts): (u32, u32)) -> Option<Plan> {
    let is = |format: u32, known: Format| format == known as u32;
    let known = is(e.gate.first.format, Format::Iq2Xxs)
        && is(e.up.first.format, Format::Iq2Xxs)
        && is(e.down.first.format, Format::Q2K)
        && [e.shared_gate, e.shared_up, e.shared_down].iter().all(|m| is(m.format, Format::Q8_0))
        && is(router, Format::F16);
    let (used, inner, hidden) = (e.used as usize, e.inner as usize, e.hidden as usize);
    let warps = if card.has_much_shared() { 2 * FEW_WARPS } else { FEW_WARPS };
    let groups = warps / segments(hidden).min(FEW_WARPS);
    // All blocks at once: a multiprocessor has one of them.
    let strips = inner / 16;
    let blocks = |tiles: usize| used * strips.div_ceil(tiles);
    let passes = (1..strips).find(|passes| blocks(groups * passes) <= card.multiprocessors);
    let inner_tiles = groups * passes.unwrap_or(strips);
    let first_shared = FEW_WARPS * SHARED_AHEAD * tile_bytes(Format::Q8_0)
        + SHARED_AHEAD * tile_bytes(Format::F16)
        + tiles(hidden) * 2 * segments(hidden) * 16 * size_of::<f32>()
        + (VECTOR_LINE + 2 * hidden);
    let in_shared = bytes::table_bytes(Format::Iq2Xxs as u32)
        + warps * IN_AHEAD * tile_bytes(Format::Iq2Xxs)
        + blocks_of(hidden) * (bytes::Numbers::LINE + inner_tiles * 2 * 16 * size_of::<f32>());
    // Of the output, too, where there is room for the sums; its blocks find from their number how many strips one
    // takes.
    let outputs = hidden / 16;
    let at_once = if card.has_much_shared() { card.multiprocessors } else { outputs };
    let each = outputs.div_ceil(at_once);
    let out_shared = OUT_WARPS * OUT_AHEAD * tile_bytes(Format::Q2K)
        + (VECTOR_LINE + 2 * inner)
        + used * blocks_of(inner) * bytes::InnerNumbers::LINE
        + each * used * segments(inner) * DOWN_TASK
        + each * (used * blocks_of(inner) + segments(inner) + used + 1) * 16 * size_of::<f32>();
    let fits = first_shared.max(in_shared).max(out_shared) <= most_shared(card)
        && experts as usize <= MOST_EXPERTS
        && segments(hidden) * experts as usize <= (used + 1) * hidden;
    (known && fits).then_some(Plan {
        inner_tiles,
        first: (strips.div_ceil(tiles(hidden)), FEW_WARPS + 1, first_shared),
        input: (blocks(inner_tiles), warps, in_shared),
        output: (outputs.div_ceil(each), OUT_WARPS, out_shared),
    })
}

/// Chooses and runs the row's experts.
pub fn run(
    device: &Device,
    kernels: &Kernels,
    plan: Plan,
    args: &HalfExpertsArgs,
) -> Result<(), CudaError> {
    let args = args.with_inner_tiles(plan.inner_tiles);
    let launches = [
        (Kernel::OneRouterAndShared, plan.first),
        (Kernel::OneExpertsIn, plan.input),
        (Kernel::OneExpertsOut, plan.output),
    ];
    launches.into_iter().try_for_each(|(kernel, (blocks, warps, shared))| {
        device.launch(kernels, kernel, [blocks, 1, 1], 32 * warps as u32, shared, &args)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matvec::{MatrixRef, StackRef};

    fn experts(used: u32, inner: u32, hidden: u32) -> ExpertsArgs {
        let of = |format: Format| MatrixRef { format: format as u32, ..MatrixRef::default() };
        let stack = |format| StackRef { first: of(format), ..StackRef::default() };
        ExpertsArgs {
            gate: stack(Format::Iq2Xxs),
            up: stack(Format::Iq2Xxs),
            down: stack(Format::Q2K),
            shared_gate: of(Format::Q8_0),
            shared_up: of(Format::Q8_0),
            shared_down: of(Format::Q8_0),
            used,
            inner,
            hidden,
            ..ExpertsArgs::default()
        }
    }

    fn card(capability: u32, multiprocessors: usize) -> DeviceInfo {
        DeviceInfo { name: String::new(), memory: 0, capability, multiprocessors }
    }

    const ROUTED: (u32, u32) = (Format::F16 as u32, 256);

    /// Two kernels that follow one another have room on a multiprocessor together.
    #[test]
    fn a_flash_has_one_wave_of_blocks_and_room_for_the_next() {
        let plan = plan(&card(90, 132), &experts(6, 2048, 4096), ROUTED).unwrap();
        assert_eq!(plan.inner_tiles, 6);
        assert_eq!((plan.first.0, plan.first.1), (128, 9));
        assert_eq!((plan.input.0, plan.input.1), (132, 16));
        assert_eq!((plan.output.0, plan.output.1), (128, 12));
        let taken = |shared: usize| shared + CHOICE_SHARED + (1 << 10);
        assert!(taken(plan.first.2) + taken(plan.input.2) <= 228 << 10);
        assert!(taken(plan.input.2) + taken(plan.output.2) <= 228 << 10);
    }

    #[test]
    fn smaller_cards_and_shapes_have_room_too() {
        for (used, inner, hidden) in [(6, 2048, 4096), (1, 256, 256), (2, 512, 1536), (8, 256, 768)]
        {
            for card in [card(80, 108), card(86, 82), card(90, 114), card(120, 170)] {
                let plan = plan(&card, &experts(used, inner, hidden), ROUTED).unwrap();
                let most = plan.first.2.max(plan.input.2).max(plan.output.2);
                assert!(most <= most_shared(&card));
                assert!(plan.input.0 <= card.multiprocessors);
            }
        }
    }

    #[test]
    fn other_formats_and_what_has_no_room_are_left_to_others() {
        let card = card(90, 132);
        let other = ExpertsArgs { down: experts(6, 2048, 4096).gate, ..experts(6, 2048, 4096) };
        let flash = experts(6, 2048, 4096);
        assert_eq!(plan(&card, &other, ROUTED), None);
        assert_eq!(plan(&card, &flash, (Format::F32 as u32, 256)), None);
        assert_eq!(plan(&card, &flash, (Format::F16 as u32, 384)), None);
        assert_eq!(plan(&card, &experts(32, 8192, 4096), ROUTED), None);
    }
}
