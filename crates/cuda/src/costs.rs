//! What a round cannot do without: bytes of weights and of cached rows, and operations, for each part.
//!
//! Matrices count once for a round, and experts as often as chance has the rows of a round choose
//! different ones; a kernel that reads something twice is slower for it, not busier. Vectors and what a
//! round writes are left out.

use ds4_model::{Compression, Config, LayerWeights, Matrix, Model};

use crate::{
    rows::RowFormats,
    stages::{Cost, PARTS, Part},
    weights::bytes,
};

/// What a model's rounds cost.
pub struct Costs {
    config: Config,
    /// Bytes once for a round, operations for every row.
    dense: [Cost; PARTS],
    /// All routed experts: bytes of all, operations for every row.
    routed: [Cost; PARTS],
    /// For every row that gives logits; its bytes once for a round.
    head: Cost,
    embedding_row: f64,
    /// Bytes of an attention row, of an index row.
    rows: [f64; 2],
}

impl Costs {
    /// What the rounds of this model cost, with rows of these formats.
    pub fn of(model: &Model, formats: &RowFormats) -> Costs {
        let (config, weights) = (model.config.clone(), &model.weights);
        let (mut dense, mut routed) = ([Cost::default(); PARTS], [Cost::default(); PARTS]);
        for layer in &weights.layers {
            for (part, matrix) in dense_matrices(layer) {
                add(&mut dense, part, matrix);
            }
            for expert in &layer.moe.experts {
                add(&mut routed, Part::ExpertsIn, &expert.gate);
                add(&mut routed, Part::ExpertsIn, &expert.up);
                add(&mut routed, Part::ExpertsOut, &expert.down);
            }
        }
        add(&mut dense, Part::Streams, &weights.head_hc.function);
        // Every expert was counted; a row meets a few of them.
        let met = config.experts_used as f64 / config.experts.max(1) as f64;
        routed.iter_mut().for_each(|cost| cost.operations *= met);
        Costs {
            head: Cost {
                bytes: bytes(&weights.output) as f64,
                operations: operations(&weights.output),
            },
            embedding_row: weights.embedding.row(0).len() as f64,
            rows: [f64::from(formats.attention.bytes), f64::from(formats.index.bytes)],
            config,
            dense,
            routed,
        }
    }

    /// What a round costs whose rows stand at these positions, of which so many give logits.
    pub fn round(
        &self,
        positions: impl ExactSizeIterator<Item = usize>,
        wanted: usize,
    ) -> [Cost; PARTS] {
        let rows = positions.len() as f64;
        let missed = 1.0 - self.config.experts_used as f64 / self.config.experts.max(1) as f64;
        let read = 1.0 - missed.powf(rows);
        let mut costs = [Cost::default(); PARTS];
        for ((cost, dense), routed) in costs.iter_mut().zip(&self.dense).zip(&self.routed) {
            cost.bytes = dense.bytes + routed.bytes * read;
            cost.operations = (dense.operations + routed.operations) * rows;
        }
        costs[Part::Embedding as usize].bytes = self.embedding_row * rows;
        if wanted > 0 {
            let operations = self.head.operations * wanted as f64;
            costs[Part::Head as usize] = Cost { bytes: self.head.bytes, operations };
        }
        for position in positions {
            self.look_back(position + 1, &mut costs);
        }
        costs
    }

    /// Adds the cached rows that the last of `length` tokens meets.
    fn look_back(&self, length: usize, costs: &mut [Cost; PARTS]) {
        let c = &self.config;
        let [row, index_row] = self.rows;
        let window = length.min(c.window);
        for kind in &c.layers {
            let compressed = length.checked_div(kind.ratio()).unwrap_or(0);
            let chooses = *kind == Compression::Csa && compressed > c.indexer.top_k;
            let seen = window + if chooses { c.indexer.top_k } else { compressed };
            let attend = &mut costs[Part::Attend as usize];
            attend.bytes += seen as f64 * row;
            // A product and a sum with each value, for the score and for the result.
            attend.operations += (4 * c.heads * c.head_dim * seen) as f64;
            if chooses {
                let index = &mut costs[Part::Index as usize];
                index.bytes += compressed as f64 * index_row;
                index.operations += (2 * c.indexer.heads * c.indexer.dim * compressed) as f64;
            }
        }
    }
}

/// The matrices of a layer that every row meets, each with the part whose launch reads it.
fn dense_matrices(layer: &LayerWeights) -> impl Iterator<Item = (Part, &Matrix)> {
    let (attention, moe) = (&layer.attention, &layer.moe);
    let own = attention.compressor.iter();
    let compressors = own.chain(attention.indexer.iter().map(|indexer| &indexer.compressor));
    let projected = compressors.flat_map(|compressor| [&compressor.kv, &compressor.gate]);
    [
        (Part::Streams, &layer.attn_hc.function),
        (Part::Streams, &layer.ffn_hc.function),
        (Part::AttentionIn, &attention.q_a),
        (Part::AttentionIn, &attention.kv),
        (Part::Queries, &attention.q_b),
        (Part::AttentionOut, &attention.output_a),
        (Part::AttentionOut, &attention.output_b),
        (Part::Route, &moe.router),
        (Part::ExpertsIn, &moe.shared.gate),
        (Part::ExpertsIn, &moe.shared.up),
        (Part::ExpertsOut, &moe.shared.down),
    ]
    .into_iter()
    .chain(projected.map(|matrix| (Part::AttentionIn, matrix)))
    .chain(
        attention.indexer.iter().flat_map(|indexer| {
            [(Part::AttentionIn, &indexer.proj), (Part::Queries, &indexer.q_b)]
        }),
    )
}

