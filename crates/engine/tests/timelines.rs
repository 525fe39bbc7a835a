//! Invariant 5 from the session's side: whatever led to a list of tokens, the logits are the same.

mod fake;

use std::{
    ops::ControlFlow::{Break, Continue},
    sync::atomic::Ordering::SeqCst,
};

use ds4_engine::SessionOptions;
use ds4_model::Rounding;
use fake::{Behaviour, VOCAB, engine, logits_after};
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Act {
    /// Keep this share of the tokens, then go on with these; break off at this many calls.
    Sync {
        keep: f64,
        new: Vec<u32>,
        patience: usize,
    },
    Push(u32),
    Append(Vec<u32>),
    Truncate(f64),
    Fork,
    Travel {
        rewind: usize,
    },
}

fn act() -> impl Strategy<Value = Act> {
    let token = || 0..VOCAB as u32;
    let some = || prop::collection::vec(token(), 0..30);
    prop_oneof![
        4 => (0f64..1.3, some(), prop_oneof![Just(usize::MAX), 0usize..4])
            .prop_map(|(keep, new, patience)| Act::Sync { keep: keep.min(1.0), new, patience }),
        4 => token().prop_map(Act::Push),
        1 => some().prop_map(Act::Append),
        3 => (0f64..=1.0).prop_map(Act::Truncate),
        1 => Just(Act::Fork),
        2 => (0usize..200).prop_map(|rewind| Act::Travel { rewind }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_session_is_a_function_of_its_tokens(
        acts in prop::collection::vec(act(), 1..30),
        reach in 0usize..12,
        boundary in prop_oneof![Just(0usize), Just(4), Just(16)],
        chunk in 1usize..40,
        official: bool,
    ) {
        let rounding = if official { Rounding::Official } else { Rounding::Plain };
        let (engine, watch) = engine(Behaviour { rounding, reach, boundary, ..Behaviour::default() });
        let options = SessionOptions { context: 1000, chunk };
        let mut session = engine.session(options).unwrap();
        let mut tokens: Vec<u32> = Vec::new();
        // Whether a rewind was broken off before its first step, and nothing evaluated since.
        let mut bare = false;
        let mut left_behind = Vec::new();
        for act in acts {
            let before = watch.evaluated.load(SeqCst);
            let share = |x: f64| (x * tokens.len() as f64) as usize;
            match act {
                Act::Sync { keep, new, patience } => {
                    let mut target = tokens[..share(keep)].to_vec();
                    target.extend(new);
                    let mut calls = 0;
                    let sync = session.sync(&target, &mut |_| {
                        calls += 1;
                        if calls > patience { Break(()) } else { Continue(()) }
                    }).unwrap();
                    prop_assert_eq!(watch.evaluated.load(SeqCst) - before, sync.evaluated);
                    prop_assert_eq!(sync.reused + sync.evaluated, session.len());
                    prop_assert_eq!(sync.interrupted, session.len() < target.len());
                    prop_assert_eq!(session.tokens(), &target[..session.len()]);
                    prop_assert!(sync.rebuilt <= sync.evaluated);
                    tokens = session.tokens().to_vec();
                    bare = sync.evaluated == 0 && (bare || sync.rewound_from.is_some());
                }
                Act::Push(token) => {
                    session.push(token).unwrap();
                    tokens.push(token);
                    bare = false;
                }
                Act::Append(new) => {
                    session.append(&new, &mut |_, _| {}).unwrap();
                    bare &= new.is_empty();
                    tokens.extend(new);
                }
                Act::Truncate(keep) => {
                    let len = share(keep);
                    let rewind = session.truncate(len).unwrap();
                    prop_assert_eq!(rewind.kept + rewind.rebuilt, len);
                    prop_assert_eq!(watch.evaluated.load(SeqCst) - before, rewind.rebuilt);
                    tokens.truncate(len);
                    bare = false;
                }
                Act::Fork => {
                    let fork = session.fork().unwrap();
                    left_behind.push((session, tokens.clone()));
                    session = fork;
                }
                Act::Travel { rewind } => {
                    let bytes = session.export(rewind).unwrap();
                    let arrived = engine.import(&bytes, options).unwrap();
                    prop_assert_eq!(arrived.logits(), session.logits());
                    left_behind.push((session, tokens.clone()));
                    session = arrived;
                }
            }
            prop_assert_eq!(session.tokens(), &tokens[..]);
            prop_assert_eq!(session.logits().is_none(), bare || tokens.is_empty());
            if let Some(logits) = session.logits() {
                prop_assert_eq!(logits, logits_after(&tokens));
            }
        }
        // Sessions that were copied from are as they were, and go on as they should.
        left_behind.push((session, tokens));
        for (session, tokens) in &mut left_behind {
            session.push(1).unwrap();
            tokens.push(1);
            prop_assert_eq!(session.tokens(), &tokens[..]);
            prop_assert_eq!(session.logits().unwrap(), logits_after(tokens));
        }
        drop(left_behind);
        prop_assert_eq!(watch.open.load(SeqCst), 0);
    }
}
