//! The working memory of a round, at fixed addresses, so that a recorded step can be replayed.

use ds4_model::{Compression, Config};

use crate::{
    attend,
    device::{Buffer, Device},
    hyper, indexer,
    int8::{self, Quantised},
    options::CudaError,
};

/// Rows that attention takes together: its sums are the largest working memory of a row.
pub const ATTEND_ROWS: usize = 32;

/// Where each activation lies on the card.
pub struct Scratch {
    memory: Buffer,
    /// `[rows, streams, hidden]`.
    pub streams: u64,
    /// `[rows, mix_rows]`.
    pub mix: u64,
    /// `[rows, mix_rows + 1, chunks]`.
    pub partial: u64,
    /// `[rows, hidden]`: what a block reads.
    pub x: u64,
    /// `[rows, hidden]`: what it gives.
    pub out: u64,
    /// `[rows, q_rank]`.
    pub qr: u64,
    /// `[rows, head_dim]`.
    pub kv: u64,
    /// `[rows, windows * head_dim]`: values, scores.
    pub pending: [u64; 2],
    /// `[rows, windows * index dim]`: values, scores.
    pub index_pending: [u64; 2],
    /// `[rows, heads, head_dim]`.
    pub q: u64,
    /// `[rows, index heads, index dim]`, as `f32` and as codes.
    pub index_q: u64,
    /// The same as codes.
    pub index_codes: u64,
    /// `[rows, index heads, index dim / 32]`.
    pub index_scales: u64,
    /// `[rows, index heads]`.
    pub index_weights: u64,
    /// `[rows, top_k]`.
    pub chosen: u64,
    /// Sums of the parts of attention, of `ATTEND_ROWS` rows.
    pub parts: u64,
    /// Which of them have arrived; zero between launches.
    pub arrivals: u64,
    /// `[rows, heads, head_dim]`.
    pub heads: u64,
    /// `[rows, o_groups * o_rank]`.
    pub low: u64,
    /// `[rows, experts]`.
    pub router: u64,
    /// `[rows, experts_used]`.
    pub picked: u64,
    /// `[rows, experts_used]`.
    pub weights: u64,
    /// `[rows, experts_used + 1, expert_hidden]`.
    pub middle: u64,
    /// `[wanted, hidden]`.
    pub head: u64,
    /// `[wanted, vocab]`.
    pub logits: u64,
    /// Vectors in eight bits, where those are wanted.
    pub quantised: QuantisedScratch,
}

/// Vectors in eight bits; those whose width the kernels cannot quantise are not there.
#[derive(Clone, Copy, Debug, Default)]
pub struct QuantisedScratch {
    /// Of `x`.
    pub x: Quantised,
    /// Of `qr`.
    pub qr: Quantised,
    /// Of `heads`.
    pub heads: Quantised,
    /// Of `low`.
    pub low: Quantised,
    /// Of `middle`.
    pub middle: Quantised,
    /// Of `head`.
    pub head: Quantised,
}

impl Scratch {
    /// Working memory for rounds of up to `rows` rows.
    pub fn new(device: &Device, c: &Config, rows: usize, int8: bool) -> Result<Scratch, CudaError> {
        let mut bytes = 0usize;
        let mut take = |each: usize| {
            let at = bytes;
            bytes = (bytes + rows * each).next_multiple_of(256);
            at as u64
        };
        let windows = Compression::Csa.windows();
        let index = c.indexer.heads * c.indexer.dim;
        let parts = match int8 {
            true => attend::tensor::partial_bytes(c.heads, c.head_dim),
            false => attend::partial_bytes(c.heads, c.head_dim),
        };
        let mut scratch = Scratch {
            streams: take(4 * c.stream_width()),
            mix: take(4 * c.mix_rows()),
            partial: take(4 * hyper::chunks(c.hidden) * (c.mix_rows() + 1)),
            x: take(4 * c.hidden),
            out: take(4 * c.hidden),
            qr: take(4 * c.q_rank),
            kv: take(4 * c.head_dim),
            pending: [(); 2].map(|()| take(4 * windows * c.head_dim)),
            index_pending: [(); 2].map(|()| take(4 * windows * c.indexer.dim)),
            q: take(4 * c.q_width()),
            index_q: take(4 * index),
            index_codes: take(index),
            index_scales: take(4 * index.div_ceil(indexer::GROUP)),
            index_weights: take(4 * c.indexer.heads),
            chosen: take(4 * c.indexer.top_k),
            parts: take(parts * ATTEND_ROWS.min(rows) / rows + 16),
            arrivals: take(attend::tensor::arrival_bytes(c.heads)),
            heads: take(4 * c.q_width()),
            low: take(4 * c.o_low_width()),
            router: take(4 * c.experts),
            picked: take(4 * c.experts_used),
            weights: take(4 * c.experts_used),
            middle: take(4 * (c.experts_used + 1) * c.expert_hidden),
            head: take(4 * c.hidden),
            logits: take(4 * c.vocab),
            quantised: QuantisedScratch::default(),
            memory: device.alloc(0, "working memory")?,
        };
        if int8 {
            // A warp quantises 32 values, or four times 32, and no part of that.
            let mut quantised = |width: usize, unit: usize| match width.is_multiple_of(unit) {
                true => Quantised {
                    codes: take(width),
                    scales: take(4 * width / int8::GROUP),
                    sums: take(8 * width / int8::GROUP),
                },
                false => Quantised::default(),
            };
            let whole_heads = c.head_dim.is_multiple_of(128);
            scratch.quantised = QuantisedScratch {
                x: quantised(c.hidden, 128),
                head: quantised(c.hidden, 128),
                qr: quantised(c.q_rank, 32),
                heads: if whole_heads { quantised(c.q_width(), 128) } else { Quantised::default() },
                low: quantised(c.o_low_width(), 32),
                middle: quantised(
                    (c.experts_used + 1) * c.expert_hidden,
                    32 * (c.experts_used + 1),
                ),
            };
        }
        scratch.memory = device.alloc(bytes, "working memory")?;
        let none = vec![0u8; rows * attend::tensor::arrival_bytes(c.heads)];
        device.write(&scratch.memory, scratch.arrivals as usize, &none)?;
        let base = scratch.memory.address();
        for at in scratch.all() {
            *at += base;
        }
        let QuantisedScratch { x, qr, heads, low, middle, head } = &mut scratch.quantised;
        for quantised in [x, qr, heads, low, middle, head] {
            // Sums come last, so they are nowhere only where nothing is.
            if quantised.sums != 0 {
                quantised.codes += base;
                quantised.scales += base;
                quantised.sums += base;
            }
        }
        Ok(scratch)
    }

    fn all(&mut self) -> impl Iterator<Item = &mut u64> {
        let [pending_kv, pending_score] = &mut self.pending;
        let [index_kv, index_score] = &mut self.index_pending;
        [
            &mut self.streams,
            &mut self.mix,
            &mut self.partial,
            &mut self.x,
            &mut self.out,
            &mut self.qr,
            &mut self.kv,
            pending_kv,
            pending_score,
            index_kv,
            index_score,
            &mut self.q,
            &mut self.index_q,
            &mut self.index_codes,
            &mut self.index_scales,
            &mut self.index_weights,
            &mut self.chosen,
            &mut self.parts,
            &mut self.arrivals,
            &mut self.heads,
            &mut self.low,
            &mut self.router,
            &mut self.picked,
            &mut self.weights,
            &mut self.middle,
            &mut self.head,
            &mut self.logits,
        ]
        .into_iter()
    }
}
