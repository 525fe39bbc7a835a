//! The working memory of a round, at fixed addresses, so that a recorded step can be replayed.

use ds4_model::{Compression, Config};

use crate::{
    attend,
    device::{Buffer, Device, DeviceInfo},
    experts::{MOST_CHOICES, tensor},
    hyper, indexer,
    options::{CudaError, CudaOptions},
    round::most_wanted,
    sample,
    slot::Shape,
    tensor::{
        FEW,
        bytes::{InnerNumbers, Numbers},
        wide,
    },
};

/// Rows that attention takes together: its sums are the largest working memory of a row.
pub const ATTEND_ROWS: usize = 32;

/// How much there must be room for.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    /// Rows of the longest round.
    pub rows: usize,
    /// Rows of the longest slice of one.
    pub slice: usize,
    /// Whether vectors are wanted as halves.
    pub fast: bool,
    /// In which forms vectors are wanted.
    pub forms: Forms,
    /// Bytes of a row of the window; 0 if none ever waits for its place in a ring.
    pub waiting: usize,
    /// Whether vectors are packed.
    pub packs: bool,
}

/// In which forms vectors are wanted beside those that always are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forms {
    /// The output of attention as floats: where halves will do, those are many bytes for nothing.
    pub heads: bool,
    /// What its first matrices make of it, as floats.
    pub low: bool,
    /// The inner vectors of experts, as floats.
    pub middle: bool,
    /// What goes into experts, as whole numbers.
    pub numbers: bool,
    /// What experts' outputs are made of, as whole numbers.
    pub inner_numbers: bool,
}

impl Room {
    /// What the options ask for, on a card.
    pub fn new(card: &DeviceInfo, options: &CudaOptions, shape: &Shape, forms: Forms) -> Room {
        let (rows, slice, fast) = (options.rows, options.longest_slice(), options.fast);
        let waiting = if shape.at_once(rows) { 0 } else { shape.formats.attention.bytes as usize };
        Room { rows, slice, fast, forms, waiting, packs: wide::suits(card) }
    }
}

/// Where each activation lies on the card. Of what only attention needs there is as much as for a slice,
/// of logits as much as a round may want.
pub struct Scratch {
    _memory: Option<Buffer>,
    /// `[rows, streams, hidden]`.
    pub streams: u64,
    /// `[rows, mix_rows]`.
    pub mix: u64,
    /// Sums of the streams' projections.
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
    /// `[rows]`: rows of the window that wait for their places in the rings.
    pub waiting: u64,
    /// `[slice, heads, head_dim]`.
    pub q: u64,
    /// `[slice, index heads, index dim]`.
    pub index_q: u64,
    /// The same as codes.
    pub index_codes: u64,
    /// `[slice, index heads, index dim / 32]`.
    pub index_scales: u64,
    /// `[rows, index heads]`.
    pub index_weights: u64,
    /// `[slice, top_k]`.
    pub chosen: u64,
    /// Sums of the parts of attention, of `ATTEND_ROWS` rows.
    pub parts: u64,
    /// Which of them have arrived, and which blocks of a router; zero between launches.
    pub arrivals: u64,
    /// `[rows, heads, head_dim]`, or 0.
    pub heads: u64,
    /// `[rows, o_groups * o_rank]`, or 0.
    pub low: u64,
    /// `[rows, experts]`.
    pub router: u64,
    /// `[rows, experts_used]`.
    pub picked: u64,
    /// `[rows, experts_used]`.
    pub weights: u64,
    /// `[rows, experts_used + 1, expert_hidden]`, or 0.
    pub middle: u64,
    /// `[wanted, hidden]`.
    pub head: u64,
    /// `[wanted, vocab]`.
    pub logits: u64,
    /// The largest logits of groups of tokens.
    pub largest: u64,
    /// Sums of their weights.
    pub sums: u64,
    /// `[wanted]` lists of the best tokens.
    pub lists: u64,
    /// Vectors as halves, where those are wanted.
    pub halves: Halves,
}

