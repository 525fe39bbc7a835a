//! A shortlist gives the token that its row gives, or none.

use ds4_engine::{Sampler, SamplerOptions, Shortlist, Want};
use proptest::prelude::*;

fn sampler(options: SamplerOptions) -> Sampler {
    Sampler::new(options).unwrap()
}

/// Nothing but the model's own distribution.
fn plain() -> SamplerOptions {
    SamplerOptions { min_p: 0.0, ..SamplerOptions::default() }
}

/// What a backend might tell of a row: the sum is off by this share of what it may be off by.
fn told(logits: &[f32], longest: usize, temperature: f32, off: f64) -> Shortlist {
    let list = Shortlist::of(logits, longest, temperature);
    if logits.iter().any(|logit| !logit.is_finite()) {
        return list;
    }
    let (ids, values): (Vec<u32>, Vec<f32>) = list.tokens().unzip();
    let sum = list.sum() * (1.0 + 0.99 * off * Shortlist::SUM_ERROR);
    Shortlist::new(&ids, &values, logits.len(), temperature, sum as f32)
}

/// Logits that are like those of a model: a few stand out, most are far below.
fn like_a_model(vocab: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut uniform = || {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 40) as f32 / (1 << 24) as f32
    };
    (0..vocab)
        .map(|_| {
            let middle: f32 = (0..6).map(|_| uniform()).sum::<f32>() * 3.0 - 9.0;
            if uniform() < 0.001 { middle + 12.0 * uniform() } else { middle }
        })
        .collect()
}

fn some_logits() -> impl Strategy<Value = Vec<f32>> {
    let logit = prop_oneof![
        (-30f32..30.0).boxed(),
        // Few distinct values: ties at every cut.
        (-4i8..4).prop_map(f32::from).boxed(),
        prop_oneof![
            20 => -8f32..8.0,
            1 => Just(f32::NAN),
            1 => Just(f32::INFINITY),
            1 => Just(f32::NEG_INFINITY),
            1 => Just(-0.0),
            1 => Just(f32::MIN),
            1 => Just(f32::MAX),
        ]
        .boxed(),
        (0f32..1e-3).boxed(),
        Just(2.5).boxed(),
    ];
    prop_oneof![
        prop::collection::vec(logit.clone(), 0..40),
        prop::collection::vec(logit, 200..400),
        (300usize..3000, any::<u64>()).prop_map(|(vocab, seed)| like_a_model(vocab, seed)),
    ]
}

