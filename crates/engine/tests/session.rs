//! Sessions: what is reused, rewound and rebuilt, and what is left after trouble.

mod fake;

use std::{
    ops::ControlFlow::{self, Break, Continue},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::Ordering::SeqCst},
};

use ds4_engine::{
    DEFAULT_CHUNK, Engine, EngineError, Progress, Rewind, Session, SessionOptions, Sync,
};
use fake::{Behaviour, Fault, Watch, engine, logits_after};

const OPTIONS: SessionOptions = SessionOptions { context: 100, chunk: 4 };

fn on(_: Progress) -> ControlFlow<()> {
    Continue(())
}

fn tokens(n: usize) -> Vec<u32> {
    // Never 49, which stands for what is new.
    (0..n as u32).map(|i| i * 7 % 49).collect()
}

fn session_of(behaviour: Behaviour, n: usize) -> (Arc<Engine>, Arc<Watch>, Session) {
    let (engine, watch) = engine(behaviour);
    let mut session = engine.session(OPTIONS).unwrap();
    session.sync(&tokens(n), &mut on).unwrap();
    (engine, watch, session)
}

/// The session holds these tokens, and the logits that follow from them alone.
#[track_caller]
fn check_is(session: &Session, tokens: &[u32]) {
    assert_eq!(session.tokens(), tokens);
    match session.logits() {
        None => assert!(tokens.is_empty(), "no logits after {} tokens", tokens.len()),
        Some(logits) => assert_eq!(logits, logits_after(tokens)),
    }
}

#[test]
fn an_empty_session_has_no_logits_and_extends() {
    let (engine, watch) = engine(Behaviour::default());
    let mut session = engine.session(OPTIONS).unwrap();
    assert_eq!(session.sync(&[], &mut |_| Break(())).unwrap().evaluated, 0);
    assert!(session.is_empty() && session.logits().is_none());
    session.push(9).unwrap();
    check_is(&session, &[9]);
    assert_eq!(watch.evaluated.load(SeqCst), 1);
    assert_eq!((session.len(), session.context(), engine.backend()), (1, 100, "fake"));
}

#[test]
fn syncing_to_what_is_there_evaluates_nothing_and_reports_nothing() {
    let (_engine, watch, mut session) = session_of(Behaviour::default(), 10);
    let sync = session.sync(&tokens(10), &mut |_| panic!("no progress to report")).unwrap();
    let nothing =
        Sync { reused: 10, rewound_from: None, rebuilt: 0, evaluated: 0, interrupted: false };
    assert_eq!(sync, nothing);
    assert_eq!(session.truncate(10).unwrap(), Rewind { kept: 10, rebuilt: 0 });
    assert_eq!(watch.evaluated.load(SeqCst), 10);
    check_is(&session, &tokens(10));
}

#[test]
fn chunks_end_at_multiples_of_their_size_wherever_they_start() {
    for (start, wanted) in
        [(0, vec![0, 4, 8, 10]), (3, vec![3, 4, 8, 10]), (8, vec![8, 10]), (9, vec![9, 10])]
    {
        let (_engine, watch, mut session) = session_of(Behaviour::default(), start);
        let mut seen = Vec::new();
        let sync = session.sync(&tokens(10), &mut |p| {
            assert_eq!((p.reused, p.rebuild, p.total), (start, 0, 10));
            seen.push(p.done);
            Continue(())
        });
        assert_eq!(seen, wanted);
        assert_eq!(sync.unwrap().evaluated, 10 - start);
        assert_eq!(watch.evaluated.load(SeqCst), 10);
        check_is(&session, &tokens(10));
    }
}

/// From 20 tokens to `shared` of them and `new` others.
fn check_sync(behaviour: Behaviour, shared: usize, new: usize, wanted: Sync) {
    let (_engine, watch, mut session) = session_of(behaviour, 20);
    let mut target = tokens(shared);
    target.extend(vec![49; new]);
    let mut announced = None;
    let sync = session.sync(&target, &mut |p| {
        announced.get_or_insert((p.reused, p.rebuild));
        Continue(())
    });
    assert_eq!(sync.unwrap(), wanted, "{shared} shared, {new} new");
    assert_eq!(announced.unwrap_or((wanted.reused, 0)), (wanted.reused, wanted.rebuilt));
    assert_eq!(watch.evaluated.load(SeqCst), 20 + wanted.evaluated);
    check_is(&session, &target);
}

