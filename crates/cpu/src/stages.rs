//! Where the time of a step goes: nanoseconds, bytes and operations of each part of a forward pass.
//!
//! The calling thread moves the meter from stage to stage, so every moment of a step counts once.

use std::time::Instant;

use ds4_engine::Stage;

/// The parts of a forward pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Token embeddings.
    Embedding,
    /// Hyper-connections: into half-blocks, out of them, and into the head.
    Streams,
    /// What attention projects from its input.
    AttentionIn,
    /// Query heads.
    Queries,
    /// Compressed rows and index rows.
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

const NAMES: [&str; 12] = [
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

#[derive(Clone, Copy, Default)]
struct Counter {
    nanoseconds: u64,
    bytes: u64,
    operations: u64,
}

/// Counters of all stages.
#[derive(Default)]
pub struct Meter {
    counters: [Counter; NAMES.len()],
    running: Option<(Part, Instant)>,
}

impl Meter {
    /// The stage before ends and this one begins.
    pub fn enter(&mut self, part: Part) {
        let now = Instant::now();
        self.stop(now);
        self.running = Some((part, now));
    }

    /// The last stage of a step ends.
    pub fn leave(&mut self) {
        self.stop(Instant::now());
    }

    /// The running stage reads so much and computes so much.
    pub fn count(&mut self, bytes: usize, operations: usize) {
        if let Some((part, _)) = self.running {
            let counter = &mut self.counters[part as usize];
            counter.bytes += bytes as u64;
            counter.operations += operations as u64;
        }
    }

    /// All stages in order.
    pub fn stages(&self) -> Vec<Stage> {
        let stage = |(&name, counter): (&&'static str, &Counter)| Stage {
            name,
            nanoseconds: counter.nanoseconds,
            bytes: counter.bytes,
            operations: counter.operations,
        };
        NAMES.iter().zip(&self.counters).map(stage).collect()
    }

    fn stop(&mut self, now: Instant) {
        if let Some((part, since)) = self.running.take() {
            self.counters[part as usize].nanoseconds += (now - since).as_nanos() as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_belongs_to_the_running_stage() {
        let mut meter = Meter::default();
        meter.count(1, 1);
        meter.enter(Part::Attend);
        meter.count(10, 20);
        meter.enter(Part::Head);
        meter.count(3, 4);
        meter.leave();
        meter.count(1, 1);
        let stages = meter.stages();
        let counted: Vec<_> = stages.iter().filter(|s| s.bytes > 0).collect();
        assert_eq!(counted.len(), 2);
        assert_eq!((counted[0].name, counted[0].bytes, counted[0].operations), ("attend", 10, 20));
        assert_eq!((counted[1].name, counted[1].bytes, counted[1].operations), ("head", 3, 4));
        assert_eq!(stages[0].nanoseconds, 0);
    }
}
