//! Lists of the card against the engine's own, on rows of every length and kind.

use ds4_engine::Shortlist;

use super::{LIST_BYTES, LIST_WORDS, Places, largest_bytes, list, lists, shortlist, sum_bytes};
use crate::device::{Device, Kernels, testing::on_the_card};

/// Numbers without a pattern, between -1 and 1.
fn noise(state: &mut u64) -> f32 {
    *state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
    (*state >> 33) as f32 / (1u64 << 30) as f32 - 1.0
}

/// Ways in which rows may be hard.
const KINDS: usize = 9;

fn row(vocab: usize, kind: usize, state: &mut u64) -> Vec<f32> {
    let mut logits: Vec<f32> = (0..vocab)
        .map(|id| {
            let x = noise(state);
            match kind {
                // As a model's: most are far below.
                0 => 12.0 * x * x * x,
                // Few values, so that ties cross every border.
                1 => (4.0 * x).round(),
                2 => 2.5,
                3 => {
                    if x > 0.0 {
                        0.0
                    } else {
                        -0.0
                    }
                }
                // The best stand together, at the end and at the beginning, all in few groups.
                4 => id as f32 * 1e-3,
                5 => -(id as f32) * 1e-3,
                // All the same to the last bits.
                6 => 1.0 + x * 1e-6,
                7 => {
                    if id % 37 == 5 {
                        f32::MAX * x
                    } else {
                        f32::MIN
                    }
                }
                // Far below zero.
                _ => -1000.0 + 30.0 * x,
            }
        })
        .collect();
    // One group is better than all others, but for one token of the last.
    if kind == 0 && vocab > 64 {
        logits[32..64].iter_mut().for_each(|logit| *logit += 20.0);
        logits[vocab - 1] = 20.0;
    }
    logits
}

/// The lists of rows, and the words behind them that nobody may touch.
fn listed(
    device: &Device,
    kernels: &Kernels,
    rows: &[Vec<f32>],
    temperatures: &[f32],
) -> Vec<Option<Shortlist>> {
    let (vocab, count) = (rows[0].len(), rows.len());
    let logits = device.upload(&rows.concat(), "logits").unwrap();
    let on_temperatures = device.upload(temperatures, "temperatures").unwrap();
    let largest = device.alloc(count * largest_bytes(vocab), "largest").unwrap();
    let sums = device.alloc(count * sum_bytes(vocab), "sums").unwrap();
    let behind = 64;
    let on_lists = device.upload(&vec![7u32; count * LIST_WORDS + behind], "lists").unwrap();
    let places = Places {
        logits: logits.address(),
        temperatures: on_temperatures.address(),
        largest: largest.address(),
        sums: sums.address(),
        lists: on_lists.address(),
    };
    list(device, kernels, count, vocab, places).unwrap();
    let mut words = vec![0u32; count * LIST_WORDS + behind];
    device.read(&on_lists, 0, &mut words).unwrap();
    assert_eq!(words[count * LIST_WORDS..], [7; 64], "what lies behind the lists");
    let lists = lists(&words[..count * LIST_WORDS]).zip(temperatures);
    lists.map(|(words, &temperature)| shortlist(words, vocab, temperature)).collect()
}

#[track_caller]
fn check(found: &Shortlist, logits: &[f32], temperature: f32, what: &str) {
    let wanted = Shortlist::of(logits, Shortlist::LONGEST, temperature);
    let differ = found.tokens().zip(wanted.tokens()).position(|(a, b)| a != b);
    assert_eq!(differ, None, "{what}: the first token that differs");
    assert_eq!(found.tokens().len(), wanted.tokens().len(), "{what}: how many");
    if temperature > 0.0 {
        let off = (found.sum() / wanted.sum() - 1.0).abs();
        assert!(off < Shortlist::SUM_ERROR / 1.5, "{what}: the sum is off by {off:e}");
    }
}

const TEMPERATURES: [f32; 7] = [1.0, 0.0, 0.6, 1e-3, f32::MIN_POSITIVE / 8.0, 1e30, 3.0];

#[test]
fn the_best_tokens_are_listed_in_rank_order() {
    on_the_card(|device, kernels| {
        // Fewer tokens and groups than are listed, just as many, more; a row that begins anywhere; one
        // with more groups than threads hold.
        for vocab in
            [1, 31, 50, 255, 256, 257, 1000, 8191, 8192, 8193, 8224, 20_001, 129_280, 140_003]
        {
            let mut state = vocab as u64;
            let rows: Vec<Vec<f32>> = (0..KINDS).map(|kind| row(vocab, kind, &mut state)).collect();
            let temperatures: Vec<f32> = TEMPERATURES.iter().copied().cycle().take(KINDS).collect();
            let found = listed(device, kernels, &rows, &temperatures);
            for (kind, found) in found.iter().enumerate() {
                let what = format!("{vocab} of kind {kind}");
                let found = found.as_ref().expect("all are finite");
                check(found, &rows[kind], temperatures[kind], &what);
            }
            // Company changes nothing, not even the sum.
            for kind in 0..KINDS {
                let alone = listed(device, kernels, &rows[kind..=kind], &temperatures[kind..=kind]);
                let same = alone[0] == found[kind] || temperatures[kind] == 0.0;
                assert!(same, "{vocab} of kind {kind}: alone and in company");
            }
        }
    });
}

#[test]
fn sums_are_near_enough_at_every_temperature() {
    on_the_card(|device, kernels| {
        let mut state = 3;
        for kind in [0, 6, 8] {
            let logits = row(129_280, kind, &mut state);
            let rows = vec![logits.clone(); TEMPERATURES.len()];
            let found = listed(device, kernels, &rows, &TEMPERATURES);
            for (found, temperature) in found.iter().zip(TEMPERATURES) {
                let what = format!("kind {kind} at {temperature}");
                check(found.as_ref().unwrap(), &logits, temperature, &what);
            }
        }
    });
}

#[test]
fn a_logit_that_is_not_finite_is_seen_wherever_it_is() {
    on_the_card(|device, kernels| {
        let (mut state, vocab) = (4, 20_001);
        for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for place in [0, 31, 255, 256, 10_000, 20_000] {
                let good = row(vocab, 0, &mut state);
                let mut spoilt = good.clone();
                spoilt[place] = bad;
                let found = listed(device, kernels, &[good.clone(), spoilt, good], &[1.0; 3]);
                let seen: Vec<bool> = found.iter().map(Option::is_none).collect();
                assert_eq!(seen, [false, true, false], "{bad} at {place}");
            }
        }
    });
}

#[test]
fn a_list_is_read_as_it_was_written() {
    let mut words = vec![0u32; LIST_WORDS];
    assert_eq!(4 * words.len(), LIST_BYTES);
    words[0] = 3.5f32.to_bits();
    for i in 0..Shortlist::LONGEST {
        words[4 + i] = 1000 - i as u32;
        words[4 + Shortlist::LONGEST + i] = (50.0 - i as f32).to_bits();
    }
    let list = shortlist(&words, 300, 1.0).unwrap();
    let tokens: Vec<(u32, f32)> = list.tokens().collect();
    assert_eq!((tokens.len(), tokens[0], tokens[255]), (256, (1000, 50.0), (745, -205.0)));
    assert_eq!(list.sum(), 3.5);
    assert_eq!(shortlist(&words, 20, 1.0).unwrap().tokens().len(), 20);
    words[1] = 1;
    assert_eq!(shortlist(&words, 300, 1.0), None);
}