#[test]
fn a_sync_reuses_rewinds_or_rebuilds_and_says_which() {
    let near = Behaviour { reach: 4, ..Behaviour::default() };
    let bounded = Behaviour { reach: 4, boundary: 8, ..Behaviour::default() };
    let sync = |reused, rebuilt, evaluated| Sync {
        reused,
        rewound_from: Some(20),
        rebuilt,
        evaluated,
        interrupted: false,
    };
    check_sync(near, 20, 3, Sync { rewound_from: None, ..sync(20, 0, 3) });
    check_sync(near, 18, 3, sync(18, 0, 3));
    check_sync(near, 16, 1, sync(16, 0, 1));
    check_sync(near, 15, 1, sync(0, 15, 16));
    check_sync(near, 0, 2, sync(0, 0, 2));
    check_sync(bounded, 15, 1, sync(8, 7, 8));
    check_sync(bounded, 7, 5, sync(0, 7, 12));
    // A shorter prefix: the last token again, for its logits.
    check_sync(near, 18, 0, sync(17, 1, 1));
    check_sync(bounded, 16, 0, sync(8, 8, 8));
    check_sync(near, 0, 0, sync(0, 0, 0));
}

#[test]
fn truncation_gives_the_logits_of_the_shorter_session() {
    let (_engine, _, mut session) = session_of(Behaviour::default(), 20);
    assert_eq!(session.truncate(18).unwrap(), Rewind { kept: 17, rebuilt: 1 });
    check_is(&session, &tokens(18));
    assert_eq!(session.truncate(5).unwrap(), Rewind { kept: 0, rebuilt: 5 });
    check_is(&session, &tokens(5));
    let error = session.truncate(6).unwrap_err();
    assert_eq!(error.to_string(), "the session has 5 tokens and cannot be truncated to 6");
    assert_eq!(session.truncate(0).unwrap(), Rewind { kept: 0, rebuilt: 0 });
    check_is(&session, &[]);
    session.push(3).unwrap();
    check_is(&session, &[3]);
}

#[test]
fn breaking_off_leaves_a_valid_shorter_session() {
    for (breaks_at, wanted) in [(0, 2), (4, 4), (8, 8), (12, 12)] {
        let (_engine, watch, mut session) = session_of(Behaviour::default(), 2);
        let sync = session.sync(&tokens(14), &mut |p| {
            if p.done >= breaks_at { Break(()) } else { Continue(()) }
        });
        let sync = sync.unwrap();
        assert_eq!((sync.reused, sync.evaluated, sync.interrupted), (2, wanted - 2, true));
        check_is(&session, &tokens(wanted));
        session.sync(&tokens(14), &mut on).unwrap();
        check_is(&session, &tokens(14));
        assert_eq!(watch.evaluated.load(SeqCst), 14);
    }
    // After the last chunk there is nothing left to break off.
    let (_engine, _, mut session) = session_of(Behaviour::default(), 2);
    let at_end = &mut |p: Progress| if p.done == p.total { Break(()) } else { Continue(()) };
    assert!(!session.sync(&tokens(14), at_end).unwrap().interrupted);
    check_is(&session, &tokens(14));
}

#[test]
fn breaking_off_a_rebuild_reports_what_was_rebuilt() {
    let (_engine, _, mut session) = session_of(Behaviour::default(), 20);
    let mut target = tokens(10);
    target.push(49);
    let sync =
        session.sync(&target, &mut |p| if p.done == 4 { Break(()) } else { Continue(()) }).unwrap();
    let wanted =
        Sync { reused: 0, rewound_from: Some(20), rebuilt: 4, evaluated: 4, interrupted: true };
    assert_eq!(sync, wanted);
    check_is(&session, &tokens(4));
}

#[test]
fn a_session_without_logits_gets_them_by_its_next_step() {
    let stopped = |behaviour| {
        let (engine, watch, mut session) = session_of(behaviour, 20);
        assert!(session.sync(&tokens(18), &mut |_| Break(())).unwrap().interrupted);
        assert_eq!(session.tokens(), tokens(17));
        assert_eq!(session.logits(), None);
        (engine, watch, session)
    };
    let (_engine, _, mut session) = stopped(Behaviour::default());
    session.push(1).unwrap();
    check_is(&session, &[tokens(17), vec![1]].concat());

    let (_engine, watch, mut session) = stopped(Behaviour::default());
    let sync = session.sync(&tokens(17), &mut on).unwrap();
    assert_eq!((sync.rewound_from, sync.rebuilt, sync.evaluated), (Some(17), 1, 1));
    check_is(&session, &tokens(17));
    assert_eq!(watch.evaluated.load(SeqCst), 21);

    let (engine, _, session) = stopped(Behaviour::default());
    let mut copy = engine.import(&session.export(2).unwrap(), OPTIONS).unwrap();
    assert_eq!((copy.tokens(), copy.logits()), (&tokens(17)[..], None));
    copy.sync(&tokens(17), &mut on).unwrap();
    check_is(&copy, &tokens(17));
}

