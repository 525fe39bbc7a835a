//! The sampler says what its options promise, and (seed, position) fixes what it says.

use ds4_engine::{Sampler, SamplerError, SamplerOptions, Shortlist};
use proptest::prelude::*;

/// Nothing but the model's own distribution.
fn plain() -> SamplerOptions {
    SamplerOptions { min_p: 0.0, ..SamplerOptions::default() }
}

fn sampler(options: SamplerOptions) -> Sampler {
    Sampler::new(options).unwrap()
}

fn logits_of(probabilities: &[f64]) -> Vec<f32> {
    // An offset, as only differences count.
    probabilities.iter().map(|p| p.ln() as f32 + 3.0).collect()
}

/// Draws at 20,000 positions and compares with what is expected of each token: a token that may not
/// come never does, and the others are within chi-square of 5 standard deviations.
fn check_distribution(options: SamplerOptions, logits: &[f32], history: &[u32], expected: &[f64]) {
    let n = 20_000;
    let sampler = sampler(options);
    let mut counts = vec![0u32; logits.len()];
    for position in 0..n {
        counts[sampler.sample(logits, history, position).unwrap() as usize] += 1;
    }
    let mut chi = 0f64;
    let mut freedom = -1f64;
    for (&count, &p) in counts.iter().zip(expected) {
        if p == 0.0 {
            assert_eq!(count, 0, "{:?}: {counts:?}", sampler.options());
        } else {
            let wanted = p * n as f64;
            chi += (f64::from(count) - wanted).powi(2) / wanted;
            freedom += 1.0;
        }
    }
    let limit = freedom + 5.0 * (2.0 * freedom).sqrt();
    assert!(chi <= limit, "{:?}: chi-square {chi}: {counts:?}", sampler.options());
}

#[test]
fn each_filter_leaves_the_distribution_it_promises() {
    let logits = logits_of(&[0.1, 0.4, 0.05, 0.25, 0.2]);
    for (options, expected) in [
        (plain(), [0.1, 0.4, 0.05, 0.25, 0.2]),
        (
            SamplerOptions { temperature: 0.5, ..plain() },
            [0.01, 0.16, 0.0025, 0.0625, 0.04].map(|p| p / 0.275),
        ),
        (SamplerOptions { top_k: 2, ..plain() }, [0.0, 0.4 / 0.65, 0.0, 0.25 / 0.65, 0.0]),
        (SamplerOptions { top_k: 99, ..plain() }, [0.1, 0.4, 0.05, 0.25, 0.2]),
        // 0.4 + 0.25 reach 0.6; the token that reaches it stays.
        (SamplerOptions { top_p: 0.6, ..plain() }, [0.0, 0.4 / 0.65, 0.0, 0.25 / 0.65, 0.0]),
        (SamplerOptions { top_p: 0.001, ..plain() }, [0.0, 1.0, 0.0, 0.0, 0.0]),
        (SamplerOptions { top_p: 0.0, ..plain() }, [0.1, 0.4, 0.05, 0.25, 0.2]),
        // 0.45 of the best: 0.18.
        (
            SamplerOptions { min_p: 0.45, ..plain() },
            [0.0, 0.4 / 0.85, 0.0, 0.25 / 0.85, 0.2 / 0.85],
        ),
        (SamplerOptions { min_p: 1.0, ..plain() }, [0.0, 1.0, 0.0, 0.0, 0.0]),
        // Top-p is a share of what top-k left: 0.6 of 0.85 is 0.51, which two reach.
        (
            SamplerOptions { top_k: 3, top_p: 0.6, ..plain() },
            [0.0, 0.4 / 0.65, 0.0, 0.25 / 0.65, 0.0],
        ),
        // Of everything it would be 0.66, which takes three.
        (
            SamplerOptions { top_p: 0.66, ..plain() },
            [0.0, 0.4 / 0.85, 0.0, 0.25 / 0.85, 0.2 / 0.85],
        ),
        // Whichever of min-p and top-p cuts first.
        (
            SamplerOptions { top_p: 0.66, min_p: 0.55, ..plain() },
            [0.0, 0.4 / 0.65, 0.0, 0.25 / 0.65, 0.0],
        ),
        (SamplerOptions { top_k: 2, min_p: 0.9, ..plain() }, [0.0, 1.0, 0.0, 0.0, 0.0]),
        (SamplerOptions { temperature: f32::MIN_POSITIVE, ..plain() }, [0.0, 1.0, 0.0, 0.0, 0.0]),
    ] {
        check_distribution(options, &logits, &[], &expected);
    }
}

#[test]
fn a_large_temperature_is_even() {
    check_distribution(
        SamplerOptions { temperature: 1e30, ..plain() },
        &logits_of(&[0.97, 0.01, 0.01, 0.01]),
        &[],
        &[0.25; 4],
    );
}

