//! A report with round numbers, for the tests of its forms.

use std::collections::BTreeMap;

use ds4_engine::SessionOptions;

use super::{BenchOptions, Decode, Frontier, IntegerPeak, Limits, Report, StageCost, Subject};
use crate::{Machine, Summary};

pub fn options() -> BenchOptions {
    BenchOptions {
        frontiers: vec![4, 6],
        decode: 2,
        batches: vec![1, 4],
        runs: 3,
        warm_up: 1,
        session: SessionOptions { context: 8, chunk: 4 },
        never: None,
        stages: false,
    }
}

pub fn report() -> Report {
    let stage = |name, microseconds: [f64; 3], bytes| StageCost {
        name,
        seconds: Summary::of(microseconds.map(|us| us * 1e-6)),
        bytes,
        operations: 4.0 * bytes,
    };
    let stages = || {
        vec![
            stage("attention", [25.0, 24.0, 26.0], 50e3),
            stage("experts", [70.0, 75.0, 80.0], 600e3),
        ]
    };
    let decode = |batch| Decode {
        batch,
        tokens: 2,
        rate: Summary::of([9.0, 10.0, 12.0]),
        step_median: 0.1,
        step_99: 0.12,
        bytes_per_token: 5e8,
        stages: stages(),
    };
    let frontier = |tokens, added| Frontier {
        tokens,
        added,
        prefill: Summary::of([20.0, 10.0, 30.0]),
        prefill_operations: 1e9,
        state_bytes: 1000,
        prefill_stages: stages(),
        decode: vec![decode(1), decode(4)],
    };
    Report {
        machine: Machine {
            processor: "Example 9000".into(),
            cores: 2,
            instruction_sets: vec!["avx2"],
            memory: Some(1 << 34),
            system: "x86_64 linux".into(),
        },
        subject: Subject {
            file: "model.gguf".into(),
            model: "tiny".into(),
            formats: BTreeMap::from([("Q8_0", 1_500_000_000)]),
            backend: "cpu".into(),
            threads: 2,
            rounding: "official".into(),
            activations: "f32".into(),
            prompt: "a <b> & c".into(),
        },
        options: options(),
        limits: Limits {
            sample_bytes: 1_400_000_000,
            read_all: Summary::of([9e9, 10e9, 11e9]),
            read_one: Summary::of([6e9, 7e9, 8e9]),
            cores: 2,
            card: None,
            integers: Some(IntegerPeak {
                cycles: 8e9,
                per_cycle: 256.0,
                assumption: "two 512-bit dot products a cycle",
            }),
        },
        frontiers: vec![frontier(4, 4), frontier(6, 2)],
    }
}
