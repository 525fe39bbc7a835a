//! The softmax over what a query sees: its window, the compressed rows, and the sink.
//!
//! Rows are taken in one order, the window first and oldest first, in tiles, with a running maximum;
//! neither chunks nor threads nor other slots have a say in it.

use crate::{
    indexer::{Indexer, Visible},
    kernels::{accumulate, dots},
    pool::{Pool, Scratch, share},
    rope::rotate_back,
    round::Pass,
    rows::RowFormat,
    segments::Segments,
    slot::{Shape, Slot},
    split::RowsMut,
};

/// Rows that are taken together.
const TILE: usize = 32;

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

/// The window rows of all spans: for each what came before it, then its own.
struct Windows {
    values: Vec<f32>,
    /// Where each span's rows begin, and the position of the first of them.
    spans: Vec<(usize, usize)>,
}

/// Replaces the queries `q` `[n, heads, head_dim]` by what they attend to.
pub fn attend(pool: &mut Pool, scene: &Scene<'_>, sinks: &[f32], q: &mut [f32]) {
    let windows = windows(pool, scene);
    let head_dim = scene.pass.config.head_dim;
    let items = q.len() / head_dim;
    let parts = pool.workers().min(items);
    let mut rest = q;
    let mut shares = Vec::with_capacity(parts);
    for part in 0..parts {
        let (start, end) = (share(items, part, parts), share(items, part + 1, parts));
        let (mine, others) = rest.split_at_mut((end - start) * head_dim);
        rest = others;
        shares.push((start, mine));
    }
    let heads = scene.pass.config.heads;
    pool.each(shares, |(mut item, mut q), scratch| {
        while !q.is_empty() {
            let (row, head) = (item / heads, item % heads);
            let count = (heads - head).min(q.len() / head_dim);
            let (mine, others) = q.split_at_mut(count * head_dim);
            attend_row(scene, &windows, row, &sinks[head..head + count], mine, scratch);
            (item, q) = (item + count, others);
        }
    });
}

fn windows(pool: &mut Pool, scene: &Scene<'_>) -> Windows {
    let head_dim = scene.pass.config.head_dim;
    let format = scene.pass.formats.attention;
    // For every row: the span, and how many rows its span has gathered before it.
    let mut rows = Vec::new();
    let mut spans = Vec::new();
    for span in &scene.pass.round.spans {
        let before = scene.shape.window_before(span.start);
        spans.push((rows.len(), before.start));
        rows.extend((before.start..span.end()).map(|position| (span, position)));
    }
    let mut values = vec![0.0; rows.len() * head_dim];
    pool.rows(rows.len(), RowsMut::new(&mut values, head_dim), |i, values, _| {
        let (span, position) = rows[i];
        match position.checked_sub(span.start) {
            Some(own) => {
                let row = span.rows.start + own;
                values.copy_from_slice(&scene.kv[row * head_dim..][..head_dim]);
            }
            None => {
                let window = &scene.slots[span.slot].layers[scene.layer].window;
                format.unpack(window.row(position), values);
            }
        }
    });
    Windows { values, spans }
}

/// Some heads of one row.
fn attend_row(
    scene: &Scene<'_>,
    windows: &Windows,
    row: usize,
    sinks: &[f32],
    q: &mut [f32],
    scratch: &mut Scratch,
) {
    let (config, round) = (scene.pass.config, scene.pass.round);
    let head_dim = config.head_dim;
    let kind = config.layers[scene.layer];
    let position = round.positions[row];

    let memory = scratch.floats((TILE + sinks.len()) * head_dim + TILE + 2 * sinks.len());
    let (tile, memory) = memory.split_at_mut(TILE * head_dim);
    let (sums, memory) = memory.split_at_mut(q.len());
    let (scores, memory) = memory.split_at_mut(TILE);
    let (largest, totals) = memory.split_at_mut(sinks.len());
    // The sink takes part from the start: a logit of its own, and no value.
    largest.copy_from_slice(sinks);
    totals.fill(1.0);
    sums.fill(0.0);
    let scale = 1.0 / (head_dim as f32).sqrt();
    let mut take = |tile: &[f32]| {
        let scores = &mut scores[..tile.len() / head_dim];
        let heads = q.chunks_exact(head_dim).zip(sums.chunks_exact_mut(head_dim));
        for ((q, sum), (largest, total)) in heads.zip(largest.iter_mut().zip(&mut *totals)) {
            dots(tile, q, scores);
            let mut max = *largest;
            for score in &mut *scores {
                *score *= scale;
                max = max.max(*score);
            }
            if max > *largest {
                let shrink = (*largest - max).exp();
                sum.iter_mut().for_each(|sum| *sum *= shrink);
                *total *= shrink;
                *largest = max;
            }
            for score in &mut *scores {
                *score = (*score - max).exp();
                *total += *score;
            }
            accumulate(tile, scores, sum);
        }
    };

    let span = round.spans.iter().position(|span| span.rows.contains(&row));
    if let Some((begin, first)) = span.and_then(|span| windows.spans.get(span)) {
        let seen = scene.shape.window_before(position).start..position + 1;
        let window = &windows.values[(begin + seen.start - first) * head_dim..];
        window[..seen.len() * head_dim].chunks(TILE * head_dim).for_each(&mut take);
    }
    let slot = span.map(|span| &scene.slots[round.spans[span].slot].layers[scene.layer]);
    if let Some(compressed) = slot.and_then(|slot| slot.compressed.as_ref()) {
        let visible = scene.indexer.visible(scene.pass, kind, row);
        for from in (0..visible.len()).step_by(TILE) {
            let count = TILE.min(visible.len() - from);
            let tile = &mut tile[..count * head_dim];
            unpack(scene.pass.formats.attention, &compressed.rows, visible, from, tile);
            take(tile);
        }
    }

    for ((q, sum), total) in
        q.chunks_exact_mut(head_dim).zip(sums.chunks_exact(head_dim)).zip(&*totals)
    {
        q.iter_mut().zip(sum).for_each(|(q, sum)| *q = sum / total);
        // The rows carried their own rotation as keys; as values they must not.
        rotate_back(q, round.turns(kind, row));
    }
}

fn unpack(format: RowFormat, rows: &Segments, visible: Visible<'_>, from: usize, tile: &mut [f32]) {
    for (i, values) in tile.chunks_exact_mut(format.values()).enumerate() {
        format.unpack(rows.row(visible.row(from + i)), values);
    }
}
