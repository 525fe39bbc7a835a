//! Exported states: they go on as if nothing had happened, keep their rewind depth, and are refused
//! where they do not fit.

mod fixture;

use ds4_cpu::{CpuExecutor, CpuOptions};
use ds4_engine::{ExecError, Executor, SlotState};
use ds4_model::Rounding;
use fixture::{assert_same, evaluate, executor, feed, model, prompt};

fn options(rounding: Rounding) -> CpuOptions {
    CpuOptions { threads: 1, rounding, rewind: 40, ..CpuOptions::default() }
}

#[test]
fn a_state_goes_on_elsewhere_and_can_go_back() {
    for (id, rounding) in
        [("sparse_a-f32", Rounding::Plain), ("kquant_a-ds4_iq2", Rounding::Official)]
    {
        let model = model(id);
        let mut here = executor(&model, options(rounding));
        let tokens = prompt(&model, 400, 0);
        let fresh = evaluate(&mut here, &tokens, &[400]);
        for (len, rewind, back) in
            [(0, 0, 0), (1, 9, 1), (7, 0, 0), (131, 0, 0), (300, 33, 33), (300, 90, 40)]
        {
            let slot = here.open().unwrap();
            if len > 0 {
                feed(&mut here, slot, &tokens[..len], &[len]);
            }
            let state = here.export(slot, rewind).unwrap();
            assert_eq!((state.len, state.rewind), (len, rewind.min(40).min(len)));
            let mut there = executor(&model, CpuOptions { threads: 2, ..options(rounding) });
            let copy = there.import(&state).unwrap();
            assert_eq!(there.export(copy, rewind).unwrap(), state, "{id} {len} {rewind}");
            assert_eq!(there.truncate(copy, len - back).unwrap(), len - back);
            let got = feed(&mut there, copy, &tokens[len - back..], &[1, 60]);
            let want = &fresh.values[(len - back) * fresh.vocab..];
            assert_same(&got.values, want, &format!("{id} {len} {rewind} {back}"));
        }
    }
}

#[test]
fn a_shallower_executor_takes_a_deeper_state() {
    let model = model("sparse_a-f32");
    let mut deep = executor(&model, options(Rounding::Official));
    let tokens = prompt(&model, 300, 0);
    let fresh = evaluate(&mut deep, &tokens, &[300]);
    let slot = deep.open().unwrap();
    feed(&mut deep, slot, &tokens[..200], &[200]);
    let state = deep.export(slot, 40).unwrap();
    let mut shallow = executor(&model, CpuOptions { rewind: 5, ..options(Rounding::Official) });
    let slot = shallow.import(&state).unwrap();
    assert_eq!(shallow.truncate(slot, 195).unwrap(), 195);
    let got = feed(&mut shallow, slot, &tokens[195..], &[105]);
    assert_same(&got.values, &fresh.values[195 * fresh.vocab..], "shallower");
    assert_eq!(shallow.truncate(slot, 200).unwrap(), 0);
}

#[test]
fn what_does_not_fit_is_refused() {
    let model = model("sparse_a-f32");
    let mut cpu = executor(&model, options(Rounding::Official));
    let slot = cpu.open().unwrap();
    feed(&mut cpu, slot, &prompt(&model, 150, 0), &[150]);
    let good = cpu.export(slot, 10).unwrap();

    let check = |cpu: &mut CpuExecutor, damage: &dyn Fn(&mut SlotState), part: &str| {
        let mut state = good.clone();
        damage(&mut state);
        match cpu.import(&state) {
            Err(ExecError::StateMismatch(why)) => assert!(why.contains(part), "{why}"),
            other => panic!("{part}: {other:?}"),
        }
    };
    check(&mut cpu, &|s| s.rounding = Rounding::Plain, "rounded Plain");
    check(&mut cpu, &|s| s.layers.truncate(2), "2 layers");
    check(&mut cpu, &|s| s.rewind = 151, "rewind 151");
    check(&mut cpu, &|s| s.len = usize::MAX, "layer 0: the compressed rows");
    check(&mut cpu, &|s| s.len = 300, "layer 0: the compressed rows");
    check(&mut cpu, &|s| (s.len, s.rewind) = (100, 0), "layer 0: the window");
    check(&mut cpu, &|s| s.layers[3].window.truncate(9), "layer 3: the window");
    check(&mut cpu, &|s| s.layers[1].compressed.push(0), "layer 1: the compressed rows");
    check(&mut cpu, &|s| s.layers[1].index.push(0), "layer 1: the index rows");
    check(&mut cpu, &|s| s.layers[0].pending.kv.clear(), "layer 0: pending values");
    check(&mut cpu, &|s| s.layers[0].pending.score.push(0.0), "layer 0: pending scores");
    check(&mut cpu, &|s| s.layers[2].index_pending.kv.clear(), "layer 2: pending index values");
    check(&mut cpu, &|s| s.layers[2].index_pending.score.clear(), "layer 2: pending index scores");
    assert!(cpu.import(&good).is_ok());
}

/// A timeline that nobody would wait for in a test: a short state, its rows repeated.
#[test]
fn a_distant_position_is_like_any_other() {
    let model = model("kquant_a-ds4_iq2");
    let mut cpu = executor(&model, options(Rounding::Official));
    let slot = cpu.open().unwrap();
    feed(&mut cpu, slot, &prompt(&model, 512, 0), &[512]);
    let mut state = cpu.export(slot, 0).unwrap();
    let times = 512;
    state.len *= times;
    for layer in &mut state.layers {
        layer.compressed = layer.compressed.repeat(times);
        layer.index = layer.index.repeat(times);
    }
    let tokens = prompt(&model, 20, 7);
    let at_once = cpu.import(&state).unwrap();
    let at_once = feed(&mut cpu, at_once, &tokens, &[20]);
    let one_by_one = cpu.import(&state).unwrap();
    let one_by_one = feed(&mut cpu, one_by_one, &tokens, &[1, 2, 9]);
    assert_same(&one_by_one.values, &at_once.values, "at position 262144");
    let near = feed(&mut cpu, slot, &tokens, &[20]);
    assert_ne!(near.values, at_once.values);
}