fn some_options() -> impl Strategy<Value = SamplerOptions> {
    (
        prop_oneof![
            Just(0.0f32),
            Just(1.0),
            Just(f32::MIN_POSITIVE / 8.0),
            Just(1e30),
            0.05f32..3.0
        ],
        prop_oneof![Just(0usize), 1usize..5, 1usize..500],
        prop_oneof![Just(1.0f32), Just(0.0), 0f32..=1.0, 0.9f32..1.0],
        prop_oneof![Just(0.0f32), Just(0.05), Just(1.0), 0f32..=1.0, 1e-6f32..1e-2],
        prop_oneof![
            8 => Just(vec![]),
            2 => prop::collection::vec((0u32..400, Just(f32::NEG_INFINITY)), 1..4),
            1 => prop::collection::vec((0u32..400, -2f32..2.0), 1..3),
        ],
        any::<u64>(),
        prop_oneof![6 => Just((1.0f32, 0.0f32)), 1 => (0.5f32..2.0, 0f32..1.0)],
    )
        .prop_map(|(temperature, top_k, top_p, min_p, logit_bias, seed, penalties)| {
            SamplerOptions {
                temperature,
                top_k,
                top_p,
                min_p,
                logit_bias,
                seed,
                repetition_penalty: penalties.0,
                presence_penalty: penalties.1,
                ..SamplerOptions::default()
            }
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn what_a_shortlist_gives_the_row_gives(
        logits in some_logits(),
        options in some_options(),
        longest in prop_oneof![Just(Shortlist::LONGEST), 0usize..40, 1usize..400],
        off in -1f64..=1.0,
        history in prop::collection::vec(0u32..400, 0..5),
        summed_otherwise in prop::bool::weighted(0.1),
    ) {
        let temperature = if summed_otherwise { 0.7 } else { options.temperature };
        let list = told(&logits, longest, temperature, off);
        let sampler = sampler(options);
        for position in 0..50 {
            if let Some(token) = sampler.sample_shortlist(&list, position) {
                prop_assert_eq!(Some(token), sampler.sample(&logits, &history, position));
            }
        }
    }

    /// Where a shortlist is asked for and holds all that the filters leave, it is enough, whatever the draw,
    /// unless a sum is needed that nobody knows.
    #[test]
    fn a_shortlist_is_enough_where_everything_is_in_it(
        logits in some_logits(),
        options in some_options(),
        position: u64,
    ) {
        let sampler = sampler(options);
        if let Want::Shortlist { temperature } = sampler.want() {
            let list = told(&logits, Shortlist::LONGEST, temperature, 0.0);
            let got = sampler.sample_shortlist(&list, position);
            let o = sampler.options();
            let whole = logits.len() <= Shortlist::LONGEST;
            if whole || o.temperature == 0.0 || o.top_k > 0 {
                prop_assert_eq!(got, sampler.sample(&logits, &[], position));
            }
        }
    }
}

#[test]
fn the_common_settings_want_shortlists_and_others_do_not() {
    let greedy = SamplerOptions { temperature: 0.0, ..plain() };
    let banned = vec![(3, f32::NEG_INFINITY)];
    for (options, short) in [
        (SamplerOptions::default(), true),
        (greedy.clone(), true),
        (SamplerOptions { logit_bias: banned.clone(), ..greedy.clone() }, true),
        (SamplerOptions { logit_bias: banned.clone(), ..SamplerOptions::default() }, true),
        (SamplerOptions { temperature: 0.6, top_p: 0.95, ..plain() }, true),
        (SamplerOptions { top_k: 40, ..plain() }, true),
        (SamplerOptions { top_k: 256, ..plain() }, true),
        (SamplerOptions { top_k: 256, logit_bias: banned.clone(), ..plain() }, false),
        (SamplerOptions { top_k: 257, ..plain() }, false),
        (SamplerOptions { top_p: 0.95, logit_bias: banned, ..plain() }, false),
        (plain(), false),
        (SamplerOptions { repetition_penalty: 1.1, ..greedy.clone() }, false),
        (SamplerOptions { presence_penalty: 0.1, ..greedy.clone() }, false),
        (SamplerOptions { frequency_penalty: 0.1, ..SamplerOptions::default() }, false),
        (SamplerOptions { logit_bias: vec![(3, 0.5)], ..greedy }, false),
    ] {
        let temperature = options.temperature;
        let sampler = sampler(options);
        let wanted = if short { Want::Shortlist { temperature } } else { Want::Last };
        assert_eq!(sampler.want(), wanted, "{:?}", sampler.options());
    }
}

/// Where the share is reached just at a token, nobody can tell from a rough sum whether the next one counts:
/// a draw that this changes needs the row, and others do not.
#[test]
fn a_cut_that_is_not_certain_is_left_to_the_row_if_it_matters() {
    let logits = [2.0; 1024];
    for (kept, off) in [(100, -1.0), (100, 1.0), (3, 1.0), (200, -1.0)] {
        let top_p = kept as f32 / 1024.0;
        let sampler = sampler(SamplerOptions { top_p, ..plain() });
        let list = told(&logits, Shortlist::LONGEST, 1.0, off);
        let (mut known, mut unknown) = (0, 0);
        for position in 0..2000 {
            match sampler.sample_shortlist(&list, position) {
                None => unknown += 1,
                token => {
                    assert_eq!(token, sampler.sample(&logits, &[], position));
                    known += 1;
                }
            }
        }
        assert!(known > 400 && unknown > 400, "{kept}, {off}: {known} known, {unknown} not");
    }
    // At the end of the list nothing is certain.
    let sampler = sampler(SamplerOptions { top_p: 0.25, ..plain() });
    let list = told(&logits, Shortlist::LONGEST, 1.0, 0.0);
    assert!((0..100).all(|position| sampler.sample_shortlist(&list, position).is_none()));
}

/// Rows as long as the model's, and as a shortlist is made for: the whole row is seldom needed.
#[test]
fn a_shortlist_is_enough_nearly_always() {
    for options in [
        SamplerOptions::default(),
        SamplerOptions { temperature: 0.6, top_p: 0.95, ..plain() },
        SamplerOptions { temperature: 1.0, top_p: 0.9, ..plain() },
        SamplerOptions { top_p: 0.95, ..SamplerOptions::default() },
        SamplerOptions { top_k: 40, top_p: 0.9, ..plain() },
    ] {
        let (mut known, mut asked) = (0, 0);
        for seed in 1..6 {
            let logits = like_a_model(129_280, seed);
            let list = told(&logits, Shortlist::LONGEST, options.temperature, -1.0);
            let sampler = sampler(SamplerOptions { seed, ..options.clone() });
            for position in 0..40 {
                asked += 1;
                if let Some(token) = sampler.sample_shortlist(&list, position) {
                    assert_eq!(Some(token), sampler.sample(&logits, &[], position));
                    known += 1;
                }
            }
        }
        assert!(known >= asked * 39 / 40, "{options:?}: {known} of {asked}");
    }
}
