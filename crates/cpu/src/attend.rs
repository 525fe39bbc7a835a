//! The softmax over what a query sees: its window, the compressed rows, and the sink.
//!
//! Cached rows are unpacked once for all heads; then the heads are shared out. Rows are taken in one
//! order, the window first and oldest first, in tiles, with a running maximum; neither chunks nor
//! threads nor other slots have a say in it.

use std::ops::Range;

use crate::{
    floats::{TOGETHER, accumulate, accumulate_together, dots, dots_together, exp_all},
    indexer::{Indexer, Visible},
    norm::unit_rms,
    pool::{Pool, Scratch, share},
    rope::{rotate, rotate_back},
    round::{Pass, fit},
    slot::{LayerSlot, Shape, Slot},
    split::RowsMut,
};

/// Rows that are taken together: as many as stay in the nearest cache.
const TILE: usize = 16;

/// All that the queries of a round can look at in one layer.
pub struct Scene<'a> {
    /// The round.
    pub pass: &'a Pass<'a>,
    /// The shape of the slots.
    pub shape: &'a Shape,
    /// The layer.
    pub layer: usize,
    /// The slots, their compressed rows complete, their windows as before the round.
    pub slots: &'a [Slot],
    /// The round's own rows, as they will be stored.
    pub kv: &'a [f32],
    /// What was chosen.
    pub indexer: &'a Indexer,
}

/// Unpacked rows, kept for their memory.
#[derive(Default)]
pub struct Attend {
    common: Vec<f32>,
    chosen: Vec<f32>,
}

/// What a row is unpacked from.
#[derive(Clone, Copy)]
enum Source<'a> {
    Packed(&'a [u8]),
    /// A row of the round.
    Own(usize),
}

/// Where the rows lie that all queries of a span see: the window, then the compressed ones.
struct Common {
    window: Range<usize>,
    /// Position of the first row of the window.
    first: usize,
    compressed: Range<usize>,
}

impl Attend {
    /// Replaces the query heads `q` `[n, heads, head_dim]`, as they were projected, by what they
    /// attend to.
    pub fn attend(&mut self, pool: &mut Pool, scene: &Scene<'_>, sinks: &[f32], q: &mut [f32]) {
        let (config, round) = (scene.pass.config, scene.pass.round);
        let (sources, spans) = scene.common();
        let common = scene.unpack(pool, &sources, &mut self.common);
        let choosing = (0..round.rows()).any(|row| scene.chosen(row).is_some());
        // What was chosen differs from query to query: so many are unpacked before they are used.
        let block = if choosing { pool.workers().min(8) } else { round.rows() };
        for (b, q) in q.chunks_mut(block * config.q_width()).enumerate() {
            let rows = b * block..b * block + q.len() / config.q_width();
            let sources: Vec<Source<'_>> =
                rows.clone().flat_map(|row| scene.chosen_sources(row)).collect();
            let chosen = scene.unpack(pool, &sources, &mut self.chosen);
            scene.attend(pool, rows, (common, &spans, chosen), sinks, q);
        }
    }
}

