//! What a model and its sessions will take on a card, from numbers alone: nothing is taken to know it.

use ds4_engine::MemoryPlan;
use ds4_model::{Compression, ExpertWeights, LayerWeights, Matrix, Model, Routing};

use crate::{
    device::{Device, DeviceInfo},
    options::{CudaError, CudaOptions},
    round::{self, Frequencies},
    rows::RowFormats,
    scratch::{Room, Scratch},
    slot::Shape,
    step::{most_scores, undo_room},
    weights::{DRAWER, bytes, forms},
};

/// What the driver keeps for itself, kernels and their recordings included.
const DRIVER_BYTES: u64 = 256 << 20;
/// The driver hands memory out in pieces of this size, or in parts of one.
const GRAIN: u64 = 2 << 20;

/// A card that nothing was brought to yet, to ask what would fit.
pub struct Card(Device);

impl Card {
    /// Opens a card, as the driver counts them.
    pub fn open(gpu: usize) -> Result<Card, CudaError> {
        Ok(Card(Device::open(gpu)?))
    }

    /// What it is.
    pub fn info(&self) -> &DeviceInfo {
        self.0.info()
    }

    /// Bytes that are free now.
    pub fn free_memory(&self) -> Result<u64, CudaError> {
        self.0.bind()?;
        self.0.free_memory()
    }

    pub(crate) fn into_device(self) -> Device {
        self.0
    }
}

/// The plan for a model on a card, with sessions that are read `chunk` tokens at a time.
pub fn memory_plan(
    card: &DeviceInfo,
    model: &Model,
    options: &CudaOptions,
    chunk: usize,
) -> Result<MemoryPlan, CudaError> {
    options.check()?;
    let config = &model.config;
    let formats = RowFormats::new(config, options.rounding)
        .map_err(|source| CudaError::Rows { model: config.name.clone(), source })?;
    let shape = Shape::new(config, formats, options);
    let deepest = shape.deepest();
    let undo = undo_room(chunk.min(deepest), deepest).saturating_mul(shape.ring_row_bytes());
    let told = round::upload_bytes(options.rows, &Frequencies::new(&config.rope));
    // Scores of index rows are there once for all sessions.
    let scores = match config.layers.contains(&Compression::Csa) {
        true => most_scores(options.fast, options.longest_slice(), config.max_context),
        false => 0,
    };
    let room = Room::new(card, options, &shape, forms(model, options.fast));
    // What of the rings is on its way to the host, for a boundary or a session that travels.
    let leaving = shape.arena_bytes;
    let scratch = [Scratch::bytes(config, room), undo, told, scores.saturating_mul(4), leaving]
        .into_iter()
        .fold(DRIVER_BYTES, |sum, part| sum.saturating_add(part as u64));
    let (weights, session) = (weight_bytes(model, options.slices()), shape.cost());
    Ok(MemoryPlan { weights, scratch, session })
}

/// The weights as they are brought to the card: each matrix by itself, but the experts of a layer in
/// three stacks, and everything small in drawers, with lists for each slice of a round.
fn weight_bytes(model: &Model, slices: usize) -> u64 {
    let weights = &model.weights;
    let layers = weights.layers.iter().flat_map(|layer| {
        let experts = &layer.moe.experts;
        let part: [fn(&ExpertWeights) -> &Matrix; 3] = [|e| &e.gate, |e| &e.up, |e| &e.down];
        let stacks = part.map(|of| experts.iter().map(|expert| bytes(of(expert))).sum::<u64>());
        let dense = layer.matrices().count() - 3 * experts.len();
        layer.matrices().take(dense).map(bytes).chain(stacks)
    });
    let others = [&weights.embedding, &weights.head_hc.function, &weights.output].map(bytes);
    let small: u64 = weights.layers.iter().map(|layer| small_bytes(layer, slices)).sum();
    layers
        .chain(others)
        .map(grains)
        .fold(small.next_multiple_of(DRAWER as u64), u64::saturating_add)
}

/// What is not a matrix: norms, biases, tables, and lists of what is launched.
fn small_bytes(layer: &LayerWeights, slices: usize) -> u64 {
    const LISTS: usize = 16 << 10;
    const LISTS_OF_A_SLICE: usize = 1 << 10;
    let attention = &layer.attention;
    let compressors =
        attention.compressor.iter().chain(attention.indexer.iter().map(|i| &i.compressor));
    let routing = match &layer.moe.routing {
        Routing::Hash(table) => table.len(),
        Routing::Scores(bias) => bias.len(),
    };
    let values = [
        layer.attn_norm.len(),
        layer.ffn_norm.len(),
        layer.attn_hc.base.len() + layer.attn_hc.scale.len(),
        layer.ffn_hc.base.len() + layer.ffn_hc.scale.len(),
        attention.q_a_norm.len() + attention.kv_norm.len() + attention.sinks.len(),
        compressors.map(|c| c.ape.len() + c.norm.len()).sum(),
        routing,
    ];
    (LISTS + slices * LISTS_OF_A_SLICE + 4 * values.iter().sum::<usize>()) as u64
}

