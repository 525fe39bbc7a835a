//! Logits against those of an independent implementation.

mod fixture;

use ds4_cpu::{Activations, CpuOptions};
use ds4_model::Rounding;
use fixture::{Set, evaluate, executor};

#[track_caller]
fn check(id: &str, rounding: Rounding, activations: Activations) {
    let entry = Set::fixtures().entry(id);
    let options = CpuOptions { threads: 2, rounding, activations, ..CpuOptions::default() };
    let mut cpu = executor(&entry.model, options);
    for prompt in entry.prompts() {
        let case = entry.case(&prompt, rounding, activations);
        let logits = evaluate(&mut cpu, &case.tokens, &[case.tokens.len()]);
        let distances = case.distances(&logits);
        let median = distances[distances.len() / 2];
        let p85 = distances[(distances.len() - 1) * 85 / 100];
        assert!(
            median <= case.median && p85 <= case.p85,
            "{id}/{prompt}: median {median:.1e} of {:.1e}, p85 {p85:.1e} of {:.1e}",
            case.median,
            case.p85
        );
    }
}

#[test]
fn without_rounding_the_sparse_model_agrees() {
    check("sparse_a-f32", Rounding::Plain, Activations::Exact);
}

#[test]
fn without_rounding_the_quantised_model_agrees() {
    check("kquant_a-ds4_iq2", Rounding::Plain, Activations::Exact);
}

#[test]
fn with_its_own_rounding_the_quantised_model_agrees() {
    check("kquant_a-ds4_iq2", Rounding::Official, Activations::Exact);
}

#[test]
fn activations_of_one_byte_stay_in_their_class() {
    check("kquant_a-ds4_iq2", Rounding::Plain, Activations::Int8);
    check("kquant_a-ds4_iq2", Rounding::Official, Activations::Int8);
}
