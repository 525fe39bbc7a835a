//! Sessions draw the tokens that whole rows of logits give, whatever was fetched of them.

mod fake;

use std::{
    ops::ControlFlow::Continue,
    sync::{Arc, atomic::Ordering::SeqCst},
};

use ds4_engine::{EngineError, Logits, Sampler, SamplerOptions, Session, SessionOptions};
use fake::{Behaviour, Fault, VOCAB, engine, logits_after};

const OPTIONS: SessionOptions = SessionOptions { context: 100, chunk: 4 };

/// Shortlists of `shortlist` tokens.
fn short(shortlist: usize, recalls: bool) -> Behaviour {
    Behaviour { shortlist, recalls, ..Behaviour::default() }
}

fn sampler(options: SamplerOptions) -> Sampler {
    Sampler::new(options).unwrap()
}

fn greedy() -> Sampler {
    Sampler::greedy([])
}

fn samplers() -> Vec<Sampler> {
    let usual = SamplerOptions { seed: 5, ..SamplerOptions::default() };
    let plain = SamplerOptions { min_p: 0.0, ..usual.clone() };
    [
        SamplerOptions { temperature: 0.0, ..usual.clone() },
        SamplerOptions {
            temperature: 0.0,
            logit_bias: vec![(7, f32::NEG_INFINITY)],
            ..plain.clone()
        },
        SamplerOptions { top_p: 0.9, ..plain.clone() },
        SamplerOptions { top_p: 0.9, temperature: 5.0, ..plain.clone() },
        SamplerOptions { top_k: 4, ..plain.clone() },
        SamplerOptions { temperature: 3.0, ..usual.clone() },
        SamplerOptions { repetition_penalty: 1.3, ..usual.clone() },
        usual,
        plain,
    ]
    .map(sampler)
    .into()
}

fn drawn(sampler: &Sampler, tokens: &[u32]) -> Option<u32> {
    sampler.sample(&logits_after(tokens), tokens, tokens.len() as u64)
}

fn begin(behaviour: Behaviour) -> (Session, Arc<fake::Watch>) {
    let (engine, watch) = engine(behaviour);
    let mut session = engine.session(OPTIONS).unwrap();
    session.sync(&[1, 2, 3], &mut |_| Continue(())).unwrap();
    (session, watch)
}

#[test]
fn what_is_expected_changes_no_draw() {
    for behaviour in [short(0, false), short(VOCAB, false), short(6, true), short(6, false)] {
        for sampler in samplers() {
            let (mut session, _watch) = begin(behaviour);
            session.expect(&sampler);
            for _ in 0..40 {
                let token = session.draw(&sampler).unwrap();
                assert_eq!(token, drawn(&sampler, session.tokens()), "{behaviour:?} {sampler:?}");
                session.push(token.unwrap()).unwrap();
            }
            // One that nobody expected.
            let other = samplers().pop().unwrap();
            let token = session.draw(&other).unwrap();
            assert_eq!(token, drawn(&other, session.tokens()));
            assert_eq!(session.len(), 43);
        }
    }
}

#[test]
fn a_shortlist_stands_in_for_the_logits_and_no_token_is_evaluated_twice() {
    let (mut session, watch) = begin(short(VOCAB, false));
    session.expect(&greedy());
    session.push(4).unwrap();
    assert_eq!(session.logits(), None);
    let before = watch.evaluated.load(SeqCst);
    session.sync(&[1, 2, 3, 4], &mut |_| Continue(())).unwrap();
    let mut fork = session.fork().unwrap();
    for session in [&mut session, &mut fork] {
        assert_eq!(session.draw(&greedy()).unwrap(), drawn(&greedy(), &[1, 2, 3, 4]));
    }
    assert_eq!(watch.evaluated.load(SeqCst), before);
    // Who expects the whole row gets it with the next sync.
    session.expect(&samplers().pop().unwrap());
    session.sync(&[1, 2, 3, 4], &mut |_| Continue(())).unwrap();
    assert_eq!(session.logits(), Some(&logits_after(&[1, 2, 3, 4])[..]));
    assert_eq!(watch.evaluated.load(SeqCst), before + 1);
    // And a rewind forgets it.
    fork.truncate(2).unwrap();
    assert_eq!(fork.draw(&greedy()).unwrap(), drawn(&greedy(), &[1, 2]));
}

#[test]
fn a_row_is_recalled_for_a_file_if_it_is_still_there() {
    for (recalls, wanted) in [(true, Some(logits_after(&[1, 2, 3, 4]))), (false, None)] {
        let (mut session, _watch) = begin(short(3, recalls));
        session.expect(&greedy());
        session.push(4).unwrap();
        let bytes = session.export(2).unwrap();
        let mut copy = session.engine().import(&bytes, OPTIONS).unwrap();
        assert_eq!(copy.logits(), wanted.as_deref());
        assert_eq!(copy.draw(&greedy()).unwrap(), drawn(&greedy(), &[1, 2, 3, 4]));
    }
}

/// A copy that goes on without the row evaluates the last token again, and not all of them.
#[test]
fn a_copy_without_its_row_can_take_back_its_last_token() {
    let (mut session, watch) = begin(short(3, false));
    session.expect(&greedy());
    session.push(4).unwrap();
    let bytes = session.export(0).unwrap();
    let mut copy = session.engine().import(&bytes, OPTIONS).unwrap();
    let before = watch.evaluated.load(SeqCst);
    assert_eq!(copy.draw(&greedy()).unwrap(), drawn(&greedy(), &[1, 2, 3, 4]));
    assert_eq!(watch.evaluated.load(SeqCst), before + 1);
}

#[test]
fn an_empty_session_has_nothing_to_draw() {
    let (engine, _watch) = engine(short(3, true));
    let mut session = engine.session(OPTIONS).unwrap();
    assert_eq!(session.draw(&greedy()).unwrap(), None);
}

#[test]
fn a_batch_gives_each_session_what_it_expects() {
    for behaviour in [short(0, false), short(3, true)] {
        let (mut a, _watch) = begin(behaviour);
        let engine = Arc::clone(a.engine());
        let mut b = a.fork().unwrap();
        let mut c = a.fork().unwrap();
        a.expect(&greedy());
        c.expect(&greedy());
        let mut rows = Logits::default();
        engine.push_together(&mut [(&mut a, 4), (&mut b, 5), (&mut c, 6)], &mut rows).unwrap();
        assert_eq!(a.logits().is_none(), behaviour.shortlist > 0);
        assert_eq!(b.logits(), Some(&logits_after(&[1, 2, 3, 5])[..]));
        for (session, last) in [(&mut a, 4), (&mut b, 5), (&mut c, 6)] {
            assert_eq!(session.draw(&greedy()).unwrap(), drawn(&greedy(), &[1, 2, 3, last]));
        }
    }
}

#[test]
fn a_backend_that_keeps_a_shortlist_to_itself_is_told_on() {
    let (mut session, watch) = begin(short(3, true));
    let engine = Arc::clone(session.engine());
    session.expect(&greedy());
    watch.inject(Fault::ShortLogits);
    assert!(matches!(session.push(4), Err(EngineError::Contract { .. })));
    let mut other = session.fork().unwrap();
    let batch = &mut [(&mut session, 5), (&mut other, 6)];
    let together = engine.push_together(batch, &mut Logits::default());
    assert!(matches!(together, Err(EngineError::Contract { .. })));
    watch.inject(Fault::None);
    assert_eq!(session.draw(&greedy()).unwrap(), drawn(&greedy(), &[1, 2, 3, 4, 5]));
}
