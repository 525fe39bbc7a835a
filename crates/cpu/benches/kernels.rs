//! How fast the integer kernels read weights, beside a plain read of the same memory.
//!
//! Every kernel streams a matrix that no cache holds, in turns with a plain read of the same bytes on
//! the same core, so that what else the machine does falls on both. Printed are medians.
//!
//! `cargo bench -p ds4-cpu --bench kernels -- [FORMAT...] [--tokens N,N] [--level LEVEL] [--mib N] [--cached]`
#![allow(clippy::print_stdout, missing_docs)]

#[allow(dead_code, unused_imports, reason = "a bench measures products, and tests nothing")]
#[path = "../src/simd/mod.rs"]
mod simd;

use std::{hint::black_box, time::Instant};

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
                measure(&kernels, format, cols, tokens, &wish, memory);
            }
        }
    }
}

/// Times one kernel over slices of the memory, in turns with a plain read of another slice.
fn measure(
    kernels: &Kernels,
    format: Format,
    cols: usize,
    tokens: usize,
    wish: &Wish,
    memory: &[u8],
) {
    let row_bytes = format.row_bytes(cols).unwrap_or(1);
    let slice = if wish.cached { 768 << 10 } else { SLICE };
    let rows = slice / row_bytes / ROWS * ROWS;
    let scales = match format {
        Format::Fp8Block => rows.div_ceil(128) * cols.div_ceil(128),
        Format::Fp4Block => rows * cols.div_ceil(32),
        _ => 0,
    };
    let scales = vec![120; scales];
    let Some(form) = Form::of(format) else { return };
    let x: Vec<f32> = (0..tokens * cols).map(|i| (i % 17) as f32 - 8.0).collect();
    let mut activations = Activations::new(form);
    activations.quantise(&x, cols);
    let x: Vec<_> = activations.tokens().collect();
    let mut panel = Panel::default();
    let mut out = vec![0.0; tokens * ROWS];
    let mut times = (Vec::new(), Vec::new());
    // Each slice is read by one, then, when all others have been through the caches, by the other.
    let count = memory.len() / SLICE;
    for round in 0..if wish.cached { 8 } else { 2 } {
        for i in 0..count {
            let slice = if wish.cached { &memory[..slice] } else { &memory[i * SLICE..][..SLICE] };
            let bytes = &slice[..rows * row_bytes];
            let start = Instant::now();
            if (i + round) % 2 == 0 {
                black_box(plain_read(bytes));
                times.0.push(start.elapsed().as_secs_f64());
                continue;
            }
            let weights = Weights::new(format, (rows, cols), bytes, &scales);
            for row in (0..rows).step_by(ROWS) {
                let mut outs: Vec<&mut [f32]> = out.chunks_exact_mut(ROWS).collect();
                if let Some(weights) = &weights {
                    kernels.multiply(weights, row..row + ROWS, &x, &mut outs, &mut panel);
                }
                black_box(&mut outs);
            }
            times.1.push(start.elapsed().as_secs_f64());
        }
    }
    let median = |mut times: Vec<f64>| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    };
    let (read, time) = (median(times.0), median(times.1));
    let bytes = (rows * row_bytes) as f64;
    let params = (rows * cols) as f64 / time / 1e9;
    println!(
        "{:11} {:8} {tokens:6}  {:6.1}  {:6.1}   {:5.0} %  {params:8.1}  {:6.0}",
        format!("{:?}", kernels.level()),
        format.name(),
        bytes / time / 1e9,
        bytes / read / 1e9,
        100.0 * read / time,
        params * tokens as f64,
    );
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
        levels: vec![Kernels::detect().level()],
        bytes: 512 << 20,
        cached: false,
    };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().unwrap_or_default();
        match arg.as_str() {
            "--tokens" => wish.tokens = value().split(',').filter_map(|n| n.parse().ok()).collect(),
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