fn add(costs: &mut [Cost; PARTS], part: Part, matrix: &Matrix) {
    costs[part as usize].bytes += bytes(matrix) as f64;
    costs[part as usize].operations += operations(matrix);
}

fn operations(matrix: &Matrix) -> f64 {
    2.0 * matrix.rows() as f64 * matrix.cols() as f64
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use ds4_model::Rounding;

    use super::*;

    fn fixture() -> (Model, Costs) {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/oracle");
        let model = Model::open(&folder.join("kquant_a-ds4_iq2.gguf")).unwrap();
        let formats = RowFormats::new(&model.config, Rounding::Official).unwrap();
        let costs = Costs::of(&model, &formats);
        (model, costs)
    }

    fn total(costs: &[Cost; PARTS]) -> Cost {
        costs.iter().fold(Cost::default(), |sum, cost| Cost {
            bytes: sum.bytes + cost.bytes,
            operations: sum.operations + cost.operations,
        })
    }

    /// A round of countless rows reads every matrix, and none twice.
    #[test]
    fn no_matrix_is_forgotten_or_counted_twice() {
        let (model, costs) = fixture();
        let all: u64 = model.weights.matrices().skip(1).map(bytes).sum();
        let rows = 100_000;
        let round = costs.round(std::iter::repeat_n(0, rows), 1);
        let [attend, embedding] = [Part::Attend, Part::Embedding].map(|part| round[part as usize]);
        let read = total(&round).bytes - attend.bytes - embedding.bytes;
        assert!((read / all as f64 - 1.0).abs() < 1e-9, "{read} and {all}");
        assert_eq!(embedding.bytes, rows as f64 * model.weights.embedding.row(0).len() as f64);
    }

    #[test]
    fn a_row_alone_reads_its_experts_and_no_others() {
        let (model, costs) = fixture();
        let c = &model.config;
        let layer = |layer: &LayerWeights| {
            let moe = &layer.moe;
            let of = |e: &ds4_model::ExpertWeights| bytes(&e.gate) + bytes(&e.up);
            of(&moe.shared) + c.experts_used as u64 * of(&moe.experts[0])
        };
        let by_hand: u64 = model.weights.layers.iter().map(layer).sum();
        let round = costs.round([5].into_iter(), 0);
        assert!((round[Part::ExpertsIn as usize].bytes / by_hand as f64 - 1.0).abs() < 1e-9);
        assert_eq!(round[Part::Head as usize], Cost::default(), "nobody wants logits");
        let wanted = costs.round([5].into_iter(), 1)[Part::Head as usize];
        assert_eq!(wanted.operations, 2.0 * (c.vocab * c.hidden) as f64);
    }

    #[test]
    fn company_shares_weights_and_nothing_else() {
        let (_, costs) = fixture();
        let alone = costs.round([700].into_iter(), 1);
        let four = costs.round([700; 4].into_iter(), 4);
        for (part, (alone, four)) in alone.iter().zip(&four).enumerate() {
            assert!((four.operations / 4.0 - alone.operations).abs() <= 1e-9 * alone.operations);
            let reads = |part: Part, times: f64| {
                assert!((four.bytes / alone.bytes - times).abs() < 1e-9, "{part:?}");
            };
            match part {
                part if part == Part::Attend as usize => reads(Part::Attend, 4.0),
                part if part == Part::Embedding as usize => reads(Part::Embedding, 4.0),
                part if part == Part::AttentionOut as usize => reads(Part::AttentionOut, 1.0),
                part if part == Part::Head as usize => reads(Part::Head, 1.0),
                part if part == Part::ExpertsIn as usize => {
                    assert!(four.bytes > alone.bytes && four.bytes < 4.0 * alone.bytes);
                }
                _ => {}
            }
        }
    }

    #[test]
    fn rows_are_chosen_where_there_are_more_than_a_query_sees() {
        let (model, costs) = fixture();
        let c = &model.config;
        let edge = (c.indexer.top_k + 1) * Compression::Csa.ratio();
        let index = |length: usize| costs.round([length - 1].into_iter(), 0)[Part::Index as usize];
        assert_eq!(index(edge - 1), Cost::default());
        let layers = c.layers.iter().filter(|kind| **kind == Compression::Csa).count();
        let read = (layers * (c.indexer.top_k + 1)) as f64 * costs.rows[1];
        assert_eq!(index(edge).bytes, read);
    }
}