#[test]
fn ties_at_the_cut_go_to_the_lower_ids() {
    let logits = [1.0, 2.0, 1.0, 1.0, -0.0, 0.0];
    let e = 1f64.exp();
    let half = [1.0 / (e + 1.0), e / (e + 1.0), 0.0, 0.0, 0.0, 0.0];
    check_distribution(SamplerOptions { top_k: 2, ..plain() }, &logits, &[], &half);
    // As probable as the best is probable enough.
    let best_two = [0.0, 0.5, 0.5];
    check_distribution(SamplerOptions { min_p: 1.0, ..plain() }, &[6.0, 7.0, 7.0], &[], &best_two);
    let even = [0.5, 0.5, 0.0, 0.0];
    check_distribution(SamplerOptions { top_p: 0.5, ..plain() }, &[7.0; 4], &[], &even);
}

#[test]
fn logits_that_are_not_finite_are_never_chosen() {
    let logits = [f32::NAN, 0.0, f32::INFINITY, 0.0, f32::NEG_INFINITY];
    for options in
        [plain(), SamplerOptions { top_k: 4, ..plain() }, SamplerOptions { top_p: 0.99, ..plain() }]
    {
        check_distribution(options, &logits, &[], &[0.0, 0.5, 0.0, 0.5, 0.0]);
    }
    for temperature in [0.0, 1.0] {
        let sampler = sampler(SamplerOptions { temperature, ..plain() });
        assert_eq!(sampler.sample(&[f32::NAN, f32::INFINITY], &[], 0), None);
        assert_eq!(sampler.sample(&[], &[], 0), None);
    }
}

#[test]
fn penalties_change_the_logits_of_the_history() {
    let greedy = SamplerOptions { temperature: 0.0, ..plain() };
    let logits = [2.0, 1.8, -1.0, -1.2];
    let check = |options: SamplerOptions, logits: &[f32], history: &[u32], wanted| {
        assert_eq!(
            sampler(options.clone()).sample(logits, history, 0),
            Some(wanted),
            "{options:?}"
        );
    };
    check(greedy.clone(), &logits, &[0, 0, 0], 0);
    let repetition = SamplerOptions { repetition_penalty: 1.2, ..greedy.clone() };
    check(repetition.clone(), &logits, &[], 0);
    check(repetition.clone(), &logits, &[0], 1);
    // Once, however often the token came; and away from zero for negative logits.
    check(repetition.clone(), &[2.0, 1.6], &[0, 0, 0, 0], 0);
    check(repetition, &logits[2..], &[0, 9, u32::MAX], 0);
    let repetition = SamplerOptions { repetition_penalty: 1.3, ..greedy.clone() };
    check(repetition, &logits[2..], &[0], 1);
    let frequency = SamplerOptions { frequency_penalty: 0.09, ..greedy.clone() };
    check(frequency.clone(), &logits, &[0, 0], 0);
    check(frequency.clone(), &logits, &[0, 0, 0], 1);
    check(SamplerOptions { penalty_window: 2, ..frequency.clone() }, &logits, &[0, 0, 0], 0);
    check(SamplerOptions { penalty_window: 3, ..frequency }, &logits, &[0, 0, 0], 1);
    let presence = SamplerOptions { presence_penalty: 0.21, ..greedy.clone() };
    check(presence.clone(), &logits, &[0], 1);
    check(SamplerOptions { penalty_window: 1, ..presence }, &logits, &[0, 3], 0);
    check(SamplerOptions { presence_penalty: -5.0, ..greedy }, &logits, &[3], 3);
}

#[test]
fn a_bias_is_added_last_and_can_ban() {
    let biased = |bias: &[(u32, f32)]| SamplerOptions { logit_bias: bias.to_vec(), ..plain() };
    let even = [5.0; 3];
    check_distribution(biased(&[(1, 2f32.ln())]), &even, &[], &[0.25, 0.5, 0.25]);
    check_distribution(biased(&[(1, f32::NEG_INFINITY)]), &even, &[], &[0.5, 0.0, 0.5]);
    check_distribution(biased(&[(7, 100.0), (u32::MAX, 1.0)]), &even, &[], &[1.0 / 3.0; 3]);
    let after_penalty =
        SamplerOptions { temperature: 0.0, repetition_penalty: 2.0, ..biased(&[(0, 4.0)]) };
    // (0 / 2 + 4), not (0 + 4) / 2.
    assert_eq!(sampler(after_penalty).sample(&[0.0, 3.0], &[0], 0), Some(0));
}