/// Vectors as halves, and what the experts need for several rows on tensor cores; all 0 without them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Halves {
    /// Of `x`.
    pub x: u64,
    /// The same as whole numbers, where those are wanted.
    pub numbers: Numbers,
    /// What belongs to `middle` where it is whole numbers.
    pub inner_numbers: InnerNumbers,
    /// Of `qr`.
    pub qr: u64,
    /// Of `heads`.
    pub heads: u64,
    /// Of `low`.
    pub low: u64,
    /// Of `middle`.
    pub middle: u64,
    /// Of `head`.
    pub head: u64,
    /// `[rows, experts_used + 1, hidden]`: outputs of experts, floats.
    pub parts: u64,
    /// `[rows, experts_used + 1]`: pairs of row and choice.
    pub order: u64,
    /// How the pairs are shared out.
    pub items: u64,
    /// Vectors as groups of warps multiply with them; 0 where rounds are too short for that.
    pub packed: u64,
}

impl Scratch {
    /// Working memory for rounds of a model.
    pub fn new(device: &Device, c: &Config, room: Room) -> Result<Scratch, CudaError> {
        let (mut scratch, bytes) = Scratch::lay_out(c, room);
        let memory = device.alloc(bytes, "working memory")?;
        // All of its grain: the router counts in the first words of it too.
        let counts = room.slice * attend::tensor::arrival_bytes(c.heads);
        let none = vec![0u8; counts.next_multiple_of(256)];
        device.write(&memory, scratch.arrivals as usize, &none)?;
        scratch.begin_at(memory.address());
        scratch._memory = Some(memory);
        Ok(scratch)
    }

    /// Bytes that rounds work in.
    pub fn bytes(c: &Config, room: Room) -> usize {
        Scratch::lay_out(c, room).1
    }

    /// Where everything lies, counted from the beginning, and how much it is.
    fn lay_out(c: &Config, room: Room) -> (Scratch, usize) {
        let Room { rows, slice, fast, forms, waiting, packs } = room;
        let wanted = most_wanted(rows);
        // Nothing lies at the beginning: 0 stands for what is not there.
        let mut bytes = 256usize;
        let mut take = |count: usize, each: usize| {
            if count * each == 0 {
                return 0;
            }
            let at = bytes;
            bytes = (bytes + count * each).next_multiple_of(256);
            at as u64
        };
        let windows = Compression::Csa.windows();
        let index = c.indexer.heads * c.indexer.dim;
        let parts = match fast {
            true => attend::tensor::partial_bytes(c.heads, c.head_dim),
            false => attend::partial_bytes(c.heads, c.head_dim),
        };
        let mut scratch = Scratch {
            streams: take(rows, 4 * c.stream_width()),
            mix: take(rows, 4 * c.mix_rows()),
            partial: take(rows, hyper::partial_bytes(c.hidden)),
            x: take(rows, 4 * c.hidden),
            out: take(rows, 4 * c.hidden),
            qr: take(rows, 4 * c.q_rank),
            kv: take(rows, 4 * c.head_dim),
            pending: [(); 2].map(|()| take(rows, 4 * windows * c.head_dim)),
            index_pending: [(); 2].map(|()| take(rows, 4 * windows * c.indexer.dim)),
            waiting: take(if waiting > 0 { rows } else { 0 }, waiting),
            q: take(slice, 4 * c.q_width()),
            index_q: take(slice, 4 * index),
            index_codes: take(slice, index),
            index_scales: take(slice, 4 * index.div_ceil(indexer::GROUP)),
            index_weights: take(rows, 4 * c.indexer.heads),
            chosen: take(slice, 4 * c.indexer.top_k),
            parts: take(ATTEND_ROWS.min(slice), parts),
            arrivals: take(slice, attend::tensor::arrival_bytes(c.heads)),
            heads: take(if forms.heads { rows } else { 0 }, 4 * c.q_width()),
            low: take(if forms.low { rows } else { 0 }, 4 * c.o_low_width()),
            router: take(rows, 4 * c.experts),
            picked: take(rows, 4 * c.experts_used),
            weights: take(rows, 4 * c.experts_used),
            middle: take(
                if forms.middle { rows } else { 0 },
                4 * (c.experts_used + 1) * c.expert_hidden,
            ),
            head: take(wanted, 4 * c.hidden),
            logits: take(wanted, 4 * c.vocab),
            largest: take(wanted, sample::largest_bytes(c.vocab)),
            sums: take(wanted, sample::sum_bytes(c.vocab)),
            lists: take(wanted, sample::LIST_BYTES),
            halves: Halves::default(),
            _memory: None,
        };
        if fast {
            let pairs = c.experts_used + 1;
            // Experts take lines as long as a block can list the choices, if it knows the formats.
            let few = rows.min((MOST_CHOICES / c.experts_used.max(1)).max(FEW));
            let many = if rows > FEW { rows } else { 0 };
            scratch.halves = Halves {
                x: take(rows, 2 * c.hidden),
                numbers: {
                    let [lines, halves, units] = Numbers::row_bytes(c.hidden);
                    Numbers {
                        lines: take(if forms.numbers { few } else { 0 }, lines),
                        halves: take(if forms.numbers { many } else { 0 }, halves),
                        units: take(if forms.numbers { many } else { 0 }, units),
                    }
                },
                inner_numbers: {
                    let of = if forms.inner_numbers { many * pairs } else { 0 };
                    let [sums, units] = InnerNumbers::pair_bytes(c.expert_hidden);
                    InnerNumbers { sums: take(of, sums), units: take(of, units) }
                },
                qr: take(rows, 2 * c.q_rank),
                heads: take(rows, 2 * c.q_width()),
                low: take(rows, 2 * c.o_low_width()),
                middle: take(rows, 2 * pairs * c.expert_hidden),
                head: take(wanted, 2 * c.hidden),
                parts: take(rows, 4 * pairs * c.hidden),
                order: take(rows, 4 * pairs),
                // One for each pair, more where those of one expert are cut, one that says how many.
                items: take(rows, (pairs + pairs / 8 + 2) * tensor::ITEM_BYTES),
                packed: {
                    let inputs = c.hidden.max(c.expert_hidden);
                    let width = c.q_width().max(c.o_low_width()).max(inputs);
                    let bytes = wide::packed_bytes(rows, width, (pairs, c.experts, inputs));
                    take(if packs { 1 } else { 0 }, bytes)
                },
            };
        }
        (scratch, bytes)
    }

