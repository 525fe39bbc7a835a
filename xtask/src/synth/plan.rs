//! What each tensor of a model is stored as, and how large its numbers are.
//!
//! The formats are those that ds4's files have, to the letter. The sizes keep a forward pass of any
//! depth alive: a layer adds about as much as its input's norm, to an embedding that is much larger,
//! so that tokens stay apart up to the last layer and routers spread them over all experts.

use ds4_model::{
    Config,
    catalogue::{self, Entry, Kind},
};
use ds4_quant::Format;

use super::content::Content;

/// GGUF's number for 32-bit integers.
const I32: u32 = 26;
/// Root mean square of the embedding, next to layers that add about one each. Half of it lets what
/// tokens have in common grow through the layers, until few experts serve them all; twice of it
/// hides what came before a token.
const EMBEDDING: f32 = 8.0;

/// The formats of the routed experts, which name a quantisation; all else is the same in each.
#[derive(Clone, Copy)]
pub struct Recipe {
    pub gate_and_up: Format,
    pub down: Format,
}

impl Recipe {
    pub const Q2: Recipe = Recipe { gate_and_up: Format::Iq2Xxs, down: Format::Q2K };
    pub const Q4: Recipe = Recipe { gate_and_up: Format::Q4K, down: Format::Q4K };
    pub const MXFP4: Recipe = Recipe { gate_and_up: Format::Mxfp4, down: Format::Mxfp4 };

    fn format(self, kind: Kind, name: &str) -> Format {
        let has = |part: &&str| name.contains(part);
        match kind {
            Kind::Experts if has(&"down") => self.down,
            Kind::Experts => self.gate_and_up,
            Kind::Vector if has(&"_ape") => Format::F16,
            Kind::Vector | Kind::Table => Format::F32,
            Kind::Matrix => {
                let control = ["token_embd", "hc_", "compressor", "indexer", "ffn_gate_inp"];
                if control.iter().any(has) { Format::F16 } else { Format::Q8_0 }
            }
        }
    }
}

/// A tensor of the file to be.
pub struct Tensor {
    pub name: String,
    /// Extents, the contiguous one first.
    pub dims: Vec<u64>,
    pub type_id: u32,
    pub bytes: u64,
    pub content: Content,
}

/// Every tensor of the model: the whole model's, then layer after layer, as a pass reads them.
pub fn plan(config: &Config, recipe: Recipe) -> Result<Vec<Tensor>, String> {
    let mut entries: Vec<_> = catalogue::tensors(config).collect();
    entries.sort_by_key(|(entry, layer, _)| (entry.is_per_layer(), *layer));
    let tensor = |(entry, layer, shape)| {
        let name = Entry::gguf_name(entry, layer);
        tensor(config, recipe, entry.kind, shape, &name).map_err(|e| format!("{name}: {e}"))
    };
    entries.into_iter().map(tensor).collect()
}

fn tensor(
    config: &Config,
    recipe: Recipe,
    kind: Kind,
    (rows, cols): (usize, usize),
    name: &str,
) -> Result<Tensor, String> {
    let count = if kind == Kind::Experts { config.experts } else { 1 };
    let mut dims = vec![cols as u64, rows as u64, count as u64];
    while dims.len() > 1 && dims.last() == Some(&1) {
        dims.pop();
    }
    let format = recipe.format(kind, name);
    let row = format.row_bytes(cols).ok_or(format!("{cols} columns are no blocks of {format}"))?;
    let content = match kind {
        Kind::Table => Content::Experts { used: config.experts_used, of: config.experts },
        _ if format == Format::F32 => numbers(config, name),
        _ => Content::matrix(format, size(name, cols))?,
    };
    Ok(Tensor {
        name: name.to_owned(),
        dims,
        type_id: if kind == Kind::Table { I32 } else { format.ggml_id().ok_or("no GGUF type")? },
        bytes: (row * rows * count) as u64,
        content,
    })
}

/// The root mean square of a matrix. Most keep the size of what they are multiplied with.
fn size(name: &str, cols: usize) -> f32 {
    let kept = 1.0 / (cols as f32).sqrt();
    match name.strip_suffix(".weight").unwrap_or(name).rsplit('.').next() {
        Some("token_embd") => EMBEDDING,
        Some("attn_compressor_ape" | "indexer_compressor_ape") => 0.5,
        // Attention averages rows and so shrinks them.
        Some("attn_output_a") => 2.0 * kept,
        // Scores and logits that differ enough for a clear choice.
        Some("ffn_gate_inp") => 1.5 * kept,
        Some("output") => 3.0 * kept,
        _ => kept,
    }
}

/// Short lists of numbers. All are random: one that is read wrongly should matter.
fn numbers(config: &Config, name: &str) -> Content {
    let has = |part: &str| name.contains(part);
    let (centres, spread) = if has("norm") {
        (vec![1.0], 0.2)
    } else if has("hc_") && has("scale") {
        (vec![0.6], 0.1)
    } else if has("hc_") {
        (stream_weights(config), 0.1)
    } else if has("exp_probs_b") {
        // Larger ones would leave experts without tokens.
        (vec![0.0], 0.02)
    } else {
        (vec![0.0], 0.5)
    };
    Content::Numbers { centres, spread }
}

/// Before their sigmoids and softmaxes: a block reads the average of the streams, writes to each, and
/// each stream mostly stays itself.
fn stream_weights(config: &Config) -> Vec<f32> {
    let streams = config.streams;
    let average = -((streams as f32 - 1.0).ln());
    let read = vec![average; streams];
    let write = vec![0.0; streams];
    let between = (0..streams * streams).map(|i| if i % (streams + 1) == 0 { 2.0 } else { 0.0 });
    read.into_iter().chain(write).chain(between).collect()
}
