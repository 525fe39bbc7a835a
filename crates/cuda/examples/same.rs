//! Whether a session's logits on the card are the same bits however its tokens come: in one round, one by one, a few at
//! a time, alone and among others, on any file.
//!
//! `cargo run --release -p ds4-cuda --example same -- FILE [--context 2300]`

#![allow(clippy::print_stdout, reason = "a tool's output is its result")]

use std::{env, error::Error, path::Path, sync::Arc};

use ds4_cuda::{CudaExecutor, CudaOptions};
use ds4_engine::{Executor, Feed, Logits, SlotId, Want};
use ds4_model::Model;

/// Tokens that come in different ways.
const TOKENS: usize = 120;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let file = arguments.first().ok_or("which file?")?;
    let context = match arguments.iter().position(|a| a == "--context") {
        Some(at) => arguments.get(at + 1).ok_or("a number is missing")?.parse()?,
        None => 2300,
    };
    let model = Arc::new(Model::open(Path::new(file))?);
    let options = CudaOptions { fast: true, ..CudaOptions::default() };
    let mut cuda = CudaExecutor::new(Arc::clone(&model), options)?;
    let token = |i: usize| ((i * i * 31 + i * 17) % model.config.vocab) as u32;
    let tokens: Vec<u32> = (0..context + TOKENS).map(token).collect();
    let (before, last) = tokens.split_at(context);
    let slot = cuda.open()?;
    let mut logits = Logits::default();
    for tokens in before.chunks(options.rows) {
        cuda.step(&[Feed { slot, tokens, want: Want::Last }], &mut logits)?;
    }
    let want = among(&mut cuda, slot, last, TOKENS, 1)?;
    let mut same = true;
    for (at_a_time, sessions) in
        [(1, 1), (2, 1), (3, 1), (7, 1), (50, 1), (1, 2), (1, 4), (1, 5), (1, 16), (1, 60)]
    {
        let got = among(&mut cuda, slot, last, at_a_time, sessions)?;
        let rows = got.chunks(model.config.vocab).zip(want.chunks(model.config.vocab));
        let equal =
            |(a, b): (&[f32], &[f32])| a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits());
        let differ: Vec<usize> =
            rows.enumerate().filter(|(_, pair)| !equal(*pair)).map(|(i, _)| i).collect();
        println!("{at_a_time} at a time, {sessions} sessions: differ {differ:?}");
        same &= differ.is_empty();
    }
    if same { Ok(()) } else { Err("the same session gave different logits".into()) }
}

/// The logits of a fork of `slot` that gets `tokens` so many at a time, while other forks get theirs.
fn among(
    cuda: &mut CudaExecutor,
    slot: SlotId,
    tokens: &[u32],
    at_a_time: usize,
    sessions: usize,
) -> Result<Vec<f32>, Box<dyn Error>> {
    let slots = (0..sessions).map(|_| cuda.fork(slot)).collect::<Result<Vec<_>, _>>()?;
    let turned: Vec<u32> = tokens.iter().rev().copied().collect();
    let (mut all, mut logits) = (Vec::new(), Logits::default());
    for (mine, others) in tokens.chunks(at_a_time).zip(turned.chunks(at_a_time)) {
        // The session that is looked at is the last.
        let of =
            |i: usize| if i + 1 == sessions { (mine, Want::All) } else { (others, Want::Last) };
        let feeds: Vec<Feed<'_>> = slots
            .iter()
            .enumerate()
            .map(|(i, &slot)| Feed { slot, tokens: of(i).0, want: of(i).1 })
            .collect();
        cuda.step(&feeds, &mut logits)?;
        let rows = mine.len() * (logits.values.len() / (mine.len() + sessions - 1));
        all.extend_from_slice(&logits.values[logits.values.len() - rows..]);
    }
    slots.into_iter().for_each(|slot| cuda.close(slot));
    Ok(all)
}
