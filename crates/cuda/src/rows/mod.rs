//! What a layer keeps of each row, the rows that it makes of windows of tokens, and copies of rings.

use ds4_model::{Compression, Config, Rounding};
use ds4_quant::{IndexRow, KvRow, QuantError};

use crate::{
    device::{Args, Device, Kernel, Kernels, Words},
    options::CudaError,
};

/// How rows are encoded, as the kernels want to know it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RowFormat {
    /// 1: `f32`; 0: packed.
    pub plain: u32,
    /// Values of a row.
    pub values: u32,
    /// Trailing values that turn with the position.
    pub rope: u32,
    /// Bytes from one row to the next on the card.
    pub bytes: u32,
    /// Packed attention rows: values that are codes.
    pub nope: u32,
    /// Packed attention rows: where the halves begin.
    pub rope_at: u32,
}

/// The encodings of a model's rows.
#[derive(Clone, Copy, Debug)]
pub struct RowFormats {
    /// Window rows and compressed rows.
    pub attention: RowFormat,
    /// Index rows.
    pub index: RowFormat,
    /// Bytes of an index row as backends exchange them; on the card rows begin at multiples of four.
    pub index_bytes: usize,
}

impl RowFormats {
    /// Those of a model, or why its shapes cannot be encoded.
    pub fn new(config: &Config, rounding: Rounding) -> Result<RowFormats, QuantError> {
        let rope = config.rope.dims as u32;
        let plain = |values: usize| RowFormat {
            plain: 1,
            values: values as u32,
            rope,
            bytes: 4 * values as u32,
            ..RowFormat::default()
        };
        let (attention, index) = (plain(config.head_dim), plain(config.indexer.dim));
        if rounding == Rounding::Plain {
            return Ok(RowFormats { attention, index, index_bytes: index.bytes as usize });
        }
        let row = KvRow::new(config.head_dim, config.rope.dims)?;
        let attention = RowFormat {
            plain: 0,
            bytes: row.bytes() as u32,
            nope: row.nope() as u32,
            rope_at: row.rope_at() as u32,
            ..attention
        };
        if !config.layers.contains(&Compression::Csa) {
            return Ok(RowFormats { attention, index, index_bytes: index.bytes as usize });
        }
        let dim = config.indexer.dim;
        if !dim.is_power_of_two() {
            return Err(QuantError::NotPowerOfTwo(dim));
        }
        let index_bytes = IndexRow::new(dim)?.bytes();
        let bytes = index_bytes.next_multiple_of(4) as u32;
        Ok(RowFormats { attention, index: RowFormat { plain: 0, bytes, ..index }, index_bytes })
    }
}

/// A compressor's projections of this round, where they are kept, and the rows that it makes of them.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct CompressorArgs {
    /// `[rows, windows * values]`.
    pub kv: u64,
    /// `[rows, windows * values]`.
    pub score: u64,
    /// `[ratio, windows * values]`.
    pub ape: u64,
    /// `[values]`.
    pub norm: u64,
    /// Of the ring, in the slot's arena.
    pub at: u64,
    /// The layer's rows, in a page.
    pub row_at: u64,
    /// Of its rows.
    pub format: RowFormat,
    /// Positions of the ring.
    pub depth: u32,
    /// 1: it makes index rows.
    pub index: u32,
}

/// What `keep_rows` wants to know.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct KeepArgs {
    /// The slice's rows.
    pub rows: u64,
    /// `[rows, 4, rope / 2]`.
    pub turns: u64,
    /// `[rows, q_rank]`.
    pub qr: u64,
    /// `[q_rank]`.
    pub qr_norm: u64,
    /// `[rows, head_dim]`.
    pub kv: u64,
    /// `[head_dim]`.
    pub kv_norm: u64,
    /// Of attention rows.
    pub format: RowFormat,
    /// The layer's, the indexer's.
    pub compressors: [CompressorArgs; 2],
    /// The window's ring, in the slot's arena.
    pub window_at: u64,
    /// Its positions.
    pub window_depth: u32,
    /// Rank of the query.
    pub q_rank: u32,
    /// Tokens of a compressed row, a power of two; 1 where there are none.
    pub ratio: u32,
    /// Windows that overlap in it.
    pub windows: u32,
    /// Which rotation.
    pub turn: u32,
    /// That of compressed rows.
    pub compressed_turn: u32,
    /// Of the norms.
    pub eps: f32,
    /// Padding.
    pub unused: u32,
    /// The same as halves, or 0.
    pub half: u64,
    /// `[rows]`: the round's rows of the window; 0 where all go into the rings at once.
    pub waiting: u64,
}

