//! The result of a benchmark: numbers, and everything without which they say nothing.

use std::collections::BTreeMap;

use super::{BenchOptions, Limits, StageCost};
use crate::{Machine, Summary, statistics::ratio};

/// What was measured, as the caller knows it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Subject {
    /// The file.
    pub file: String,
    /// What the model calls itself.
    pub model: String,
    /// Bytes of weights in each format.
    pub formats: BTreeMap<&'static str, u64>,
    /// What computes.
    pub backend: String,
    /// On how many threads.
    pub threads: usize,
    /// How cached rows are rounded.
    pub rounding: String,
    /// What weights are multiplied with.
    pub activations: String,
    /// Where the tokens came from.
    pub prompt: String,
}

impl Subject {
    /// Bytes of all weights.
    pub fn weight_bytes(&self) -> u64 {
        self.formats.values().sum()
    }
}

/// A benchmark.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// Where.
    pub machine: Machine,
    /// What.
    pub subject: Subject,
    /// How.
    pub options: BenchOptions,
    /// How fast it could have been.
    pub limits: Limits,
    /// How fast it was, at each context length.
    pub frontiers: Vec<Frontier>,
}

/// What was measured at one context length.
#[derive(Clone, Debug, PartialEq)]
pub struct Frontier {
    /// Tokens in the session.
    pub tokens: usize,
    /// Those that the prompt was extended by to get here.
    pub added: usize,
    /// Tokens of the prompt per second.
    pub prefill: Summary,
    /// Operations with weights per second that this is, attention not counted.
    pub prefill_operations: f64,
    /// Bytes that the state of the session takes.
    pub state_bytes: usize,
    /// Where the time of the prompt went, for each token.
    pub prefill_stages: Vec<StageCost>,
    /// Decoding from here, for each batch size.
    pub decode: Vec<Decode>,
}

/// Decoding with so many sessions at once.
#[derive(Clone, Debug, PartialEq)]
pub struct Decode {
    /// The sessions.
    pub batch: usize,
    /// Tokens that each of them decoded.
    pub tokens: usize,
    /// Tokens per second, of all of them together.
    pub rate: Summary,
    /// Seconds of a step that half of all steps do not exceed.
    pub step_median: f64,
    /// Seconds of a step that 99 of 100 steps do not exceed.
    pub step_99: f64,
    /// Bytes that a token cannot do without, its part of what a batch shares.
    pub bytes_per_token: f64,
    /// Where the time went, for each step.
    pub stages: Vec<StageCost>,
}

impl Decode {
    /// Tokens per second of each session.
    pub fn rate_each(&self) -> f64 {
        ratio(self.rate.median(), self.batch as f64)
    }

    /// Bytes per second that the decoded tokens cannot have done without.
    pub fn bandwidth(&self) -> f64 {
        self.bytes_per_token * self.rate.median()
    }

    /// Which part of the machine's read bandwidth that is.
    pub fn bandwidth_share(&self, limits: &Limits) -> f64 {
        ratio(self.bandwidth(), limits.read_all.median())
    }
}

impl Report {
    /// The share of the read bandwidth that one session reaches at the shortest context, or the
    /// smallest batch where one alone was not measured.
    pub fn decode_bandwidth_share(&self) -> Option<f64> {
        let first = self.frontiers.first()?.decode.iter().min_by_key(|decode| decode.batch)?;
        Some(first.bandwidth_share(&self.limits))
    }

    /// What a reader of the numbers must know to believe them.
    pub fn caveats(&self) -> Vec<String> {
        let mut caveats = Vec::new();
        if self.limits.sample_fits_caches() {
            caveats.push(format!(
                "the bandwidth was measured on {:.1} MB of weights, which may lie in the {}'s caches",
                self.limits.sample_bytes as f64 / 1e6,
                if self.limits.card.is_some() { "card" } else { "processor" }
            ));
        }
        if self.options.runs < 3 {
            caveats.push("fewer than three runs: the median is a guess".to_owned());
        }
        if self.limits.read_all.spread() > 0.2 {
            caveats.push(format!(
                "the read bandwidth varied by {:.0} % between runs: the machine was busy",
                100.0 * self.limits.read_all.spread()
            ));
        }
        if self.options.batches.iter().any(|&batch| batch > 1) {
            caveats.push(
                "bytes per token of a batch assume that its tokens choose their experts independently"
                    .to_owned(),
            );
        }
        if self.options.stages && self.limits.card.is_some() {
            caveats.push(
                "stages are those of a run of their own, with a mark behind every launch that lets no \
                 two overlap: together they take longer than the steps above"
                    .to_owned(),
            );
        }
        caveats
    }
}