/// What the driver takes for so many bytes.
fn grains(bytes: u64) -> u64 {
    if bytes < GRAIN / 2 { bytes.next_multiple_of(512) } else { bytes.next_multiple_of(GRAIN) }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn card(capability: u32) -> DeviceInfo {
        DeviceInfo { name: String::new(), memory: 0, capability, multiprocessors: 132 }
    }

    fn fixture() -> Model {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/oracle");
        Model::open(&folder.join("kquant_a-ds4_iq2.gguf")).unwrap()
    }

    #[test]
    fn weights_are_planned_as_they_are_in_the_file_and_a_little_more() {
        let model = fixture();
        let plan = memory_plan(&card(90), &model, &CudaOptions::default(), 512).unwrap();
        let file: u64 = model.weights.matrices().map(bytes).sum();
        assert!(plan.weights >= file + DRAWER as u64, "{} of {file}", plan.weights);
        let matrices =
            model.weights.layers.iter().map(|layer| layer.matrices().count()).sum::<usize>();
        let most = file + DRAWER as u64 + (matrices as u64 + 3) * GRAIN;
        assert!(plan.weights <= most, "{} of {file}", plan.weights);
    }

    #[test]
    fn what_grows_with_an_option_is_planned_to_grow() {
        let model = fixture();
        let usual = CudaOptions::default();
        let plan = |options, chunk| memory_plan(&card(80), &model, &options, chunk).unwrap();
        let base = plan(usual, 1);
        let packs =
            memory_plan(&card(90), &model, &CudaOptions { fast: true, ..usual }, 1).unwrap();
        assert!(packs.scratch > plan(CudaOptions { fast: true, ..usual }, 1).scratch);
        assert!(base.scratch > DRIVER_BYTES);
        assert!(plan(CudaOptions { fast: true, ..usual }, 1).scratch > base.scratch);
        assert!(plan(CudaOptions { rows: 2048, ..usual }, 1).scratch < base.scratch);
        let coarse = plan(CudaOptions { slice: 1024, ..usual }, 1);
        assert!(coarse.scratch > base.scratch);
        let short = plan(CudaOptions { rows: 512, ..usual }, 1).session;
        for session in [coarse.session, short] {
            assert_eq!(session, base.session, "rings hold neither slices nor rounds");
        }
        assert!(plan(usual, 128).scratch > base.scratch, "rows to go back to");
        let deep = plan(CudaOptions { rewind: 5000, ..usual }, 1).session;
        assert!(deep.fixed > base.session.fixed);
        assert_eq!(deep.per_1k_tokens, base.session.per_1k_tokens);
        let forgetful = plan(CudaOptions { boundary: 0, boundaries_kept: 0, ..usual }, 1).session;
        assert_eq!(forgetful, base.session, "boundaries are the host's");
        // Of each ring no more is saved than it holds, however long the chunk.
        assert_eq!(plan(usual, 1 << 20).scratch, plan(usual, 1 << 21).scratch);
        memory_plan(&card(80), &model, &CudaOptions { rows: 0, ..usual }, 1).unwrap_err();
    }

    #[test]
    fn what_is_saved_has_room_without_much_waste() {
        for (rows, room) in [(0, 1), (1, 1), (100, 128), (600, 640), (640, 640), (641, 1280)] {
            assert_eq!(undo_room(rows, 640), room, "{rows}");
        }
    }

    #[test]
    fn small_pieces_share_a_grain_and_large_ones_do_not() {
        for (bytes, taken) in [
            (0, 0),
            (1, 512),
            (513, 1024),
            (GRAIN / 2, GRAIN),
            (GRAIN, GRAIN),
            (GRAIN + 1, 2 * GRAIN),
        ] {
            assert_eq!(grains(bytes), taken, "{bytes}");
        }
    }

    /// A refusal names the numbers and what would fit.
    #[test]
    fn a_card_that_is_too_small_is_told_by_how_much() {
        let model = fixture();
        let plan = memory_plan(&card(90), &model, &CudaOptions::default(), 512).unwrap();
        let refusal = plan.check(plan.weights, 1, 4096).unwrap_err().to_string();
        assert!(refusal.contains("the model alone does not fit"), "{refusal}");
        let room = plan.bytes(1, 2048);
        let refusal = plan.check(room, 1, 8192).unwrap_err().to_string();
        assert!(refusal.contains("1 session of 2048 tokens would fit"), "{refusal}");
    }
}