#[test]
fn a_failing_step_leaves_what_was_evaluated_before_it() {
    for (good, wanted) in [(0, 5), (1, 8), (2, 12)] {
        let (_engine, watch, mut session) = session_of(Behaviour::default(), 5);
        watch.inject(Fault::StepAfter(good));
        let error = session.sync(&tokens(14), &mut on).unwrap_err();
        assert_eq!(error.to_string(), "out of luck");
        check_is(&session, &tokens(wanted));
        watch.inject(Fault::None);
        session.sync(&tokens(14), &mut on).unwrap();
        check_is(&session, &tokens(14));
        assert_eq!(watch.evaluated.load(SeqCst), 14);
    }
    let (_engine, watch, mut session) = session_of(Behaviour::default(), 5);
    watch.inject(Fault::StepAfter(0));
    session.push(1).unwrap_err();
    check_is(&session, &tokens(5));
    let mut rows = 0;
    watch.inject(Fault::StepAfter(1));
    session.append(&[8, 9, 10, 11, 12], &mut |_, _| rows += 1).unwrap_err();
    assert_eq!(rows, 3);
    check_is(&session, &[tokens(5), vec![8, 9, 10]].concat());
}

/// The longest chunks are for prompts, of which one row of logits is wanted.
#[test]
fn appending_takes_as_many_tokens_at_a_time_as_there_may_be_rows_of_logits() {
    let (engine, watch) = engine(Behaviour::default());
    let mut session = engine.session(SessionOptions { context: 900, chunk: 4096 }).unwrap();
    watch.inject(Fault::StepAfter(1));
    session.append(&tokens(900), &mut |_, _| {}).unwrap_err();
    check_is(&session, &tokens(DEFAULT_CHUNK));
    watch.inject(Fault::StepAfter(1));
    session.sync(&tokens(900), &mut on).unwrap();
    check_is(&session, &tokens(900));
}

#[test]
fn a_failing_rewind_leaves_what_is_really_there() {
    let (_engine, watch, mut session) = session_of(Behaviour::default(), 20);
    watch.inject(Fault::TruncateFails);
    assert_eq!(session.truncate(18).unwrap_err().to_string(), "stuck");
    check_is(&session, &tokens(20));
    watch.inject(Fault::StepAfter(0));
    session.truncate(18).unwrap_err();
    assert_eq!((session.tokens(), session.logits()), (&tokens(17)[..], None));
    watch.inject(Fault::None);
    session.sync(&tokens(18), &mut on).unwrap();
    check_is(&session, &tokens(18));
}

#[test]
fn appending_hands_out_every_row() {
    let (_engine, _, mut session) = session_of(Behaviour::default(), 3);
    let all = tokens(14);
    let mut next = 3;
    session
        .append(&all[3..], &mut |position, row| {
            assert_eq!(position, next);
            next += 1;
            assert_eq!(row, logits_after(&all[..next]));
        })
        .unwrap();
    assert_eq!(next, 14);
    check_is(&session, &all);
    session.append(&[], &mut |_, _| panic!("nothing was appended")).unwrap();
    check_is(&session, &all);
}

