//! How fast the integer kernels read weights, beside a plain read of the same memory.
//!
//! Every kernel streams a matrix that no cache holds, in turns with a plain read of the same bytes on
//! the same cores, so that what else the machine does falls on both. Printed are medians.
//!
//! `cargo bench -p ds4-cpu --bench kernels -- [FORMAT...] [--tokens N,N] [--threads N]
//! [--level LEVEL|all] [--mib N] [--cached]`
#![allow(clippy::print_stdout, missing_docs)]

#[allow(dead_code, unused_imports, reason = "a bench measures products, and tests nothing")]
#[path = "../src/simd/mod.rs"]
mod simd;

use std::{hint::black_box, sync::Barrier, thread, time::Instant};

use ds4_quant::Format;
use simd::{Activations, Form, Kernels, Level, Panel, Weights};

const FORMATS: [(Format, usize); 9] = [
    (Format::Q8_0, 4096),
    (Format::Mxfp4, 4096),
    (Format::Fp4Block, 4096),
    (Format::Fp8Block, 4096),
    (Format::Q2K, 2048),
    (Format::Q4K, 4096),
    (Format::Q5K, 4096),
    (Format::Q6K, 4096),
    (Format::Iq2Xxs, 4096),
];
/// Bytes that are timed at once: far less than a time slice, so that the median has no interruption.
const SLICE: usize = 4 << 20;
/// Rows of a call.
const ROWS: usize = 128;

struct Wish {
    formats: Vec<String>,
    tokens: Vec<usize>,
    levels: Vec<Level>,
    threads: usize,
    bytes: usize,
    /// Stay in the caches, to see the computation alone.
    cached: bool,
}

fn main() {
    let wish = wish();
    let mut memory = vec![0u8; wish.bytes];
    let mut state = 1u64;
    for word in memory.as_chunks_mut::<8>().0 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        *word = (state ^ state >> 29).to_le_bytes();
    }
    println!("level       format   tokens    GB/s    read  of read  Gparam/s  GMAC/s");
    // Exponents of any size make subnormal and infinite products, which no file has and which are
    // slow; the other formats' random scales do not.
    let mut sane = memory.clone();
    for slice in sane.chunks_exact_mut(SLICE) {
        slice.iter_mut().step_by(17).for_each(|scale| *scale = 120);
    }
    for &level in &wish.levels {
        let Some(kernels) = Kernels::of(level) else { continue };
        for (format, cols) in FORMATS {
            let name = format.name().to_ascii_lowercase();
            if !wish.formats.is_empty() && !wish.formats.contains(&name) {
                continue;
            }
            let memory = if format == Format::Mxfp4 { &sane } else { &memory };
            for &tokens in &wish.tokens {
                let job = Job { kernels: &kernels, format, cols, tokens, cached: wish.cached };
                job.measure(memory, wish.threads);
            }
        }
    }
}

/// One line of the table.
struct Job<'a> {
    kernels: &'a Kernels,
    format: Format,
    cols: usize,
    tokens: usize,
    cached: bool,
}

/// Seconds that slices took to be read, and to be multiplied.
#[derive(Default)]
struct Times {
    read: Vec<f64>,
    multiply: Vec<f64>,
}

