//! Weights from the file to the card: through page-locked memory, by several threads, each with a
//! stream of its own; on the card blocks are cut into codes and what scales them, and most go into tiles.

use std::sync::{
    Mutex,
    atomic::{AtomicUsize, Ordering},
};

use ds4_quant::Format;

use crate::{
    device::{Args, Device, Kernel, Kernels},
    options::CudaError,
};

/// Bytes that one copy takes at most.
const PIECE: usize = 8 << 20;
/// Threads that copy; one alone reads the page cache slower than the card takes it.
const THREADS: usize = 8;

/// Columns of a tile.
const TILE_COLUMNS: usize = 256;
/// Rows of a tile.
const TILE_ROWS: usize = 16;

/// How the blocks of a matrix are cut and where they go: so many bytes of each block are its codes, the others
/// scale them. Both go into tiles, or codes into one plane and scales into another. IQ2_XXS is rearranged more thoroughly, see its kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Bytes of a block.
    pub block: usize,
    /// Where its codes begin.
    pub codes_at: usize,
    /// How many bytes they are.
    pub codes: usize,
    /// Bytes on the card that scale a block.
    pub scales: usize,
    /// Blocks of a row.
    per_row: usize,
    /// Blocks that make the columns of a tile; 0 where there are no tiles.
    joined: usize,
    /// By how many bytes chunks trade places in odd rows of a tile.
    swap: usize,
    /// What is flipped in every byte of codes.
    flip: u8,
    /// Whether of four bytes of codes the two in the middle trade places: so the codes of neighbouring weights
    /// lie where a pair of halves has its digits.
    trade: bool,
    /// What does it.
    kernel: Kernel,
}

impl Cut {
    /// The cut of a matrix of so many columns; what stays as it is in the file has none.
    pub fn of(format: Format, cols: usize) -> Option<Cut> {
        let whole = cols.is_multiple_of(TILE_COLUMNS);
        // Columns of a block, where its codes begin, how many bytes they are, how chunks trade places.
        let (columns, codes_at, codes, swap) = match format {
            Format::F16 if whole => (TILE_COLUMNS, 0, 512, Some(16)),
            Format::Fp8Block if whole => (TILE_COLUMNS, 0, 256, Some(64)),
            Format::Fp4Block if whole => (TILE_COLUMNS, 0, 128, Some(16)),
            Format::F32 | Format::F16 | Format::BF16 | Format::Fp8Block | Format::Fp4Block => {
                return None;
            }
            Format::Q8_0 => (32, 2, 32, whole.then_some(64)),
            Format::Mxfp4 => (32, 1, 16, whole.then_some(16)),
            Format::Q4_0 => (32, 2, 16, None),
            Format::Q2K => (TILE_COLUMNS, 16, 64, Some(0)),
            Format::Q4K => (TILE_COLUMNS, 16, 128, Some(16)),
            Format::Iq2Xxs => (TILE_COLUMNS, 2, 64, Some(0)),
            Format::Q5K => (TILE_COLUMNS, 16, 160, None),
            Format::Q6K => (TILE_COLUMNS, 0, 192, None),
        };
        let block = match format {
            Format::F16 | Format::Fp8Block | Format::Fp4Block => codes,
            _ => format.block_bytes(),
        };
        let scales = match format {
            Format::Iq2Xxs => 8,
            // They lie in the file beside the codes.
            Format::Fp4Block => 8,
            _ => block - codes,
        };
        let flip = if format == Format::Q8_0 && whole { 0x80 } else { 0 };
        let kernel = if format == Format::Iq2Xxs { Kernel::SplitIq2 } else { Kernel::SplitBlocks };
        Some(Cut {
            block,
            codes_at,
            codes,
            scales,
            per_row: cols / columns,
            joined: swap.map_or(0, |_| TILE_COLUMNS / columns),
            swap: swap.unwrap_or(0),
            flip,
            trade: format == Format::Q2K,
            kernel,
        })
    }

    /// Where scales go that lie in the file beside the codes: nothing of a block is codes.
    pub fn of_scales(&self) -> Cut {
        Cut { block: self.scales, codes_at: self.scales, ..*self }
    }

    /// Whether the matrix lies in tiles.
    pub fn tiled(&self) -> bool {
        self.joined > 0
    }

    /// Bytes of the codes and of the scales of so many rows; tiles have their scales among their codes.
    pub fn bytes(&self, rows: usize) -> (usize, usize) {
        let blocks = |rows: usize| rows * self.per_row;
        match self.tiled() {
            true => (blocks(rows.next_multiple_of(TILE_ROWS)) * (self.codes + self.scales), 0),
            false => (blocks(rows) * self.codes, blocks(rows) * self.scales),
        }
    }
}

/// Bytes that are to go to the card.
pub struct Job<'a> {
    /// Whole blocks, or plain bytes.
    pub bytes: &'a [u8],
    /// Where codes, or plain bytes, go.
    pub codes: u64,
    /// Where scales go.
    pub scales: u64,
    /// How the blocks are cut.
    pub cut: Option<Cut>,
}

/// As much of a job as one copy can take.
struct Part<'a> {
    of: Job<'a>,
    /// How many blocks of the job come before it.
    first: usize,
}

impl<'a> Job<'a> {
    fn parts(self) -> impl Iterator<Item = Part<'a>> {
        let unit = self.cut.map_or(1, |cut| cut.block);
        let step = PIECE / unit * unit;
        let Job { codes, scales, cut, .. } = self;
        self.bytes.chunks(step).enumerate().map(move |(i, bytes)| {
            // Plain bytes go where they belong, blocks are placed by the kernel.
            let codes = if cut.is_some() { codes } else { codes + (i * step) as u64 };
            Part { of: Job { bytes, codes, scales, cut }, first: i * (step / unit) }
        })
    }
}

