//! What a shortlist holds is the start of the row that it stands for, and the row can be asked for until the
//! next step. Without a GPU this says so and passes.

mod card;

use std::{ops::ControlFlow::Continue, sync::Arc};

use ds4_cuda::{CudaExecutor, CudaOptions};
use ds4_engine::{
    Engine, Executor, Feed, Logits, Sampler, SamplerOptions, SessionOptions, Shortlist, SlotId,
    Want,
};
use ds4_model::Model;

fn executor(model: &Arc<Model>, fast: bool) -> CudaExecutor {
    let options = CudaOptions { fast, boundary: 128, ..CudaOptions::default() };
    CudaExecutor::new(Arc::clone(model), options).unwrap()
}

fn bits(row: &[f32]) -> Vec<u32> {
    row.iter().map(|x| x.to_bits()).collect()
}

#[track_caller]
fn check(found: &Shortlist, row: &[f32], temperature: f32) {
    let wanted = Shortlist::of(row, Shortlist::LONGEST, temperature);
    assert!(found.tokens().eq(wanted.tokens()));
    assert!((found.sum() / wanted.sum() - 1.0).abs() < Shortlist::SUM_ERROR / 1.5);
}

/// Steps of several slots of which one wants its row, one its shortlist, one nothing, in turns, often
/// enough to be recorded and replayed.
#[test]
fn a_step_gives_each_slot_what_it_wants() {
    if !card::is_here() {
        return;
    }
    let model = card::model("kquant_a-ds4_iq2.gguf");
    let vocab = model.config.vocab;
    for fast in [false, true] {
        let mut cuda = executor(&model, fast);
        let prompt: Vec<u32> = (0..61).map(|i| i * 37 % vocab as u32).collect();
        // Each slot twice: as it is asked here, and whole rows for comparison.
        let slots: Vec<[SlotId; 2]> = (0..4)
            .map(|i| {
                let slot = cuda.open().unwrap();
                let tokens = &prompt[i..];
                let feed = Feed { slot, tokens, want: Want::Nothing };
                cuda.step(&[feed], &mut Logits::default()).unwrap();
                [slot, cuda.fork(slot).unwrap()]
            })
            .collect();
        for step in 0..9u32 {
            let tokens = [0, 1, 2, 3].map(|i| (step * 7919 + i * 104_729) % vocab as u32);
            let temperature = 0.5 + step as f32 / 4.0;
            let wants = [0, 1, 2, 3].map(|i| match (i + step) % 4 {
                0 => Want::Last,
                1 => Want::Nothing,
                _ => Want::Shortlist { temperature },
            });
            let feeds = |which: usize, wants: [Want; 4]| -> Vec<Feed<'_>> {
                (0..4)
                    .map(|i| Feed { slot: slots[i][which], tokens: &tokens[i..=i], want: wants[i] })
                    .collect()
            };
            let mut whole = Logits::default();
            cuda.step(&feeds(1, [Want::Last; 4]), &mut whole).unwrap();
            let whole: Vec<&[f32]> = whole.rows().collect();
            let mut given = Logits::default();
            cuda.step(&feeds(0, wants), &mut given).unwrap();
            let (mut rows, mut lists) = (given.rows(), given.shortlists.iter());
            for i in 0..4 {
                let recalled = cuda.recall(slots[i][0]).unwrap();
                match wants[i] {
                    Want::Last => assert_eq!(bits(rows.next().unwrap()), bits(whole[i])),
                    Want::Shortlist { .. } => {
                        check(lists.next().unwrap(), whole[i], temperature);
                        assert_eq!(bits(&recalled.unwrap()), bits(whole[i]), "row {i}");
                        continue;
                    }
                    _ => {}
                }
                assert_eq!(recalled, None, "nobody was given a shortlist of row {i}");
            }
            assert!(rows.next().is_none() && lists.next().is_none());
        }
        // What was forgotten, shortened or overwritten cannot be recalled.
        let [slot, other] = slots[0];
        let short = Want::Shortlist { temperature: 1.0 };
        let mut logits = Logits::default();
        let mut step = |cuda: &mut CudaExecutor, slot, want| {
            cuda.step(&[Feed { slot, tokens: &[1], want }], &mut logits).unwrap();
        };
        step(&mut cuda, slot, short);
        assert!(cuda.recall(slot).unwrap().is_some());
        assert_eq!(cuda.recall(other).unwrap(), None);
        let len = cuda.len(slot).unwrap();
        cuda.truncate(slot, len - 1).unwrap();
        assert_eq!(cuda.recall(slot).unwrap(), None);
        step(&mut cuda, slot, short);
        step(&mut cuda, other, Want::Nothing);
        assert_eq!(cuda.recall(slot).unwrap(), None);
        cuda.close(slot);
        cuda.recall(slot).unwrap_err();
    }
}

/// Two sessions that part nowhere: one draws from shortlists, the other from whole rows.
#[test]
fn sessions_draw_the_same_from_either() {
    if !card::is_here() {
        return;
    }
    let model = card::model("kquant_a-ds4_iq2.gguf");
    let engine = Engine::new(Box::new(executor(&model, true)));
    let prompt: Vec<u32> = (0..40).map(|i| i * 11 % model.config.vocab as u32).collect();
    let plain = SamplerOptions { min_p: 0.0, seed: 3, ..SamplerOptions::default() };
    for options in [
        SamplerOptions { temperature: 0.0, ..plain.clone() },
        SamplerOptions { min_p: 0.05, ..plain.clone() },
        SamplerOptions { top_p: 0.9, ..plain.clone() },
        SamplerOptions { top_p: 0.3, temperature: 0.2, ..plain.clone() },
        SamplerOptions { top_k: 20, ..plain.clone() },
        plain,
    ] {
        let sampler = Sampler::new(options).unwrap();
        let [whole, short] = [false, true].map(|expects| {
            let mut session = engine.session(SessionOptions::new(200)).unwrap();
            if expects {
                session.expect(&sampler);
            }
            session.sync(&prompt, &mut |_| Continue(())).unwrap();
            for _ in 0..60 {
                let id = session.draw(&sampler).unwrap().unwrap();
                session.push(id).unwrap();
            }
            session.tokens().to_vec()
        });
        assert_eq!(short, whole, "{:?}", sampler.options());
    }
}