impl Job<'_> {
    /// Bytes of a row, and how many rows a slice has.
    fn rows(&self) -> (usize, usize) {
        let row_bytes = self.format.row_bytes(self.cols).unwrap_or(1);
        let slice = if self.cached { 768 << 10 } else { SLICE };
        (row_bytes, slice / row_bytes / ROWS * ROWS)
    }

    fn measure(&self, memory: &[u8], threads: usize) {
        let barrier = Barrier::new(threads);
        let share = memory.len() / threads / SLICE * SLICE;
        let mut times = Times::default();
        thread::scope(|scope| {
            let shares = memory.chunks_exact(share).take(threads);
            let workers: Vec<_> =
                shares.map(|share| scope.spawn(|| self.times(share, &barrier))).collect();
            for worker in workers {
                if let Ok(more) = worker.join() {
                    times.read.extend(more.read);
                    times.multiply.extend(more.multiply);
                }
            }
        });
        let median = |mut times: Vec<f64>| {
            times.sort_by(f64::total_cmp);
            times.get(times.len() / 2).copied().unwrap_or(f64::NAN)
        };
        let (read, time) = (median(times.read), median(times.multiply));
        let (row_bytes, rows) = self.rows();
        let bytes = (threads * rows * row_bytes) as f64 / 1e9;
        let params = (threads * rows * self.cols) as f64 / time / 1e9;
        println!(
            "{:11} {:8} {:6}  {:6.1}  {:6.1}   {:5.0} %  {params:8.1}  {:6.0}",
            format!("{:?}", self.kernels.level()),
            self.format.name(),
            self.tokens,
            bytes / time,
            bytes / read,
            100.0 * read / time,
            params * self.tokens as f64,
        );
    }

    /// Times slices of the memory; every other one is read only.
    fn times(&self, memory: &[u8], barrier: &Barrier) -> Times {
        let (row_bytes, rows) = self.rows();
        let scales = match self.format {
            Format::Fp8Block => rows.div_ceil(128) * self.cols.div_ceil(128),
            Format::Fp4Block => rows * self.cols.div_ceil(32),
            _ => 0,
        };
        let scales = vec![120; scales];
        let mut times = Times::default();
        let Some(form) = Form::of(self.format) else { return times };
        let x: Vec<f32> = (0..self.tokens * self.cols).map(|i| (i % 17) as f32 - 8.0).collect();
        let mut activations = Activations::new(form);
        activations.quantise(&x, self.cols);
        let x: Vec<_> = activations.tokens().collect();
        let mut panel = Panel::default();
        let mut out = vec![0.0; self.tokens * ROWS];
        let slices = memory.chunks_exact(SLICE);
        for round in 0..if self.cached { 8 } else { 2 } {
            // A slice is read in one round and multiplied in the other; between the two all others
            // have been through the caches.
            for (i, slice) in slices.clone().enumerate() {
                let slice = if self.cached { memory } else { slice };
                let bytes = &slice[..rows * row_bytes];
                barrier.wait();
                let start = Instant::now();
                if (i + round) % 2 == 0 {
                    black_box(plain_read(bytes));
                    times.read.push(start.elapsed().as_secs_f64());
                    continue;
                }
                let weights = Weights::new(self.format, (rows, self.cols), bytes, &scales);
                for row in (0..rows).step_by(ROWS) {
                    let mut outs: Vec<&mut [f32]> = out.chunks_exact_mut(ROWS).collect();
                    if let Some(weights) = &weights {
                        let rows = row..row + ROWS;
                        self.kernels.multiply(weights, rows, &x, &mut outs, &mut panel);
                    }
                    black_box(&mut outs);
                }
                times.multiply.push(start.elapsed().as_secs_f64());
            }
        }
        times
    }
}

/// Adds up all bytes as words; eight sums, so that no addition waits.
fn plain_read(bytes: &[u8]) -> u64 {
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    fn wide(bytes: &[u8]) -> u64 {
        sum(bytes)
    }
    #[inline(always)]
    fn sum(bytes: &[u8]) -> u64 {
        let mut sums = [0u64; 32];
        for chunk in bytes.as_chunks::<256>().0 {
            for (sum, word) in sums.iter_mut().zip(chunk.as_chunks::<8>().0) {
                *sum = sum.wrapping_add(u64::from_le_bytes(*word));
            }
        }
        sums.iter().fold(0, |a, b| a.wrapping_add(*b))
    }
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2.
        return unsafe { wide(bytes) };
    }
    sum(bytes)
}

fn wish() -> Wish {
    let mut wish = Wish {
        formats: Vec::new(),
        tokens: vec![1],
        threads: 1,
        levels: vec![Kernels::detect().level()],
        bytes: 512 << 20,
        cached: false,
    };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().unwrap_or_default();
        match arg.as_str() {
            "--tokens" => wish.tokens = value().split(',').filter_map(|n| n.parse().ok()).collect(),
            "--threads" => wish.threads = value().parse().unwrap_or(1).max(1),
            "--mib" => wish.bytes = value().parse().unwrap_or(512) << 20,
            "--level" => {
                let name = value().to_ascii_lowercase();
                let named = |level: &Level| {
                    name == "all" || format!("{level:?}").to_ascii_lowercase() == name
                };
                wish.levels = Level::ALL.into_iter().filter(named).collect();
            }
            "--cached" => wish.cached = true,
            "--bench" => (),
            format => wish.formats.push(format.to_ascii_lowercase()),
        }
    }
    wish
}