impl<'a> Scene<'a> {
    fn layer_of(&self, slot: usize) -> &'a LayerSlot {
        &self.slots[slot].layers[self.layer]
    }

    /// What was chosen for a query, if it had to choose.
    fn chosen(&self, row: usize) -> Option<&'a [u32]> {
        match self.indexer.visible(self.pass, self.pass.config.layers[self.layer], row) {
            Visible::Chosen(rows) => Some(rows),
            Visible::All(_) => None,
        }
    }

    fn chosen_sources(&self, row: usize) -> impl Iterator<Item = Source<'a>> + use<'a> {
        let spans = &self.pass.round.spans;
        let slot = spans.iter().find(|span| span.rows.contains(&row)).map(|span| span.slot);
        let compressed = slot.and_then(|slot| self.layer_of(slot).compressed.as_ref());
        let chosen = self.chosen(row).unwrap_or(&[]);
        compressed.into_iter().flat_map(move |compressed| {
            chosen.iter().map(|&i| Source::Packed(compressed.rows.row(i as usize)))
        })
    }

    /// The rows that all queries of a span see, span after span. A query that chooses sees the
    /// compressed rows another way.
    fn common(&self) -> (Vec<Source<'a>>, Vec<Common>) {
        let (mut sources, mut spans) = (Vec::new(), Vec::new());
        let kind = self.pass.config.layers[self.layer];
        for span in &self.pass.round.spans {
            let layer = self.layer_of(span.slot);
            let before = self.shape.window_before(span.start);
            let (start, first) = (sources.len(), before.start);
            sources.extend(before.map(|position| Source::Packed(layer.window.row(position))));
            sources.extend(span.rows.clone().map(Source::Own));
            let window = start..sources.len();
            let seen = |row| match self.indexer.visible(self.pass, kind, row) {
                Visible::All(count) => count,
                Visible::Chosen(_) => 0,
            };
            let count = span.rows.clone().map(seen).max().unwrap_or(0);
            if let Some(compressed) = &layer.compressed {
                sources.extend((0..count).map(|i| Source::Packed(compressed.rows.row(i))));
            }
            spans.push(Common { first, compressed: window.end..sources.len(), window });
        }
        (sources, spans)
    }

    fn unpack<'v>(
        &self,
        pool: &mut Pool,
        sources: &[Source<'_>],
        values: &'v mut Vec<f32>,
    ) -> &'v [f32] {
        let head_dim = self.pass.config.head_dim;
        let format = self.pass.formats.attention;
        let packed = sources.iter().filter(|source| matches!(source, Source::Packed(_)));
        pool.meter.count(packed.count() * format.bytes(), 0);
        let values = fit(values, sources.len() * head_dim);
        pool.rows(sources.len(), RowsMut::new(values, head_dim), |i, values, _| match sources[i] {
            Source::Packed(row) => format.unpack(row, values),
            Source::Own(row) => values.copy_from_slice(&self.kv[row * head_dim..][..head_dim]),
        });
        values
    }

    /// The queries `rows`, their heads shared out among the workers.
    fn attend(
        &self,
        pool: &mut Pool,
        rows: Range<usize>,
        (common, spans, chosen): (&[f32], &[Common], &[f32]),
        sinks: &[f32],
        q: &mut [f32],
    ) {
        let (config, round) = (self.pass.config, self.pass.round);
        let (head_dim, heads) = (config.head_dim, config.heads);
        let mut chosen = chosen;
        let seen: Vec<[&[f32]; 2]> = rows
            .clone()
            .map(|row| {
                let span = round.spans.iter().position(|span| span.rows.contains(&row));
                let Some(span) = span.map(|span| &spans[span]) else { return [&[][..]; 2] };
                let values =
                    |rows: Range<usize>| &common[rows.start * head_dim..rows.end * head_dim];
                let position = round.positions[row];
                let window = self.shape.window_before(position).start..position + 1;
                let window = window.start - span.first..window.end - span.first;
                let at = span.window.start;
                let window = values(at + window.start..at + window.end);
                let kind = config.layers[self.layer];
                let compressed = match self.indexer.visible(self.pass, kind, row) {
                    Visible::All(count) => {
                        let count = count.min(span.compressed.len());
                        values(span.compressed.start..span.compressed.start + count)
                    }
                    Visible::Chosen(ids) => {
                        let (mine, others) = chosen.split_at(ids.len() * head_dim);
                        chosen = others;
                        mine
                    }
                };
                [window, compressed]
            })
            .collect();
        let pairs: usize = seen.iter().flatten().map(|rows| rows.len()).sum();
        pool.meter.count(0, 4 * pairs * heads);

        // Workers get whole groups of heads that are computed together.
        let groups = heads.div_ceil(TOGETHER);
        let parts = pool.workers().min(rows.len() * groups);
        let at = |part| {
            let group = share(rows.len() * groups, part, parts);
            group / groups * heads + heads.min(group % groups * TOGETHER)
        };
        let mut rest = q;
        let mut shares = Vec::with_capacity(parts);
        for part in 0..parts {
            let (mine, others) = rest.split_at_mut((at(part + 1) - at(part)) * head_dim);
            rest = others;
            shares.push((at(part), mine));
        }
        pool.each(shares, |(mut item, mut q), scratch| {
            while !q.is_empty() {
                let (row, head) = (item / heads, item % heads);
                let count = (heads - head).min(q.len() / head_dim);
                let (mine, others) = q.split_at_mut(count * head_dim);
                let sinks = &sinks[head..head + count];
                self.attend_heads(rows.start + row, seen[row], sinks, mine, scratch);
                (item, q) = (item + count, others);
            }
        });
    }

    /// Some heads of one query, and the rows that they see.
    fn attend_heads(
        &self,
        row: usize,
        seen: [&[f32]; 2],
        sinks: &[f32],
        q: &mut [f32],
        scratch: &mut Scratch,
    ) {
        let config = self.pass.config;
        let head_dim = config.head_dim;
        let turns = self.pass.round.turns(config.layers[self.layer], row);
        // Every head is divided by its own root mean square, then rotated.
        for q in q.chunks_exact_mut(head_dim) {
            unit_rms(q, config.rms_eps);
            rotate(q, turns);
        }
        let memory = scratch.floats(q.len() + TOGETHER * TILE + 2 * sinks.len());
        let (sums, memory) = memory.split_at_mut(q.len());
        let (scores, memory) = memory.split_at_mut(TOGETHER * TILE);
        let (largest, totals) = memory.split_at_mut(sinks.len());
        // The sink takes part from the start: a logit of its own, and no value.
        largest.copy_from_slice(sinks);
        totals.fill(1.0);
        sums.fill(0.0);
        for tile in seen.into_iter().flat_map(|rows| rows.chunks(TILE * head_dim)) {
            let softmax = largest.chunks_mut(TOGETHER).zip(totals.chunks_mut(TOGETHER));
            let heads = q.chunks(TOGETHER * head_dim).zip(sums.chunks_mut(TOGETHER * head_dim));
            for ((q, sums), (largest, totals)) in heads.zip(softmax) {
                take(tile, head_dim, q, sums, scores, largest, totals);
            }
        }
        for ((q, sum), total) in
            q.chunks_exact_mut(head_dim).zip(sums.chunks_exact(head_dim)).zip(&*totals)
        {
            q.iter_mut().zip(sum).for_each(|(q, sum)| *q = sum / total);
            // The rows carried their own rotation as keys; as values they must not.
            rotate_back(q, turns);
        }
    }
}

