//! Models of any shape, whole and with weights in place: what the checks of a description let
//! through must run. Bytes of a file alone hardly ever change all shapes together.

use ds4_gguf::Gguf;
use ds4_host::Region;
use ds4_model::{Compression, Config, Indexer, Rope, Source};
use ds4_quant::Format;

use crate::{models::use_source, tiny};

const FORMATS: [Format; 11] = [
    Format::F32,
    Format::F16,
    Format::BF16,
    Format::Q8_0,
    Format::Q4_0,
    Format::Mxfp4,
    Format::Q2K,
    Format::Q4K,
    Format::Q5K,
    Format::Q6K,
    Format::Iq2Xxs,
];

/// One byte for each number of a model; those that are missing count as zero.
pub fn run(data: &[u8]) -> bool {
    let mut bytes = data.iter().copied();
    let mut count = |least: usize, most: usize| {
        least + usize::from(bytes.next().unwrap_or(0)) % (most - least + 1)
    };
    let format = FORMATS[count(0, FORMATS.len() - 1)];
    // Matrices are of the format only where their rows are whole blocks of it.
    let whole = count(0, 1) == 1;
    let width = |n: usize| if whole { n.next_multiple_of(format.block_elems()) } else { n };
    let kinds = [Compression::None, Compression::Csa, Compression::Hca];
    let layers: Vec<Compression> = (0..count(1, 3)).map(|_| kinds[count(0, 2)]).collect();
    let (o_groups, head_dim, experts) = (count(1, 3), count(2, 70), count(1, 4));
    let config = Config {
        hidden: width(count(1, 40)),
        vocab: count(1, 9),
        heads: o_groups * count(1, 3),
        head_dim,
        rope: Rope { dims: 2 * count(1, head_dim / 2), ..tiny::config().rope },
        q_rank: width(count(1, 40)),
        o_groups,
        o_rank: width(count(1, 40)),
        window: count(1, 9),
        indexer: Indexer { heads: count(1, 3), dim: 1 << count(1, 7), top_k: count(1, 3) },
        experts,
        experts_used: count(1, experts),
        expert_hidden: width(count(1, 40)),
        hash_layers: count(0, layers.len()),
        swiglu_limit: vec![10.0; layers.len()],
        swiglu_limit_shared: vec![10.0; layers.len()],
        streams: count(1, 5),
        sinkhorn_iterations: count(1, 3),
        max_context: count(1, 9),
        layers,
        ..tiny::config()
    };
    let file = tiny::gguf(&config, format);
    let gguf = Gguf::from_region(Region::from_vec(file), "shape.gguf").expect("our own file");
    use_source(&Source::from_gguf(gguf).expect("our own model"))
}

pub fn seeds() -> Vec<Vec<u8>> {
    let shape = [2, 0, 1, 2, 1, 30, 2, 31, 4, 1, 3, 31, 2, 3, 1, 3, 1];
    let of_format = |format: u8| [&[format, 1], &shape[..]].concat();
    (0..FORMATS.len() as u8).map(of_format).chain([Vec::new()]).collect()
}
