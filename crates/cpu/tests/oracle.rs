//! Logits against those of an independent implementation.

mod fixture;

use ds4_cpu::CpuOptions;
use ds4_model::Rounding;
use fixture::{Set, evaluate, executor};

#[track_caller]
fn check(id: &str, rounding: Rounding) {
    let entry = Set::fixtures().entry(id);
    let options = CpuOptions { threads: 2, rounding, ..CpuOptions::default() };
    let mut cpu = executor(&entry.model, options);
    for prompt in entry.prompts() {
        let case = entry.case(&prompt, rounding);
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
    check("sparse_a-f32", Rounding::Plain);
}

#[test]
fn without_rounding_the_quantised_model_agrees() {
    check("kquant_a-ds4_iq2", Rounding::Plain);
}

#[test]
fn with_its_own_rounding_the_quantised_model_agrees() {
    check("kquant_a-ds4_iq2", Rounding::Official);
}