// SAFETY: mirrors the kernel's; the addresses are those of weights, scratch and open slots.
unsafe impl Args for KeepArgs {}

/// Threads of a job.
const KEEPERS: u32 = 512;

/// Keeps the rows of a slice, and makes the compressed rows of all windows that end in it; `compressors` is
/// how many of the two the layer has. The slices of its round that stand before it must have been kept.
pub fn keep(
    device: &Device,
    kernels: &Kernels,
    rows: usize,
    compressors: usize,
    args: &KeepArgs,
) -> Result<(), CudaError> {
    let shared = keep_shared(args).max(4 * args.q_rank as usize);
    device.launch(kernels, Kernel::KeepRows, [rows, 2 + compressors, 1], KEEPERS, shared, args)
}

/// Shared memory of the jobs but for that of the query: the values of a row, and weights of a norm.
pub fn keep_shared(args: &KeepArgs) -> usize {
    let values =
        args.compressors.iter().map(|c| c.format.values).fold(args.format.values, u32::max);
    8 * values as usize
}

/// Takes rows that have waited into the rings. `rows` and `args` mean the whole round, whose every slice
/// has been kept and looked back from.
pub fn settle(
    device: &Device,
    kernels: &Kernels,
    rows: usize,
    args: &KeepArgs,
) -> Result<(), CudaError> {
    device.launch(kernels, Kernel::SettleRows, [rows, 1, 1], KEEPERS, 0, args)
}

/// A ring of a slot's arena.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ring {
    /// Where it begins.
    pub at: u64,
    /// Bytes of a row of each ring before this one.
    pub before: u64,
    /// Bytes of a row, a multiple of four.
    pub row_bytes: u32,
    /// Positions that it holds.
    pub depth: u32,
}

// SAFETY: numbers without padding.
unsafe impl Words for Ring {}

/// What `save_rows` wants to know.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct SaveArgs {
    /// The rings of every slot.
    pub rings: u64,
    /// The round's rows.
    pub rows: u64,
    /// For each ring `capacity` rows.
    pub buffer: u64,
    /// Rows of a ring's share of the buffer.
    pub capacity: u64,
}

// SAFETY: mirrors the kernel's; the addresses are those of the executor and of open slots.
unsafe impl Args for SaveArgs {}

/// Saves what the rows of the round are about to overwrite in `rings` rings.
pub fn save(
    device: &Device,
    kernels: &Kernels,
    rings: usize,
    rows: usize,
    args: &SaveArgs,
) -> Result<(), CudaError> {
    device.launch(kernels, Kernel::SaveRows, [rings, rows, 1], 256, 0, args)
}

/// Which positions of a ring are copied, and where their copies lie.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingCopy {
    /// Where the copies begin.
    pub at: u64,
    /// The first position.
    pub from: u32,
    /// How many.
    pub count: u32,
}

// SAFETY: numbers without padding.
unsafe impl Words for RingCopy {}

/// What `copy_rings` wants to know.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct CopyArgs {
    /// The rings of every slot.
    pub rings: u64,
    /// One for each ring.
    pub copies: u64,
    /// The slot's rings.
    pub arena: u64,
    /// The copies.
    pub buffer: u64,
    /// 0: from the rings to the buffer; 1: back.
    pub restore: u32,
    /// Padding.
    pub unused: u32,
}

// SAFETY: mirrors the kernel's; the caller waits for it while it holds what the addresses name.
unsafe impl Args for CopyArgs {}

/// Copies positions of `rings` rings, or puts them back.
pub fn copy(
    device: &Device,
    kernels: &Kernels,
    rings: usize,
    args: &CopyArgs,
) -> Result<(), CudaError> {
    device.launch(kernels, Kernel::CopyRings, [64, rings, 1], 128, 0, args)
}
