//! How fast the card reads its weights when it does nothing else: the limit of decoding.

use std::time::Instant;

use ds4_engine::ReadRate;

use crate::{
    device::{Args, Buffer, Device, Kernel, Kernels},
    options::CudaError,
};

/// Enough to tell memory from caches.
const MOST_BYTES: usize = 4 << 30;
/// All launches together read at least so much, small samples again and again.
const READ_AT_LEAST: usize = 32 << 30;
/// No more launches than this, however small the sample.
const MOST_ROUNDS: usize = 64;
const BLOCKS: usize = 4096;
const THREADS: u32 = 256;

#[repr(C)]
#[derive(Clone, Copy)]
struct ReadArgs {
    from: u64,
    out: u64,
    count: u64,
}

// SAFETY: mirrors the kernel's; both addresses are those of buffers that outlive the launches.
unsafe impl Args for ReadArgs {}

/// Reads the largest of these buffers, as many as are needed to tell memory from caches.
pub fn measure(
    device: &Device,
    kernels: &Kernels,
    memory: &[Buffer],
) -> Result<ReadRate, CudaError> {
    let out = device.alloc(4, "a sum")?;
    let sample = sample(memory);
    let bytes: usize = sample.iter().map(|(_, bytes)| bytes).sum();
    let read = || {
        for &(from, bytes) in &sample {
            let args = ReadArgs { from, out: out.address(), count: bytes as u64 / 16 };
            device.launch(kernels, Kernel::ReadWeights, [BLOCKS, 1, 1], THREADS, 0, &args)?;
        }
        Ok::<_, CudaError>(())
    };
    // Once without a clock: the driver loads the kernel, and the card wakes up.
    read()?;
    device.finish()?;
    let rounds = READ_AT_LEAST.div_ceil(bytes.max(1)).min(MOST_ROUNDS);
    let start = Instant::now();
    (0..rounds).try_for_each(|_| read())?;
    device.finish()?;
    let seconds = start.elapsed().as_secs_f64();
    device.take_marks();
    let bytes_per_second = (bytes * rounds) as f64 / seconds.max(1e-9);
    Ok(ReadRate { sample_bytes: bytes, bytes_per_second })
}

/// Addresses and sizes, in whole vectors of 16 bytes.
fn sample(memory: &[Buffer]) -> Vec<(u64, usize)> {
    let mut largest: Vec<&Buffer> = memory.iter().collect();
    largest.sort_by_key(|buffer| std::cmp::Reverse(buffer.len()));
    let mut left = MOST_BYTES;
    largest
        .into_iter()
        .map_while(|buffer| {
            let bytes = buffer.len().min(left) / 16 * 16;
            left -= bytes;
            (bytes > 0).then_some((buffer.address(), bytes))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::testing::on_the_card;

    #[test]
    fn reading_has_a_speed() {
        on_the_card(|device, kernels| {
            let memory = [33, 256 << 20, 100].map(|bytes| device.alloc(bytes, "a sample").unwrap());
            let rate = measure(device, kernels, &memory).unwrap();
            assert_eq!(rate.sample_bytes, 32 + (256 << 20) + 96);
            assert!(rate.bytes_per_second > 1e10, "{rate:?}");
        });
    }
}
