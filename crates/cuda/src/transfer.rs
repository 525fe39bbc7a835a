//! A slot's state in the form that every backend shares, out and in.

use std::ops::Range;

use ds4_engine::{ExecError, LayerState, Pending, SlotState, first_needed};
use ds4_model::{Compression, Rounding};

use crate::{
    options::CudaError,
    pages::PAGE_TOKENS,
    slot::{LayerShape, Shape, Slot, Tools},
};

/// The state of a slot, as deep as `rewind` positions back, or as deep as there is.
pub fn export(
    slot: &Slot,
    tools: Tools<'_>,
    rounding: Rounding,
    rewind: usize,
) -> Result<SlotState, CudaError> {
    let (device, shape) = (tools.device, tools.shape);
    let rewind = rewind.min(slot.len - slot.floor);
    let (copies, bytes) = shape.copies(slot.len, rewind);
    let tails = tools.bring(slot, &copies, bytes)?;
    let mut pages = Vec::new();
    for page in slot.pages.pages() {
        let mut bytes = vec![0u8; page.len()];
        device.read(page, 0, &mut bytes)?;
        pages.push(bytes);
    }

    let tail = |ring: usize| {
        let len = copies[ring].count as usize * shape.rings[ring].row_bytes as usize;
        &tails[copies[ring].at as usize..][..len]
    };
    let layer = |layer: &LayerShape| {
        let pending = |ring: Option<usize>| {
            ring.map_or_else(Pending::default, |ring| {
                split(tail(ring), shape.rings[ring].row_bytes as usize)
            })
        };
        LayerState {
            window: tail(layer.window).to_vec(),
            compressed: rows(&pages, layer, slot.len, &Rows::compressed(shape, layer)),
            index: rows(&pages, layer, slot.len, &Rows::index(shape, layer)),
            pending: pending(layer.pending),
            index_pending: pending(layer.index_pending),
        }
    };
    let layers = shape.layers.iter().map(layer).collect();
    Ok(SlotState { len: slot.len, rounding, rewind, layers })
}

/// A slot with an exported state. Every size must be what the lengths say.
pub fn import(state: &SlotState, tools: Tools<'_>, rounding: Rounding) -> Result<Slot, ExecError> {
    let (device, shape) = (tools.device, tools.shape);
    let wrong = |what: String| Err(ExecError::StateMismatch(what));
    if state.rounding != rounding {
        return wrong(format!("it is rounded {:?}, this executor {rounding:?}", state.rounding));
    }
    if state.layers.len() != shape.layers.len() {
        let (found, wanted) = (state.layers.len(), shape.layers.len());
        return wrong(format!("it has {found} layers, the model {wanted}"));
    }
    if state.rewind > state.len || state.len > u32::MAX as usize {
        return wrong(format!("rewind {} of {} tokens", state.rewind, state.len));
    }
    for (number, (layer, of)) in state.layers.iter().zip(&shape.layers).enumerate() {
        if let Some((what, wanted, found)) = mismatch(state, layer, of, shape) {
            return wrong(format!(
                "layer {number}: {what} has {found} bytes or values, {wanted} needed"
            ));
        }
    }

    let mut slot = Slot::new(tools)?;
    slot.pages.reserve(device, 0, state.len)?;
    let mut pages: Vec<Vec<u8>> =
        slot.pages.pages().iter().map(|page| vec![0u8; page.len()]).collect();
    for (layer, of) in state.layers.iter().zip(&shape.layers) {
        fill(&mut pages, of, &layer.compressed, &Rows::compressed(shape, of));
        fill(&mut pages, of, &layer.index, &Rows::index(shape, of));
    }
    for (page, bytes) in slot.pages.pages().iter().zip(&pages) {
        device.write(page, 0, bytes)?;
    }

    // Rings hold what this executor can rewind; a state that goes further back is cut.
    let rewind = state.rewind.min(shape.rewind);
    let (copies, bytes) = shape.copies(state.len, rewind);
    let mut tails = vec![0u8; bytes];
    let mut put = |ring: usize, rows: &[u8]| {
        let len = copies[ring].count as usize * shape.rings[ring].row_bytes as usize;
        tails[copies[ring].at as usize..][..len].copy_from_slice(&rows[rows.len() - len..]);
    };
    for (layer, of) in state.layers.iter().zip(&shape.layers) {
        put(of.window, &layer.window);
        for (ring, pending) in
            [(of.pending, &layer.pending), (of.index_pending, &layer.index_pending)]
        {
            if let Some(ring) = ring {
                put(ring, &join(pending, shape.rings[ring].row_bytes as usize));
            }
        }
    }
    tools.put(&slot, &copies, &tails)?;
    slot.len = state.len;
    slot.floor = state.len - rewind;
    Ok(slot)
}

