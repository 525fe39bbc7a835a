//! What the machine could do at best: how fast it reads these very weights, and how fast it could
//! multiply if it did nothing else.

use std::{
    hint::black_box,
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use ds4_model::Weights;

use crate::{Machine, Summary, statistics::ratio};

/// Enough to tell memory from caches, and little beside a benchmark.
const MOST_BYTES: usize = 4 << 30;
/// A sample below this may lie in the caches.
const CACHES: usize = 256 << 20;
/// Each reading takes at least so many bytes, small samples again and again.
const READ_AT_LEAST: usize = 512 << 20;

/// The machine's limits, as they were while the benchmark ran.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Limits {
    /// Bytes of weights that the bandwidth was measured on.
    pub sample_bytes: usize,
    /// Bytes per second that all cores read together.
    pub read_all: Summary,
    /// Bytes per second that one core reads.
    pub read_one: Summary,
    /// How many cores "all" are.
    pub cores: usize,
    /// The card that computes and whose memory was read, alone in its row of numbers: one core and
    /// integers say nothing of it. `None` where it is the processor.
    pub card: Option<String>,
    /// Where integer multiplication ends, if anything can be said.
    pub integers: Option<IntegerPeak>,
}

impl Limits {
    /// Whether the sample was too small to say anything of the memory.
    pub fn sample_fits_caches(&self) -> bool {
        self.sample_bytes < CACHES
    }
}

/// Products and sums of 8-bit integers. The clock is measured; what a cycle can do is taken from
/// the published throughput of the best instruction that the processor has, and said as such.
#[derive(Clone, Debug, PartialEq)]
pub struct IntegerPeak {
    /// Cycles per second of all cores together.
    pub cycles: f64,
    /// Operations that one core is assumed to do in a cycle, a product and its sum counting as two.
    pub per_cycle: f64,
    /// The assumption in words.
    pub assumption: &'static str,
}

impl IntegerPeak {
    /// Operations per second of all cores.
    pub fn operations(&self) -> f64 {
        self.cycles * self.per_cycle
    }

    /// Measures the clock of `cores` cores under load. `None` where the instruction sets say nothing.
    pub fn measure(machine: &Machine, cores: usize) -> Option<IntegerPeak> {
        let (_, per_cycle, assumption) = *DOT_PRODUCTS
            .iter()
            .find(|(set, ..)| machine.instruction_sets.iter().any(|has| has == set))?;
        Some(IntegerPeak { cycles: clock(cores)?, per_cycle, assumption })
    }
}

/// The best first: the instruction set, 8-bit operations in a cycle, and why.
const DOT_PRODUCTS: &[(&str, f64, &str)] = &[
    ("avx512vnni", 256.0, "two 512-bit dot products a cycle"),
    ("avxvnni", 128.0, "two 256-bit dot products a cycle"),
    ("avx2", 64.0, "two 256-bit multiplications a cycle, two for each product of bytes"),
    ("i8mm", 128.0, "two 128-bit matrix products a cycle"),
    ("dotprod", 64.0, "two 128-bit dot products a cycle"),
];

/// A part of the weights that is read to see how fast they can be read.
pub struct Sample<'a> {
    parts: Vec<&'a [u8]>,
}

impl<'a> Sample<'a> {
    /// The weights in the order in which a token meets them, as far as `room` bytes go. The
    /// embedding is left out: a step reads one row of it.
    pub fn of(weights: &'a Weights, room: Option<u64>) -> Sample<'a> {
        let room = room.map_or(MOST_BYTES, |room| usize::try_from(room).unwrap_or(usize::MAX));
        let mut left = room.min(MOST_BYTES);
        let parts = weights.matrices().skip(1).map_while(|matrix| {
            let part = matrix.data().get(..left).unwrap_or(matrix.data());
            left -= part.len();
            (!part.is_empty()).then_some(part)
        });
        Sample { parts: parts.collect() }
    }

    /// How much it is.
    pub fn bytes(&self) -> usize {
        self.parts.iter().map(|part| part.len()).sum()
    }

    /// Bytes per second that so many threads read together, each a share of its own.
    pub fn read(&self, threads: usize) -> f64 {
        let bytes = self.bytes();
        let rounds = READ_AT_LEAST.div_ceil(bytes.max(1)).min(1 << 16);
        let (time, _) = together(threads, |thread| {
            let share = self.share(thread, threads);
            for _ in 0..rounds {
                for part in &share {
                    black_box(fold(black_box(part)));
                }
            }
        });
        ratio((bytes * rounds) as f64, time.as_secs_f64())
    }

    /// The part of one thread: one stretch of all bytes.
    fn share(&self, thread: usize, threads: usize) -> Vec<&'a [u8]> {
        let bytes = self.bytes();
        let place = |thread: usize| (bytes as u128 * thread as u128 / threads as u128) as usize;
        let (from, to) = (place(thread), place(thread + 1));
        let mut start = 0;
        let mut share = Vec::new();
        for part in &self.parts {
            let clip = |place: usize| place.clamp(start, start + part.len()) - start;
            share.extend(part.get(clip(from)..clip(to)).filter(|piece| !piece.is_empty()));
            start += part.len();
        }
        share
    }
}