#[test]
fn limits_are_told_with_their_numbers_and_change_nothing() {
    let (engine, watch) = engine(Behaviour::default());
    let mut session = engine.session(SessionOptions { context: 8, ..OPTIONS }).unwrap();
    session.sync(&tokens(8), &mut on).unwrap();
    let full = "9 tokens do not fit the session's context of 8";
    assert_eq!(session.push(0).unwrap_err().to_string(), full);
    assert_eq!(session.sync(&tokens(9), &mut on).unwrap_err().to_string(), full);
    assert_eq!(session.append(&[0], &mut |_, _| {}).unwrap_err().to_string(), full);
    check_is(&session, &tokens(8));
    let outside = "token id 50 at position 2 is outside the vocabulary of 50";
    assert_eq!(session.sync(&[1, 2, 50], &mut on).unwrap_err().to_string(), outside);
    check_is(&session, &tokens(8));
    session.truncate(2).unwrap();
    assert_eq!(session.push(50).unwrap_err().to_string(), outside);
    assert_eq!(
        session.append(&[u32::MAX], &mut |_, _| {}).unwrap_err().to_string(),
        "token id 4294967295 at position 2 is outside the vocabulary of 50"
    );
    check_is(&session, &tokens(2));
    assert_eq!(watch.evaluated.load(SeqCst), 8 + 2);

    let refused =
        |context, chunk| engine.session(SessionOptions { context, chunk }).unwrap_err().to_string();
    assert_eq!(refused(0, 1), "the session's context must be at least 1");
    assert_eq!(refused(1, 0), "the session's chunk must be at least 1");
    assert_eq!(
        refused(1001, 1),
        "a context of 1001 tokens was asked for, the model was made for 1000"
    );
    assert!(engine.session(SessionOptions { context: 1000, chunk: usize::MAX }).is_ok());
}

#[test]
fn forks_live_their_own_lives_and_close_their_slots() {
    let (engine, watch, mut session) = session_of(Behaviour::default(), 10);
    let mut fork = session.fork().unwrap();
    assert_eq!(watch.open.load(SeqCst), 2);
    fork.push(1).unwrap();
    session.truncate(9).unwrap();
    check_is(&fork, &[tokens(10), vec![1]].concat());
    check_is(&session, &tokens(9));
    assert!(engine.state_bytes().unwrap() > 0);
    drop(session);
    fork.truncate(10).unwrap();
    check_is(&fork, &tokens(10));
    drop(fork);
    assert_eq!(watch.open.load(SeqCst), 0);
    assert_eq!(engine.state_bytes().unwrap(), 0);
}

#[test]
fn sessions_of_several_threads_share_the_executor() {
    let (engine, watch) = engine(Behaviour::default());
    std::thread::scope(|scope| {
        for seed in 0..4 {
            let engine = &engine;
            scope.spawn(move || {
                let mut session = engine.session(OPTIONS).unwrap();
                let mut tokens: Vec<u32> = (0..30).map(|i| (i * 3 + seed) % 50).collect();
                session.sync(&tokens, &mut on).unwrap();
                for token in 0..20 {
                    session.push(token).unwrap();
                    tokens.push(token);
                }
                check_is(&session, &tokens);
            });
        }
    });
    assert_eq!(watch.evaluated.load(SeqCst), 200);
    assert_eq!(watch.open.load(SeqCst), 0);
}

#[test]
fn after_a_panic_in_the_executor_every_call_is_an_error() {
    let (engine, watch, mut session) = session_of(Behaviour::default(), 5);
    let mut other = engine.session(OPTIONS).unwrap();
    watch.inject(Fault::Panic);
    catch_unwind(AssertUnwindSafe(|| session.push(1))).unwrap_err();
    watch.inject(Fault::None);
    let lost = "the fake backend failed earlier and lost its sessions; load the model again";
    for error in [
        session.push(1).unwrap_err(),
        other.sync(&tokens(3), &mut on).unwrap_err(),
        session.truncate(2).unwrap_err(),
        session.fork().unwrap_err(),
        session.export(0).unwrap_err(),
        engine.session(OPTIONS).unwrap_err(),
        engine.state_bytes().unwrap_err(),
    ] {
        assert_eq!(error.to_string(), lost);
    }
}

#[test]
fn a_broken_contract_is_an_error() {
    let check = |fault, call: fn(&mut Session) -> Option<EngineError>, message: &str| {
        let (_engine, watch, mut session) = session_of(Behaviour::default(), 10);
        watch.inject(fault);
        let error = call(&mut session).unwrap().to_string();
        assert_eq!(error, format!("the fake backend broke its contract: {message}"));
    };
    check(
        Fault::ShortLogits,
        |session| session.push(1).err(),
        "it gave 49 logits where 50 were wanted",
    );
    check(
        Fault::LongTruncate,
        |session| session.truncate(8).err(),
        "it truncated to 8 tokens instead of 7",
    );
    check(
        Fault::WrongExport,
        |session| session.export(0).err(),
        "it exported a wrong state: layer 1: 7 bytes of index rows, 6 wanted",
    );
}
