//! Weights from the file to the card: through page-locked memory, by several threads, each with a
//! stream of its own; blocks are cut into planes on the card.

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

/// How the blocks of a format are cut: these bytes of each block are its codes, the others scale them.
/// IQ2_XXS is rearranged more thoroughly, see its kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Planes {
    /// Bytes of a block.
    pub block: usize,
    /// Where its codes begin.
    pub codes_at: usize,
    /// How many bytes they are.
    pub codes: usize,
    /// Bytes on the card that scale a block.
    pub scales: usize,
    /// What does it.
    kernel: Kernel,
}

impl Planes {
    /// The cut of a format; formats whose scales are not among the codes are not cut.
    pub fn of(format: Format) -> Option<Planes> {
        let (codes_at, codes) = match format {
            Format::F32 | Format::F16 | Format::BF16 | Format::Fp8Block | Format::Fp4Block => {
                return None;
            }
            Format::Q8_0 => (2, 32),
            Format::Q4_0 => (2, 16),
            Format::Q2K => (16, 64),
            Format::Q4K => (16, 128),
            Format::Q5K => (16, 160),
            Format::Q6K => (0, 192),
            Format::Iq2Xxs => (2, 64),
            Format::Mxfp4 => (1, 16),
        };
        let block = format.block_bytes();
        let cut =
            Planes { block, codes_at, codes, scales: block - codes, kernel: Kernel::SplitBlocks };
        Some(match format {
            Format::Iq2Xxs => Planes { scales: 8, kernel: Kernel::SplitIq2, ..cut },
            _ => cut,
        })
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
    pub planes: Option<Planes>,
}

impl<'a> Job<'a> {
    /// The same in pieces that one copy can take.
    fn pieces(self) -> impl Iterator<Item = Job<'a>> {
        let unit = self.planes.map_or(1, |planes| planes.block);
        let step = PIECE / unit * unit;
        let Job { codes, scales, planes, .. } = self;
        self.bytes.chunks(step).enumerate().map(move |(i, bytes)| {
            let blocks = i * (step / unit);
            let (codes_each, scales_each) = planes.map_or((1, 0), |p| (p.codes, p.scales));
            Job {
                bytes,
                codes: codes + (blocks * codes_each) as u64,
                scales: scales + (blocks * scales_each) as u64,
                planes,
            }
        })
    }
}

#[repr(C)]
#[derive(Clone, Copy)]
struct SplitArgs {
    blocks: u64,
    codes: u64,
    scales: u64,
    count: u64,
    block_bytes: u32,
    codes_at: u32,
    codes_bytes: u32,
    unused: u32,
}

// SAFETY: mirrors the kernel's; the worker waits for it before its staging memory goes.
unsafe impl Args for SplitArgs {}

/// Does all jobs. What they name on the card must be large enough: `weights` has just made it so.
pub fn upload(device: &Device, kernels: &Kernels, jobs: Vec<Job<'_>>) -> Result<(), CudaError> {
    let pieces: Vec<Job<'_>> = jobs.into_iter().flat_map(Job::pieces).collect();
    let next = AtomicUsize::new(0);
    let failed: Mutex<Option<CudaError>> = Mutex::new(None);
    let threads = THREADS.min(ds4_host::physical_cores()).min(pieces.len().div_ceil(2)).max(1);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let outcome = device.another().and_then(|device| {
                    device.bind()?;
                    work(&device, kernels, &pieces, &next)
                });
                if let (Err(error), Ok(mut failed)) = (outcome, failed.lock()) {
                    next.store(pieces.len(), Ordering::Relaxed);
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
    pieces: &[Job<'_>],
    next: &AtomicUsize,
) -> Result<(), CudaError> {
    let mut halves = Vec::new();
    for _ in 0..2 {
        let staging = device.alloc(PIECE, "a buffer for the upload")?;
        halves.push((device.another()?, device.pinned(PIECE)?, staging));
    }
    for turn in 0.. {
        let Some(piece) = pieces.get(next.fetch_add(1, Ordering::Relaxed)) else { break };
        let (stream, pinned, staging) = &mut halves[turn % 2];
        stream.finish()?;
        let len = piece.bytes.len();
        pinned.bytes_mut()[..len].copy_from_slice(piece.bytes);
        let to = if piece.planes.is_some() { staging.address() } else { piece.codes };
        // SAFETY: a piece is no larger than the staging buffer, the target has room for all pieces of
        // its job, and this half is not written again before its stream is done.
        unsafe { stream.send(pinned, 0..len, to) }?;
        if let Some(planes) = piece.planes {
            let args = SplitArgs {
                blocks: staging.address(),
                codes: piece.codes,
                scales: piece.scales,
                count: (len / planes.block) as u64,
                block_bytes: planes.block as u32,
                codes_at: planes.codes_at as u32,
                codes_bytes: planes.codes as u32,
                unused: 0,
            };
            stream.launch(kernels, planes.kernel, [1024, 1, 1], 256, 0, &args)?;
        }
    }
    halves.iter().try_for_each(|(stream, ..)| stream.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_whole_blocks_and_cover_everything() {
        for format in Format::ALL {
            let planes = Planes::of(format);
            let unit = planes.map_or(1, |p| p.block);
            let bytes = vec![0u8; (2 * PIECE + 12345) / unit * unit];
            let pieces: Vec<Job<'_>> =
                Job { bytes: &bytes, codes: 1000, scales: 2000, planes }.pieces().collect();
            let (mut codes, mut scales) = (1000, 2000);
            for piece in &pieces {
                assert_eq!((piece.codes, piece.scales), (codes, scales), "{format}");
                assert_eq!(piece.bytes.len() % unit, 0);
                let blocks = (piece.bytes.len() / unit) as u64;
                codes += blocks * planes.map_or(1, |p| p.codes as u64);
                scales += blocks * planes.map_or(0, |p| p.scales as u64);
            }
            assert_eq!(pieces.iter().map(|p| p.bytes.len()).sum::<usize>(), bytes.len());
        }
    }
}
