//! A slot's state in the form that every backend shares, out and in.

use std::ops::Range;

use ds4_engine::{ExecError, LayerState, Pending, SlotState};
use ds4_model::{Compression, Rounding};

use crate::{
    rows::RowFormat,
    segments::Segments,
    slot::{Compressed, LayerSlot, Shape, Slot, pending_positions},
    tail::Tail,
};

/// The state of a slot, as deep as `rewind` positions back, or as deep as there is.
pub fn export(slot: &Slot, shape: &Shape, rounding: Rounding, rewind: usize) -> SlotState {
    let len = slot.len;
    let rewind = rewind.min(len - slot.floor);
    let layer = |(layer, &kind): (&LayerSlot, &Compression)| {
        let positions = pending_positions(kind, len - rewind, len);
        let rows = |of: &Option<Compressed>| match of {
            Some(of) => of.rows.to_bytes(len / kind.ratio()),
            None => Vec::new(),
        };
        let pending = |of: &Option<Compressed>| match of {
            Some(of) => split_pending(&of.pending, positions.clone()),
            None => Pending::default(),
        };
        LayerState {
            window: layer.window.copy(window_positions(shape, len, rewind)),
            compressed: rows(&layer.compressed),
            index: rows(&layer.index),
            pending: pending(&layer.compressed),
            index_pending: pending(&layer.index),
        }
    };
    let layers = slot.layers.iter().zip(&shape.layers).map(layer).collect();
    SlotState { len, rounding, rewind, layers }
}

/// A slot with an exported state. Every size must be what the lengths say.
pub fn import(state: &SlotState, shape: &Shape, rounding: Rounding) -> Result<Slot, ExecError> {
    let wrong = ExecError::StateMismatch;
    if state.rounding != rounding {
        let theirs = state.rounding;
        return Err(wrong(format!("it is rounded {theirs:?}, this executor {rounding:?}")));
    }
    if state.layers.len() != shape.layers.len() {
        let (found, wanted) = (state.layers.len(), shape.layers.len());
        return Err(wrong(format!("it has {found} layers, the model {wanted}")));
    }
    if state.rewind > state.len {
        return Err(wrong(format!("rewind {} is beyond its length {}", state.rewind, state.len)));
    }
    for (number, (layer, &kind)) in state.layers.iter().zip(&shape.layers).enumerate() {
        check_layer(state, layer, kind, shape).map_err(|(what, wanted, found)| {
            wrong(format!("layer {number}: {what} has {found} bytes or values, {wanted} needed"))
        })?;
    }

    let mut slot = Slot::new(shape);
    slot.len = state.len;
    slot.floor = state.len - state.rewind.min(shape.rewind);
    for (layer, from) in slot.layers.iter_mut().zip(&state.layers) {
        layer.window.restore(&from.window, state.len);
        let fill = |to: &mut Compressed, rows: &[u8], pending: &Pending, format: RowFormat| {
            to.rows = Segments::from_bytes(format.bytes(), rows);
            to.pending.restore(&join_pending(pending, to.pending.width()), state.len);
        };
        if let Some(to) = &mut layer.compressed {
            fill(to, &from.compressed, &from.pending, shape.formats.attention);
        }
        if let Some(to) = &mut layer.index {
            fill(to, &from.index, &from.index_pending, shape.formats.index);
        }
    }
    Ok(slot)
}

type Mismatch = (&'static str, usize, usize);

fn check_layer(
    state: &SlotState,
    layer: &LayerState,
    kind: Compression,
    shape: &Shape,
) -> Result<(), Mismatch> {
    let check = |what, wanted, found| match wanted == found {
        true => Ok(()),
        false => Err((what, wanted, found)),
    };
    // A length that would overflow cannot match: no state in memory is that large.
    let sized = usize::saturating_mul;
    let (attention, index) = (shape.formats.attention, shape.formats.index);
    let window = window_positions(shape, state.len, state.rewind).len();
    check("the window", sized(window, attention.bytes()), layer.window.len())?;

    let rows = state.len.checked_div(kind.ratio()).unwrap_or(0);
    let index_rows = if kind == Compression::Csa { rows } else { 0 };
    check("the compressed rows", sized(rows, attention.bytes()), layer.compressed.len())?;
    check("the index rows", sized(index_rows, index.bytes()), layer.index.len())?;

    let positions = pending_positions(kind, state.len - state.rewind, state.len).len();
    let index_positions = if kind == Compression::Csa { positions } else { 0 };
    let pending = sized(positions, kind.windows() * attention.values());
    check("pending values", pending, layer.pending.kv.len())?;
    check("pending scores", pending, layer.pending.score.len())?;
    let pending = sized(index_positions, kind.windows() * index.values());
    check("pending index values", pending, layer.index_pending.kv.len())?;
    check("pending index scores", pending, layer.index_pending.score.len())
}

/// The window rows that a state of this depth holds.
fn window_positions(shape: &Shape, len: usize, rewind: usize) -> Range<usize> {
    len.saturating_sub(shape.window - 1 + rewind)..len
}

fn split_pending(tail: &Tail<f32>, positions: Range<usize>) -> Pending {
    let half = tail.width() / 2;
    let mut pending = Pending::default();
    for position in positions {
        let (kv, score) = tail.row(position).split_at(half);
        pending.kv.extend_from_slice(kv);
        pending.score.extend_from_slice(score);
    }
    pending
}

fn join_pending(pending: &Pending, width: usize) -> Vec<f32> {
    let values = pending.kv.chunks_exact(width / 2);
    let scores = pending.score.chunks_exact(width / 2);
    values.zip(scores).flat_map(|(kv, score)| kv.iter().chain(score)).copied().collect()
}