    /// Turns places into addresses.
    fn begin_at(&mut self, base: u64) {
        self.all().filter(|at| **at != 0).for_each(|at| *at += base);
    }

    fn all(&mut self) -> impl Iterator<Item = &mut u64> {
        let [pending_kv, pending_score] = &mut self.pending;
        let [index_kv, index_score] = &mut self.index_pending;
        let Halves {
            x,
            numbers,
            inner_numbers,
            qr,
            heads,
            low,
            middle,
            head,
            parts,
            order,
            items,
            packed,
        } = &mut self.halves;
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
            &mut self.waiting,
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
            &mut self.largest,
            &mut self.sums,
            &mut self.lists,
            x,
            &mut numbers.lines,
            &mut numbers.halves,
            &mut numbers.units,
            &mut inner_numbers.sums,
            &mut inner_numbers.units,
            qr,
            heads,
            low,
            middle,
            head,
            parts,
            order,
            items,
            packed,
        ]
        .into_iter()
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use ds4_model::Model;

    use super::*;

    #[test]
    fn everything_that_is_wanted_has_a_place_of_its_own() {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/oracle");
        let config = Model::open(&folder.join("kquant_a-ds4_iq2.gguf")).unwrap().config;
        let room = |fast, floats| {
            let forms = Forms {
                heads: floats,
                low: floats,
                middle: floats,
                numbers: true,
                inner_numbers: true,
            };
            Room { rows: 700, slice: 32, fast, forms, waiting: 584, packs: true }
        };
        // Exact: no halves. Fast, and nobody wants floats: three places fewer.
        for (fast, floats, missing) in [(false, true, 15), (true, true, 0), (true, false, 3)] {
            let (mut scratch, bytes) = Scratch::lay_out(&config, room(fast, floats));
            let mut places: Vec<u64> = scratch.all().map(|at| *at).collect();
            let all = places.len();
            places.retain(|&at| at != 0);
            assert_eq!(all - places.len(), missing);
            assert!(places.iter().all(|at| at % 256 == 0 && *at < bytes as u64));
            scratch.begin_at(1 << 20);
            let moved: Vec<u64> = scratch.all().map(|at| *at).filter(|&at| at != 0).collect();
            assert!(moved.iter().zip(&places).all(|(moved, at)| *moved == at + (1 << 20)));
            places.sort_unstable();
            places.dedup();
            assert_eq!(places.len(), all - missing);
        }
        let bytes = |slice| Scratch::bytes(&config, Room { slice, ..room(true, false) });
        assert!(bytes(32) < bytes(700));
        let bytes = |waiting| Scratch::bytes(&config, Room { waiting, ..room(true, false) });
        assert_eq!(bytes(584) - bytes(0), (700 * 584usize).next_multiple_of(256));
    }
}