#[repr(C)]
#[derive(Clone, Copy)]
struct SplitArgs {
    blocks: u64,
    codes: u64,
    scales: u64,
    first: u32,
    count: u32,
    block_bytes: u32,
    codes_at: u32,
    codes_bytes: u32,
    scales_bytes: u32,
    per_row: u32,
    joined: u32,
    swap: u32,
    flip: u32,
    trade: u32,
    unused: u32,
}

// SAFETY: mirrors the kernel's; the worker waits for it before its staging memory goes.
unsafe impl Args for SplitArgs {}

/// Does all jobs. What they name on the card must be large enough: `weights` has just made it so.
pub fn upload(device: &Device, kernels: &Kernels, jobs: Vec<Job<'_>>) -> Result<(), CudaError> {
    let parts: Vec<Part<'_>> = jobs.into_iter().flat_map(Job::parts).collect();
    let next = AtomicUsize::new(0);
    let failed: Mutex<Option<CudaError>> = Mutex::new(None);
    let threads = THREADS.min(ds4_host::physical_cores()).min(parts.len().div_ceil(2)).max(1);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let outcome = device.another().and_then(|device| {
                    device.bind()?;
                    work(&device, kernels, &parts, &next)
                });
                if let (Err(error), Ok(mut failed)) = (outcome, failed.lock()) {
                    next.store(parts.len(), Ordering::Relaxed);
                    *failed = Some(error);
                }
            });
        }
    });
    match failed.into_inner() {
        Ok(Some(error)) => Err(error),
        _ => Ok(()),
    }
}

/// One worker: while one piece is copied to the card, the next is read into the other half.
fn work(
    device: &Device,
    kernels: &Kernels,
    parts: &[Part<'_>],
    next: &AtomicUsize,
) -> Result<(), CudaError> {
    let mut halves = Vec::new();
    for _ in 0..2 {
        let staging = device.alloc(PIECE, "a buffer for the upload")?;
        halves.push((device.another()?, device.pinned(PIECE)?, staging));
    }
    for turn in 0.. {
        let Some(part) = parts.get(next.fetch_add(1, Ordering::Relaxed)) else { break };
        let piece = &part.of;
        let (stream, pinned, staging) = &mut halves[turn % 2];
        stream.finish()?;
        let len = piece.bytes.len();
        pinned.bytes_mut()[..len].copy_from_slice(piece.bytes);
        let to = if piece.cut.is_some() { staging.address() } else { piece.codes };
        // SAFETY: a piece is no larger than the staging buffer, the target has room for all pieces of
        // its job, and this half is not written again before its stream is done.
        unsafe { stream.send(pinned, 0..len, to) }?;
        if let Some(cut) = piece.cut {
            let args = SplitArgs {
                blocks: staging.address(),
                codes: piece.codes,
                scales: piece.scales,
                first: part.first as u32,
                count: (len / cut.block) as u32,
                block_bytes: cut.block as u32,
                codes_at: cut.codes_at as u32,
                codes_bytes: cut.codes as u32,
                scales_bytes: cut.scales as u32,
                per_row: cut.per_row as u32,
                joined: cut.joined as u32,
                swap: cut.swap as u32,
                flip: cut.flip.into(),
                trade: cut.trade.into(),
                unused: 0,
            };
            stream.launch(kernels, cut.kernel, [1024, 1, 1], 256, 0, &args)?;
        }
    }
    halves.iter().try_for_each(|(stream, ..)| stream.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_whole_blocks_and_cover_everything() {
        for format in Format::ALL {
            let cut = Cut::of(format, 4096);
            let unit = cut.map_or(1, |p| p.block);
            let bytes = vec![0u8; (2 * PIECE + 12345) / unit * unit];
            let parts: Vec<Part<'_>> =
                Job { bytes: &bytes, codes: 1000, scales: 2000, cut }.parts().collect();
            let (mut codes, mut first) = (1000, 0);
            for part in &parts {
                assert_eq!((part.of.codes, part.of.scales), (codes, 2000), "{format}");
                assert_eq!(part.of.bytes.len() % unit, 0);
                assert_eq!(part.first, first, "{format}");
                first += part.of.bytes.len() / unit;
                codes += if cut.is_some() { 0 } else { part.of.bytes.len() as u64 };
            }
            assert_eq!(parts.iter().map(|p| p.of.bytes.len()).sum::<usize>(), bytes.len());
        }
    }

    #[test]
    fn strips_are_whole_and_what_has_no_tiles_keeps_its_bytes() {
        let bytes = |format, rows, cols| Cut::of(format, cols).map(|p| p.bytes(rows));
        assert_eq!(bytes(Format::Q8_0, 17, 512), Some((32 * 544, 0)));
        assert_eq!(bytes(Format::Q8_0, 17, 96), Some((17 * 96, 17 * 6)));
        assert_eq!(bytes(Format::Iq2Xxs, 16, 256), Some((16 * 72, 0)));
        assert_eq!(bytes(Format::F16, 3, 256), Some((16 * 512, 0)));
        assert_eq!(bytes(Format::F16, 3, 128), None);
        assert_eq!(bytes(Format::Fp4Block, 16, 256), Some((16 * 136, 0)));
        assert_eq!(bytes(Format::Q6K, 3, 256), Some((3 * 192, 3 * 18)));
    }
}