/// Does the same on several threads at once. Returns the time from the first start to the last end,
/// and what each gave.
fn together<T: Send>(threads: usize, work: impl Fn(usize) -> T + Sync) -> (Duration, Vec<T>) {
    let barrier = Barrier::new(threads);
    let timed = |thread: usize| {
        barrier.wait();
        let start = Instant::now();
        let result = work(thread);
        (start, Instant::now(), result)
    };
    let results: Vec<(Instant, Instant, T)> = thread::scope(|scope| {
        let timed = &timed;
        let others: Vec<_> = (1..threads).map(|t| scope.spawn(move || timed(t))).collect();
        let own = timed(0);
        [own].into_iter().chain(others.into_iter().filter_map(|other| other.join().ok())).collect()
    });
    let start = results.iter().map(|(start, ..)| *start).min();
    let end = results.iter().map(|(_, end, _)| *end).max();
    let time = start.zip(end).map_or(Duration::ZERO, |(start, end)| end - start);
    (time, results.into_iter().map(|(.., result)| result).collect())
}

/// Reads every byte, from four places at once as a matrix kernel does, and makes one number of them
/// that the compiler cannot do without.
fn fold(bytes: &[u8]) -> u64 {
    let word = |bytes: &[u8; 8]| u64::from_ne_bytes(*bytes);
    let (words, rest) = bytes.as_chunks::<8>();
    let quarter = words.len() / 4;
    let (a, words) = words.split_at(quarter);
    let (b, words) = words.split_at(quarter);
    let (c, words) = words.split_at(quarter);
    let (d, words) = words.split_at(quarter);
    let quarters = a.iter().zip(b).zip(c).zip(d);
    let sum = quarters.fold(0, |sum, (((a, b), c), d)| sum ^ word(a) ^ word(b) ^ word(c) ^ word(d));
    let sum = words.iter().fold(sum, |sum, last| sum ^ word(last));
    rest.iter().fold(sum, |sum, &byte| sum ^ u64::from(byte))
}

/// Cycles per second of so many cores together, by a chain of operations none of which can begin
/// before the last has ended: 3 cycles for a product and 1 for what follows, on every x86 processor
/// that has AVX2. Others do not agree on it.
fn clock(cores: usize) -> Option<f64> {
    const LINKS: u64 = 1 << 18;
    const CYCLES_PER_LINK: u64 = 4;
    const PASSES: usize = 64;
    if !cfg!(target_arch = "x86_64") {
        return None;
    }
    let fastest = |_| {
        let passes = (0..PASSES).map(|_| {
            let start = Instant::now();
            let mut x = black_box(1u64);
            for _ in 0..LINKS {
                x = x.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x2545_f491;
            }
            black_box(x);
            ratio((LINKS * CYCLES_PER_LINK) as f64, start.elapsed().as_secs_f64())
        });
        // Whatever else the machine does only makes a pass slower.
        passes.fold(0.0, f64::max)
    };
    let (_, clocks) = together(cores, fastest);
    Some(clocks.into_iter().sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_everything_once_and_even() {
        let bytes: Vec<u8> = (0..100).collect();
        let sample = Sample { parts: vec![&bytes[..30], &bytes[30..31], &bytes[31..]] };
        for threads in [1, 2, 3, 7, 100, 150] {
            let shares: Vec<_> = (0..threads).map(|t| sample.share(t, threads)).collect();
            assert_eq!(shares.iter().flatten().copied().flatten().count(), 100);
            assert_eq!(shares.concat().concat(), bytes);
            let sizes: Vec<usize> = shares.iter().map(|s| s.concat().len()).collect();
            assert!(sizes.iter().max().unwrap() - sizes.iter().min().unwrap() <= 1, "{sizes:?}");
        }
    }

    #[test]
    fn every_byte_is_read() {
        for length in [0, 1, 63, 64, 100, 256, 1000, 1024 + 64] {
            let bytes = vec![0; length];
            let zero = fold(&bytes);
            for place in 0..length {
                let mut changed = bytes.clone();
                changed[place] = 1;
                assert_ne!(fold(&changed), zero, "byte {place} of {length}");
            }
        }
    }

    #[test]
    fn reading_has_a_speed() {
        let bytes = vec![1u8; 1 << 20];
        let sample = Sample { parts: vec![&bytes] };
        assert!(sample.read(1) > 1e7 && sample.read(2) > 1e7);
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn the_clock_is_that_of_a_processor() {
        let clock = clock(1).unwrap();
        assert!((2e8..2e10).contains(&clock), "{clock}");
    }
}