/// A few heads look at a few rows.
fn take(
    tile: &[f32],
    head_dim: usize,
    q: &[f32],
    sums: &mut [f32],
    scores: &mut [f32],
    largest: &mut [f32],
    totals: &mut [f32],
) {
    let count = tile.len() / head_dim;
    let scores = &mut scores[..largest.len() * count];
    let scale = 1.0 / (head_dim as f32).sqrt();
    if let Some(q) = four(q, head_dim)
        && let Some(mut scores) = four_mut(scores, count)
    {
        dots_together(tile, q, &mut scores);
    } else {
        for (q, scores) in q.chunks_exact(head_dim).zip(scores.chunks_exact_mut(count)) {
            dots(tile, q, scores);
        }
    }
    let softmax = largest.iter_mut().zip(totals);
    for ((scores, sum), (largest, total)) in
        scores.chunks_exact_mut(count).zip(sums.chunks_exact_mut(head_dim)).zip(softmax)
    {
        let mut max = *largest;
        for score in &mut *scores {
            *score *= scale;
            max = max.max(*score);
        }
        if max > *largest {
            let shrink = exp_one(*largest - max);
            sum.iter_mut().for_each(|sum| *sum *= shrink);
            *total *= shrink;
            *largest = max;
        }
        *total = exp_all(scores, max, *total);
    }
    if let Some(scores) = four(scores, count)
        && let Some(mut sums) = four_mut(sums, head_dim)
    {
        accumulate_together(tile, scores, &mut sums);
    } else {
        for (scores, sum) in scores.chunks_exact(count).zip(sums.chunks_exact_mut(head_dim)) {
            accumulate(tile, scores, sum);
        }
    }
}

fn exp_one(x: f32) -> f32 {
    let mut x = [x];
    exp_all(&mut x, 0.0, 0.0)
}

/// Rows of a buffer that has as many as are computed together.
fn four(buffer: &[f32], width: usize) -> Option<[&[f32]; TOGETHER]> {
    let mut rows = buffer.chunks_exact(width);
    let full = rows.len() == TOGETHER;
    full.then(|| std::array::from_fn(|_| rows.next().unwrap_or(&[])))
}

/// As `four`, to write.
fn four_mut(buffer: &mut [f32], width: usize) -> Option<[&mut [f32]; TOGETHER]> {
    let mut rows = buffer.chunks_exact_mut(width);
    let full = rows.len() == TOGETHER;
    full.then(|| std::array::from_fn(|_| rows.next().unwrap_or(&mut [])))
}