/// Where the rows of one kind lie in a page, and how many bytes of each are exchanged.
struct Rows {
    at: usize,
    stride: usize,
    bytes: usize,
    exist: bool,
}

impl Rows {
    fn compressed(shape: &Shape, layer: &LayerShape) -> Rows {
        let stride = shape.formats.attention.bytes as usize;
        Rows { at: layer.compressed_at, stride, bytes: stride, exist: layer.pending.is_some() }
    }

    fn index(shape: &Shape, layer: &LayerShape) -> Rows {
        Rows {
            at: layer.index_at,
            stride: shape.formats.index.bytes as usize,
            bytes: shape.formats.index_bytes,
            exist: layer.index_pending.is_some(),
        }
    }

    /// Where a row lies: its page, and its bytes there.
    fn place(&self, kind: Compression, index: usize) -> (usize, Range<usize>) {
        let per_page = PAGE_TOKENS / kind.ratio();
        let at = self.at + index % per_page * self.stride;
        (index / per_page, at..at + self.bytes)
    }
}

fn rows(pages: &[Vec<u8>], layer: &LayerShape, len: usize, of: &Rows) -> Vec<u8> {
    let count = if of.exist { len / layer.kind.ratio() } else { 0 };
    let mut bytes = Vec::with_capacity(count * of.bytes);
    for index in 0..count {
        let (page, range) = of.place(layer.kind, index);
        bytes.extend_from_slice(&pages[page][range]);
    }
    bytes
}

fn fill(pages: &mut [Vec<u8>], layer: &LayerShape, bytes: &[u8], of: &Rows) {
    for (index, row) in bytes.chunks_exact(of.bytes.max(1)).enumerate() {
        let (page, range) = of.place(layer.kind, index);
        pages[page][range].copy_from_slice(row);
    }
}

type Mismatch = (&'static str, usize, usize);

fn mismatch(
    state: &SlotState,
    layer: &LayerState,
    of: &LayerShape,
    shape: &Shape,
) -> Option<Mismatch> {
    let (len, rewind, kind) = (state.len, state.rewind, of.kind);
    let row = shape.formats.attention.bytes as usize;
    let window = len.min((shape.window - 1).saturating_add(rewind));
    let rows = len.checked_div(kind.ratio()).unwrap_or(0);
    let index_rows = if of.index_pending.is_some() { rows } else { 0 };
    let values = |ring: Option<usize>| match ring {
        Some(ring) => {
            let positions = len - first_needed(len - rewind, kind.ratio(), kind.windows());
            positions.saturating_mul(shape.rings[ring].row_bytes as usize / 8)
        }
        None => 0,
    };
    let (pending, index_pending) = (values(of.pending), values(of.index_pending));
    // A size that would overflow cannot match: no state in memory is that large.
    let sized = usize::saturating_mul;
    [
        ("the window", sized(window, row), layer.window.len()),
        ("the compressed rows", sized(rows, row), layer.compressed.len()),
        ("the index rows", sized(index_rows, shape.formats.index_bytes), layer.index.len()),
        ("pending values", pending, layer.pending.kv.len()),
        ("pending scores", pending, layer.pending.score.len()),
        ("pending index values", index_pending, layer.index_pending.kv.len()),
        ("pending index scores", index_pending, layer.index_pending.score.len()),
    ]
    .into_iter()
    .find(|(_, wanted, found)| wanted != found)
}

/// Values and scores of each position, one behind the other on the card, apart in the shared form.
fn split(bytes: &[u8], row_bytes: usize) -> Pending {
    let mut pending = Pending::default();
    let floats = |bytes: &[u8]| -> Vec<f32> {
        bytes.as_chunks().0.iter().map(|&word| f32::from_le_bytes(word)).collect()
    };
    for row in bytes.chunks_exact(row_bytes) {
        let (kv, score) = row.split_at(row_bytes / 2);
        pending.kv.extend(floats(kv));
        pending.score.extend(floats(score));
    }
    pending
}

fn join(pending: &Pending, row_bytes: usize) -> Vec<u8> {
    let half = row_bytes / 8;
    let rows = pending.kv.chunks_exact(half).zip(pending.score.chunks_exact(half));
    rows.flat_map(|(kv, score)| kv.iter().chain(score)).flat_map(|x| x.to_le_bytes()).collect()
}
