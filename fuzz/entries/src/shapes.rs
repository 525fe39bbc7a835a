//! Models of any shape, whole and with weights in place: what the checks of a description let
//! through must run. Bytes of a file alone hardly ever change all shapes together.

use ds4_gguf::Gguf;
use ds4_host::Region;
use ds4_model::{Compression, Config, Indexer, Rope, Source};
use ds4_quant::Format;

use crate::{models::use_source, tiny};

/// One byte for each number of a model; those that are missing count as zero.
pub fn run(data: &[u8]) -> bool {
    let mut bytes = data.iter().copied();
    let mut count = |least: usize, most: usize| {
        least + usize::from(bytes.next().unwrap_or(0)) % (most - least + 1)
    };
    let kinds = [Compression::None, Compression::Csa, Compression::Hca];
    let layers: Vec<Compression> = (0..count(1, 3)).map(|_| kinds[count(0, 2)]).collect();
    let (o_groups, head_dim, experts) = (count(1, 3), count(2, 70), count(1, 4));
    let config = Config {
        hidden: count(1, 40),
        vocab: count(1, 9),
        heads: o_groups * count(1, 3),
        head_dim,
        rope: Rope { dims: 2 * count(1, head_dim / 2), ..tiny::config().rope },
        q_rank: count(1, 40),
        o_groups,
        o_rank: count(1, 40),
        window: count(1, 9),
        indexer: Indexer { heads: count(1, 3), dim: 1 << count(1, 7), top_k: count(1, 3) },
        experts,
        experts_used: count(1, experts),
        expert_hidden: count(1, 40),
        hash_layers: count(0, layers.len()),
        swiglu_limit: vec![10.0; layers.len()],
        swiglu_limit_shared: vec![10.0; layers.len()],
        streams: count(1, 5),
        sinkhorn_iterations: count(1, 3),
        max_context: count(1, 9),
        layers,
        ..tiny::config()
    };
    let formats = [Format::F32, Format::F16, Format::Q8_0, Format::Mxfp4];
    let file = tiny::gguf(&config, formats[count(0, 3)]);
    let gguf = Gguf::from_region(Region::from_vec(file), "shape.gguf").expect("our own file");
    use_source(&Source::from_gguf(gguf).expect("our own model"))
}

pub fn seeds() -> Vec<Vec<u8>> {
    vec![Vec::new(), vec![2, 0, 1, 2, 1, 30, 2, 31, 4, 1, 3, 31, 2, 3, 1, 3, 1], vec![5; 24]]
}
