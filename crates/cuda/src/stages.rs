//! Where the time of rounds goes: seconds of each part of a forward pass, with the bytes and operations
//! that it needs. The parts have the names that the other executors give them.

use std::collections::BTreeMap;

use ds4_engine::Stage;

use crate::device::Times;

/// The parts of a forward pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Part {
    /// What goes to the card before a round and comes back after it, lists of the best tokens, and what going
    /// back needs.
    #[default]
    Copies,
    /// Token embeddings.
    Embedding,
    /// Hyper-connections: into half-blocks, out of them, and into the head.
    Streams,
    /// What attention projects from its input.
    AttentionIn,
    /// Query heads, also those of the indexer.
    Queries,
    /// Window rows, compressed rows and index rows.
    Compress,
    /// The choice among compressed rows.
    Index,
    /// The softmax over what is seen.
    Attend,
    /// The two output matrices of attention.
    AttentionOut,
    /// The router.
    Route,
    /// Gates and ups of the experts.
    ExpertsIn,
    /// Downs of the experts, and their sum.
    ExpertsOut,
    /// The logits.
    Head,
}

/// How many parts there are.
pub const PARTS: usize = Part::Head as usize + 1;

const NAMES: [&str; PARTS] = [
    "copies",
    "embedding",
    "streams",
    "attention in",
    "queries",
    "compress",
    "index",
    "attend",
    "attention out",
    "route",
    "experts in",
    "experts out",
    "head",
];

impl Part {
    /// The part that a kernel belongs to which was launched in this one. The experts have one launcher
    /// for both of their parts, so it is the names of their kernels that tell.
    pub fn of(self, kernel: &str) -> Part {
        let ends = kernel.contains("_out") || kernel.starts_with("join_");
        if self == Part::ExpertsIn && ends { Part::ExpertsOut } else { self }
    }
}

/// What a part needs: bytes of weights and cached rows, and operations.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cost {
    /// Bytes.
    pub bytes: f64,
    /// Products and sums.
    pub operations: f64,
}

/// Time and cost of all rounds.
#[derive(Default)]
pub struct Meter {
    seconds: [f64; PARTS],
    costs: [Cost; PARTS],
    kernels: BTreeMap<&'static str, (usize, f64)>,
}

impl Meter {
    /// Adds a round.
    pub fn add(&mut self, times: &Times, costs: &[Cost; PARTS]) {
        for &(kernel, part, seconds) in times {
            self.seconds[part as usize] += seconds;
            if let Some(kernel) = kernel {
                let of = self.kernels.entry(kernel.name()).or_default();
                *of = (of.0 + 1, of.1 + seconds);
            }
        }
        for (sum, cost) in self.costs.iter_mut().zip(costs) {
            sum.bytes += cost.bytes;
            sum.operations += cost.operations;
        }
    }

    /// All parts in order.
    pub fn stages(&self) -> Vec<Stage> {
        let parts = NAMES.iter().zip(&self.seconds).zip(&self.costs);
        let stage = |((&name, &seconds), cost): ((&&'static str, &f64), &Cost)| Stage {
            name,
            nanoseconds: (seconds * 1e9) as u64,
            bytes: cost.bytes as u64,
            operations: cost.operations as u64,
        };
        parts.map(stage).collect()
    }

    /// Each kernel: how often it ran and the seconds of all its runs, the longest first.
    pub fn kernels(&self) -> Vec<(&'static str, usize, f64)> {
        let mut kernels: Vec<_> =
            self.kernels.iter().map(|(&name, &(n, s))| (name, n, s)).collect();
        kernels.sort_by(|a, b| b.2.total_cmp(&a.2));
        kernels
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Kernel;

    #[test]
    fn rounds_add_up_by_part_and_by_kernel() {
        let mut meter = Meter::default();
        let times = vec![
            (Some(Kernel::Products1), Part::Route, 1e-6),
            (Some(Kernel::ExpertsIn), Part::ExpertsIn, 2e-6),
            (Some(Kernel::Products1), Part::Head, 4e-6),
            (None, Part::Copies, 8e-6),
        ];
        let mut costs = [Cost::default(); PARTS];
        costs[Part::Head as usize] = Cost { bytes: 100.0, operations: 7.0 };
        meter.add(&times, &costs);
        meter.add(&times, &costs);
        let stages = meter.stages();
        let head = stages.iter().find(|stage| stage.name == "head").unwrap();
        assert_eq!((head.nanoseconds, head.bytes, head.operations), (8000, 200, 14));
        assert_eq!(stages.iter().map(|stage| stage.nanoseconds).sum::<u64>(), 30_000);
        assert_eq!(stages.len(), PARTS);
        let [(first, runs, seconds), (second, ..)] = meter.kernels()[..] else { panic!() };
        assert_eq!((first, runs, second), ("products_1", 4, "experts_in"));
        assert!((seconds - 10e-6).abs() < 1e-12);
    }

    #[test]
    fn a_kernel_is_of_the_part_that_launches_it_but_for_the_experts() {
        for (entered, kernel, part) in [
            (Part::Queries, "products_8", Part::Queries),
            (Part::AttentionOut, "attend_join", Part::AttentionOut),
            (Part::ExpertsIn, "experts_in", Part::ExpertsIn),
            (Part::ExpertsIn, "half_experts_in_16", Part::ExpertsIn),
            (Part::ExpertsIn, "experts8_out", Part::ExpertsOut),
            (Part::ExpertsIn, "half_experts_out_16", Part::ExpertsOut),
            (Part::ExpertsIn, "join_experts", Part::ExpertsOut),
        ] {
            assert_eq!(entered.of(kernel), part, "{kernel}");
        }
        let known = [Kernel::ExpertsIn, Kernel::ExpertsOut].map(|kernel| {
            let entered = Part::ExpertsIn;
            entered.of(kernel.name())
        });
        assert_eq!(known, [Part::ExpertsIn, Part::ExpertsOut]);
    }
}
