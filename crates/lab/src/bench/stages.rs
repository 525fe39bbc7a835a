//! The parts of a step, over several runs.

use ds4_engine::Stage;

use crate::{Summary, statistics::ratio};

/// What one part of a step costs, per step or per token.
#[derive(Clone, Debug, PartialEq)]
pub struct StageCost {
    /// What it does.
    pub name: &'static str,
    /// Seconds, in each run.
    pub seconds: Summary,
    /// Bytes that it reads.
    pub bytes: f64,
    /// Multiplications and additions.
    pub operations: f64,
}

impl StageCost {
    /// Bytes per second.
    pub fn bandwidth(&self) -> f64 {
        ratio(self.bytes, self.seconds.median())
    }

    /// Operations per second.
    pub fn rate(&self) -> f64 {
        ratio(self.operations, self.seconds.median())
    }
}

/// Joins what the runs say of each stage, for one of the `units` (steps, tokens) of a run. Stages are
/// in the order in which they first appear; those that never ran are left out.
pub(super) fn join(runs: &[Vec<Stage>], units: usize) -> Vec<StageCost> {
    let per_unit = |sum: u64| sum as f64 / units.max(1) as f64;
    let mut joined: Vec<StageCost> = Vec::new();
    for stage in runs.iter().flatten() {
        let seconds = per_unit(stage.nanoseconds) / 1e9;
        if let Some(known) = joined.iter_mut().find(|known| known.name == stage.name) {
            known.seconds.runs.push(seconds);
            continue;
        }
        joined.push(StageCost {
            name: stage.name,
            seconds: Summary::of([seconds]),
            // The same in every run: so many tokens at so many places.
            bytes: per_unit(stage.bytes),
            operations: per_unit(stage.operations),
        });
    }
    joined.retain(|stage| stage.seconds.max() > 0.0);
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_joined_by_name_and_divided_by_steps() {
        let stage = |name, nanoseconds| Stage { name, nanoseconds, bytes: 4000, operations: 8000 };
        let runs = [
            vec![stage("a", 2000), stage("idle", 0), stage("b", 10)],
            vec![stage("a", 4000), stage("idle", 0)],
            vec![stage("a", 8000)],
        ];
        let joined = join(&runs, 2);
        assert_eq!(joined.iter().map(|s| s.name).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(joined[0].seconds, Summary::of([1e-6, 2e-6, 4e-6]));
        assert_eq!((joined[0].bytes, joined[0].operations), (2000.0, 4000.0));
        assert!((joined[0].bandwidth() - 1e9).abs() < 1.0);
        assert!((joined[0].rate() - 2e9).abs() < 1.0);
    }
}
