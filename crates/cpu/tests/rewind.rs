//! Going back: within the rewind depth to any length, further to a boundary, and copies that part.

mod fixture;

use ds4_cpu::{CpuExecutor, CpuOptions};
use ds4_engine::{Executor, SlotId};
use ds4_model::{Model, Rounding};
use fixture::{assert_same, evaluate, executor, feed, model, prompt};

fn options(rounding: Rounding) -> CpuOptions {
    CpuOptions {
        threads: 1,
        rounding,
        rewind: 32,
        boundary: 128,
        boundaries_kept: 4,
        ..CpuOptions::default()
    }
}

/// Goes on from where the slot is, and holds the logits against those of a fresh slot.
#[track_caller]
fn check_continues(cpu: &mut CpuExecutor, model: &Model, slot: SlotId, tokens: &[u32], what: &str) {
    let len = cpu.len(slot).unwrap();
    let mut all = tokens[..len].to_vec();
    all.extend(prompt(model, 140, 9));
    let got = feed(cpu, slot, &all[len..], &[3, 50]);
    let fresh = evaluate(cpu, &all, &[all.len()]);
    assert_same(&got.values, &fresh.values[len * fresh.vocab..], what);
}

#[test]
fn within_the_rewind_depth_any_length_is_there() {
    for (id, rounding) in
        [("sparse_a-f32", Rounding::Plain), ("kquant_a-ds4_iq2", Rounding::Official)]
    {
        let model = model(id);
        let mut cpu = executor(&model, options(rounding));
        let tokens = prompt(&model, 270, 0);
        let start = cpu.open().unwrap();
        feed(&mut cpu, start, &tokens, &[270]);
        for back in [1, 2, 3, 5, 13, 31, 32] {
            let slot = cpu.fork(start).unwrap();
            assert_eq!(cpu.truncate(slot, 270 - back).unwrap(), 270 - back);
            check_continues(&mut cpu, &model, slot, &tokens, &format!("{id} back {back}"));
            cpu.close(slot);
        }
    }
}

#[test]
fn going_back_twice_goes_no_further_than_the_depth() {
    let model = model("sparse_a-f32");
    let mut cpu = executor(&model, options(Rounding::Official));
    let tokens = prompt(&model, 200, 0);
    let slot = cpu.open().unwrap();
    feed(&mut cpu, slot, &tokens, &[200]);
    assert_eq!(cpu.truncate(slot, 180).unwrap(), 180);
    assert_eq!(cpu.truncate(slot, 168).unwrap(), 168);
    assert_eq!(cpu.truncate(slot, 190).unwrap(), 168);
    assert_eq!(cpu.truncate(slot, 167).unwrap(), 128);
    check_continues(&mut cpu, &model, slot, &tokens, "after three truncations");
}

#[test]
fn further_back_the_nearest_boundary_is_there() {
    for rounding in [Rounding::Plain, Rounding::Official] {
        let model = model("sparse_a-f32");
        let mut cpu = executor(&model, options(rounding));
        let tokens = prompt(&model, 700, 0);
        let start = cpu.open().unwrap();
        feed(&mut cpu, start, &tokens, &[300, 1, 77]);
        for (len, kept) in [(660, 640), (640, 640), (639, 512), (511, 384), (2, 0)] {
            let slot = cpu.fork(start).unwrap();
            assert_eq!(cpu.truncate(slot, len).unwrap(), kept);
            assert_eq!(cpu.len(slot).unwrap(), kept);
            check_continues(&mut cpu, &model, slot, &tokens, &format!("{rounding:?} to {len}"));
            cpu.close(slot);
        }
    }
}

#[test]
fn without_boundaries_it_is_the_start() {
    let model = model("sparse_a-f32");
    let none = CpuOptions { boundaries_kept: 0, ..options(Rounding::Plain) };
    let nowhere = CpuOptions { boundary: 0, ..options(Rounding::Plain) };
    for options in [none, nowhere] {
        let mut cpu = executor(&model, options);
        let tokens = prompt(&model, 400, 0);
        let slot = cpu.open().unwrap();
        feed(&mut cpu, slot, &tokens, &[400]);
        assert_eq!(cpu.truncate(slot, 300).unwrap(), 0);
        check_continues(&mut cpu, &model, slot, &tokens, "from the start");
    }
}

#[test]
fn copies_do_not_disturb_each_other() {
    let model = model("kquant_a-ds4_iq2");
    let mut cpu = executor(&model, options(Rounding::Official));
    let (common, left, right) =
        (prompt(&model, 210, 0), prompt(&model, 90, 1), prompt(&model, 90, 2));
    let a = cpu.open().unwrap();
    feed(&mut cpu, a, &common, &[210]);
    let one = cpu.state_bytes();
    let b = cpu.fork(a).unwrap();
    assert!(cpu.state_bytes() < 2 * one, "full segments are shared");
    let mut got = [Vec::new(), Vec::new()];
    for i in 0..90 {
        got[0].extend(feed(&mut cpu, a, &left[i..=i], &[1]).values);
        got[1].extend(feed(&mut cpu, b, &right[i..=i], &[1]).values);
    }
    for (got, tail) in got.iter().zip([left, right]) {
        let tokens = [common.clone(), tail].concat();
        let fresh = evaluate(&mut cpu, &tokens, &[tokens.len()]);
        assert_same(got, &fresh.values[210 * fresh.vocab..], "a copy");
    }
    cpu.close(a);
    cpu.close(b);
    assert_eq!(cpu.state_bytes(), 0);
}

/// A long run of arbitrary operations on one timeline, checked at its end.
#[test]
fn any_history_leads_to_the_same_state() {
    let model = model("sparse_a-f32");
    let mut cpu = executor(&model, options(Rounding::Official));
    let mut random = 12345_u64;
    let mut below = |n: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (random >> 33) as usize % n
    };
    let mut slot = cpu.open().unwrap();
    let mut tokens: Vec<u32> = Vec::new();
    for step in 0..60 {
        match below(5) {
            0 => {
                let back = below(tokens.len().min(if step % 2 == 0 { 20 } else { 400 }) + 1);
                let kept = cpu.truncate(slot, tokens.len() - back).unwrap();
                tokens.truncate(kept);
            }
            1 => {
                let copy = cpu.fork(slot).unwrap();
                feed(&mut cpu, slot, &prompt(&model, 40, step), &[9]);
                cpu.close(slot);
                slot = copy;
            }
            2 => {
                let state = cpu.export(slot, below(50)).unwrap();
                cpu.close(slot);
                slot = cpu.import(&state).unwrap();
            }
            _ => {
                let more = prompt(&model, 1 + below(90), step + 100);
                feed(&mut cpu, slot, &more, &[1 + below(60)]);
                tokens.extend(more);
            }
        }
        assert_eq!(cpu.len(slot).unwrap(), tokens.len());
    }
    check_continues(&mut cpu, &model, slot, &tokens, "after sixty operations");
}