#[test]
fn greedy_takes_the_most_probable_token_that_is_not_banned() {
    for (logits, banned, id) in [
        (&[1.0, 3.0, 2.0][..], None, Some(1)),
        (&[1.0, 3.0, 2.0], Some(1), Some(2)),
        (&[2.0, 3.0, 2.0], Some(1), Some(0)),
        (&[1.0, 2.0, 3.0], Some(7), Some(2)),
        (&[1.0, 2.0, 3.0], Some(0), Some(2)),
        (&[1.0, 1.0], None, Some(0)),
        (&[1.0], Some(0), None),
        (&[], None, None),
    ] {
        let sampler = Sampler::greedy(banned);
        assert_eq!(sampler.sample(logits, &[], 0), id, "{logits:?}");
        let list = Shortlist::of(logits, 2, 0.0);
        assert_eq!(sampler.sample_shortlist(&list, 0), id, "{logits:?}");
    }
}

#[test]
fn options_that_make_no_sense_name_their_field() {
    let check = |options: SamplerOptions, message: &str| {
        assert_eq!(Sampler::new(options).unwrap_err().to_string(), message);
    };
    let d = SamplerOptions::default;
    check(SamplerOptions { temperature: -0.1, ..d() }, "temperature is -0.1, it must be 0 or more");
    check(
        SamplerOptions { temperature: f32::NAN, ..d() },
        "temperature is NaN, it must be 0 or more",
    );
    check(
        SamplerOptions { temperature: f32::INFINITY, ..d() },
        "temperature is inf, it must be 0 or more",
    );
    check(SamplerOptions { top_p: 1.1, ..d() }, "top_p is 1.1, it must be between 0 and 1");
    check(SamplerOptions { top_p: f32::NAN, ..d() }, "top_p is NaN, it must be between 0 and 1");
    check(SamplerOptions { min_p: -1.0, ..d() }, "min_p is -1, it must be between 0 and 1");
    check(
        SamplerOptions { repetition_penalty: 0.0, ..d() },
        "repetition_penalty is 0, it must be above 0",
    );
    check(
        SamplerOptions { frequency_penalty: f32::NAN, ..d() },
        "frequency_penalty is NaN, it must be finite",
    );
    check(
        SamplerOptions { presence_penalty: f32::INFINITY, ..d() },
        "presence_penalty is inf, it must be finite",
    );
    let error = Sampler::new(SamplerOptions { logit_bias: vec![(5, f32::INFINITY)], ..d() });
    assert_eq!(error.unwrap_err(), SamplerError::Bias { id: 5, value: f32::INFINITY });
    assert!(Sampler::new(d()).is_ok());
}

#[test]
fn a_draw_depends_on_seed_and_position_alone() {
    let logits: Vec<f32> = (0..1000).map(|i| (i as f32 * 0.37).sin()).collect();
    let draws = |seed, positions: &mut dyn Iterator<Item = u64>| -> Vec<Option<u32>> {
        let sampler = sampler(SamplerOptions { seed, ..plain() });
        positions.map(|position| sampler.sample(&logits, &[1, 2, 3], position)).collect()
    };
    let forward = draws(7, &mut (0..100));
    let mut backward = draws(7, &mut (0..100).rev());
    backward.reverse();
    assert_eq!(forward, backward);
    assert_eq!(forward[60..], draws(7, &mut (60..100)));
    assert_ne!(forward, draws(8, &mut (0..100)));
    assert_ne!(forward, draws(7, &mut (1..101)));
}

proptest! {
    #[test]
    fn any_options_choose_a_finite_logit_that_the_filters_leave(
        logits in prop::collection::vec(
            prop_oneof![8 => -30f32..30.0, 1 => any::<f32>()], 1..300,
        ),
        temperature in prop_oneof![Just(0.0f32), 0.001f32..1e4],
        top_k in 0usize..320,
        top_p in 0f32..=1.0,
        min_p in 0f32..=1.0,
        seed: u64,
        position: u64,
    ) {
        let options = SamplerOptions { temperature, top_k, top_p, min_p, seed, ..plain() };
        let chosen = sampler(options).sample(&logits, &[], position);
        let Some(chosen) = chosen else {
            prop_assert!(logits.iter().all(|l| !l.is_finite()));
            return Ok(());
        };
        let chosen = logits[chosen as usize];
        prop_assert!(chosen.is_finite());
        let better = logits.iter().filter(|l| l.is_finite() && **l > chosen).count();
        prop_assert!(temperature > 0.0 || better == 0);
        prop_assert!(top_k == 0 || better < top_k);
        let best = logits.iter().copied().filter(|l| l.is_finite()).fold(f32::MIN, f32::max);
        prop_assert!(temperature == 0.0 || ((chosen - best) / temperature).exp() >= min_p * 0.9999);
    }
}
