//! Sessions that step as one batch: each is as if it were alone.

mod fake;

use std::{ops::ControlFlow::Continue, sync::atomic::Ordering::SeqCst};

use ds4_engine::{EngineError, Logits, Session, SessionOptions};
use fake::{Behaviour, Fault, VOCAB, engine, logits_after};

const OPTIONS: SessionOptions = SessionOptions { context: 10, chunk: 4 };

#[track_caller]
fn check_is(session: &Session, tokens: &[u32]) {
    assert_eq!(session.tokens(), tokens);
    assert_eq!(session.logits(), Some(&logits_after(tokens)[..]));
}

/// Sessions at these timelines on one engine, and the watch on it.
macro_rules! sessions {
    ($engine:ident, $watch:ident, $($name:ident: $tokens:expr),+) => {
        let ($engine, $watch) = engine(Behaviour::default());
        $(
            let mut $name = $engine.session(OPTIONS).unwrap();
            $name.sync(&$tokens, &mut |_| Continue(())).unwrap();
        )+
    };
}

#[test]
fn each_gets_its_own_token_and_its_own_logits() {
    sessions!(engine, watch, a: [1, 2, 3], b: [4], c: [1, 2]);
    let mut rows = Logits::default();
    let before = watch.evaluated.load(SeqCst);
    engine.push_together(&mut [(&mut a, 7), (&mut b, 8), (&mut c, 7)], &mut rows).unwrap();
    engine.push_together(&mut [(&mut c, 9), (&mut a, 5)], &mut rows).unwrap();
    assert_eq!(watch.evaluated.load(SeqCst), before + 5);
    check_is(&a, &[1, 2, 3, 7, 5]);
    check_is(&b, &[4, 8]);
    check_is(&c, &[1, 2, 7, 9]);
    engine.push_together(&mut [], &mut rows).unwrap();
    b.push(6).unwrap();
    check_is(&b, &[4, 8, 6]);
}

#[test]
fn what_cannot_be_leaves_everyone_as_before() {
    sessions!(engine, watch, a: [1, 2, 3], b: [0; 10]);
    let mut rows = Logits::default();
    let full = engine.push_together(&mut [(&mut a, 7), (&mut b, 8)], &mut rows);
    assert!(matches!(full, Err(EngineError::ContextFull { wanted: 11, context: 10 })));
    let unknown = engine.push_together(&mut [(&mut a, VOCAB as u32)], &mut rows);
    assert!(matches!(unknown, Err(EngineError::TokenOutOfRange { position: 3, .. })));
    let (other, _watch) = fake::engine(Behaviour::default());
    let foreign = other.push_together(&mut [(&mut a, 7)], &mut rows);
    assert!(matches!(foreign, Err(EngineError::OtherEngine)));
    watch.inject(Fault::StepAfter(0));
    let failed = engine.push_together(&mut [(&mut a, 7)], &mut rows);
    assert!(matches!(failed, Err(EngineError::Executor(_))));
    watch.inject(Fault::None);
    check_is(&a, &[1, 2, 3]);
    check_is(&b, &[0; 10]);
}

#[test]
fn a_backend_that_gives_too_little_is_told_on() {
    sessions!(engine, watch, a: [1], b: [2]);
    let mut rows = Logits::default();
    watch.inject(Fault::ShortLogits);
    let short = engine.push_together(&mut [(&mut a, 7), (&mut b, 8)], &mut rows);
    assert!(matches!(short, Err(EngineError::Contract { .. })));
    // The slots have gone on, so the sessions have too; logits come with the next step.
    assert_eq!((a.tokens(), a.logits()), (&[1, 7][..], None));
    watch.inject(Fault::None);
    a.push(9).unwrap();
    check_is(&a, &[1, 7, 9]);
}
