//! The state at length n is a function of the first n tokens, to the bit: chunks, threads, rounds and
//! company in a batch do not matter.

mod fixture;

use std::sync::Arc;

use ds4_cpu::{Activations, CpuExecutor, CpuOptions, Numa};
use ds4_engine::{Executor, Feed, Logits, Want};
use ds4_host::Core;
use ds4_model::Rounding;
use fixture::{assert_same, evaluate, executor, model, prompt};

type Case = (&'static str, Rounding, Activations);

const CASES: [Case; 4] = [
    ("sparse_a-f32", Rounding::Plain, Activations::Int8),
    ("sparse_a-f32", Rounding::Official, Activations::Int8),
    ("kquant_a-ds4_iq2", Rounding::Official, Activations::Int8),
    ("kquant_a-ds4_iq2", Rounding::Official, Activations::Exact),
];

fn options((_, rounding, activations): Case) -> CpuOptions {
    CpuOptions { threads: 1, rounding, activations, ..CpuOptions::default() }
}

#[test]
fn chunks_rounds_and_threads_do_not_matter() {
    for case in CASES {
        let model = model(case.0);
        let tokens = prompt(&model, 300, 0);
        let once = evaluate(&mut executor(&model, options(case)), &tokens, &[tokens.len()]);
        for chunks in [&[37, 1, 91, 3, 130][..], &[1], &[128], &[5, 250]] {
            let got = evaluate(&mut executor(&model, options(case)), &tokens, chunks);
            assert_same(&got.values, &once.values, &format!("{case:?} {chunks:?}"));
        }
        for (threads, rows, boundary) in [(2, 256, 128), (3, 7, 256), (2, 64, 0)] {
            let options = CpuOptions { threads, rows, boundary, ..options(case) };
            let got = evaluate(&mut executor(&model, options), &tokens, &[200, 1, 60]);
            assert_same(&got.values, &once.values, &format!("{case:?} {options:?}"));
        }
    }
}

/// Nodes are sets of the cores that there are, so this says nothing of speed.
#[test]
fn nodes_and_copies_do_not_matter() {
    let one = &[(0, 0)][..];
    let two = &[(0, 0), (1, 1)][..];
    let uneven = &[(0, 0), (2, 0), (2, 1), (5, 1), (5, 0)][..];
    for case in CASES {
        let model = model(case.0);
        let tokens = prompt(&model, 140, 0);
        let once = evaluate(&mut executor(&model, options(case)), &tokens, &[tokens.len()]);
        for (cores, threads, numa) in [
            (one, 0, Numa::Copy),
            (two, 0, Numa::Auto),
            (two, 0, Numa::Off),
            (uneven, 0, Numa::Auto),
            (uneven, 3, Numa::Auto),
            (two, 7, Numa::Copy),
        ] {
            let on: Vec<Core> = cores.iter().map(|&(node, cpu)| Core { node, cpu }).collect();
            let options = CpuOptions { threads, numa, ..options(case) };
            let mut cpu = CpuExecutor::on(&on, Arc::clone(&model), options).unwrap();
            assert_eq!(cpu.threads(), if threads == 0 { cores.len() } else { threads });
            let got = evaluate(&mut cpu, &tokens, &[100, 1, 39]);
            assert_same(&got.values, &once.values, &format!("{case:?} {cores:?} {options:?}"));
        }
    }
}

#[test]
fn company_in_a_batch_does_not_matter() {
    for case in CASES {
        let model = model(case.0);
        let mut cpu = executor(&model, CpuOptions { threads: 2, ..options(case) });
        // Three timelines at different lengths: one decodes, one begins, one is in a long chunk.
        let timelines = [prompt(&model, 133, 1), prompt(&model, 60, 2), prompt(&model, 310, 3)];
        let before = [132, 0, 70];
        let wants = [Want::Last, Want::All, Want::Last];
        let mut slots = Vec::new();
        for (tokens, before) in timelines.iter().zip(before) {
            let slot = cpu.open().unwrap();
            if before > 0 {
                let feed = Feed { slot, tokens: &tokens[..before], want: Want::Nothing };
                cpu.step(&[feed], &mut Logits::default()).unwrap();
            }
            slots.push(slot);
        }
        let batch: Vec<Feed<'_>> = (0..3)
            .map(|i| Feed { slot: slots[i], tokens: &timelines[i][before[i]..], want: wants[i] })
            .collect();
        let mut together = Logits::default();
        cpu.step(&batch, &mut together).unwrap();

        let mut alone = Vec::new();
        for (tokens, want) in timelines.iter().zip(wants) {
            let all = evaluate(&mut cpu, tokens, &[tokens.len()]);
            let rows = want.rows(tokens.len());
            alone.extend_from_slice(&all.values[all.values.len() - rows * all.vocab..]);
        }
        assert_same(&together.values, &alone, case.0);
    }
}

#[test]
fn wanting_fewer_logits_changes_none() {
    let model = model("sparse_a-f32");
    let mut cpu = executor(&model, options(CASES[0]));
    let tokens = prompt(&model, 300, 0);
    let all = evaluate(&mut cpu, &tokens, &[300]);
    // There are no shortlists here: whoever asks for one gets the row.
    let short = Want::Shortlist { temperature: 0.5 };
    for (want, from) in [(Want::Last, 299), (Want::Nothing, 300), (short, 299)] {
        let slot = cpu.open().unwrap();
        let mut logits = Logits::default();
        cpu.step(&[Feed { slot, tokens: &tokens, want }], &mut logits).unwrap();
        assert_same(&logits.values, &all.values[from * all.vocab..], &format!("{want:?}"));
        assert_eq!(logits.rows().len(), want.rows(300));
        assert!(logits.shortlists.is_empty());
        assert_eq!(cpu.len(slot).unwrap(), 300);
    }
}
