//! How fast a model runs on the card: load, prompt, decode, decode of several sessions, and where a
//! decode step's time goes.
//!
//! `cargo run --release -p ds4-cuda --example speed -- FILE [--exact] [--context 2048] [--steps 128] [--batch 1] [--rows 4096] [--slice 512]`

#![allow(clippy::print_stdout, reason = "a tool's output is its result")]

use std::{env, error::Error, path::Path, sync::Arc, time::Instant};

use ds4_cuda::{CudaExecutor, CudaOptions};
use ds4_engine::{Executor, Feed, Logits, SlotId, Want};
use ds4_model::Model;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let file = arguments.first().ok_or("which file?")?;
    let number = |name: &str, default: usize| -> Result<usize, Box<dyn Error>> {
        match arguments.iter().position(|a| a == name) {
            Some(at) => Ok(arguments.get(at + 1).ok_or("a number is missing")?.parse()?),
            None => Ok(default),
        }
    };
    let (context, steps) = (number("--context", 2048)?, number("--steps", 128)?);
    let batch = number("--batch", 1)?;
    let rows = number("--rows", CudaOptions::default().rows)?;
    let slice = number("--slice", CudaOptions::default().slice)?;
    let fast = !arguments.iter().any(|a| a == "--exact");

    let start = Instant::now();
    let model = Arc::new(Model::open(Path::new(file))?);
    let options = CudaOptions { fast, rows, slice, ..CudaOptions::default() };
    let mut cuda = CudaExecutor::new(Arc::clone(&model), options)?;
    println!("{}: {file}, fast {fast}", cuda.device().name);
    println!("loaded in {:.1} s", start.elapsed().as_secs_f64());

    let vocab = model.config.vocab;
    let token = |i: usize| ((i * i * 31 + i * 17) % vocab) as u32;
    let tokens: Vec<u32> = (0..context).map(token).collect();
    let slot = cuda.open()?;
    let mut logits = Logits::default();
    let start = Instant::now();
    for tokens in tokens.chunks(rows) {
        cuda.step(&[Feed { slot, tokens, want: Want::Last }], &mut logits)?;
    }
    let rate = context as f64 / start.elapsed().as_secs_f64();
    println!("prompt of {context}: {rate:.0} tokens/s");

    let mut slots = vec![slot];
    while slots.len() < batch {
        slots.push(cuda.fork(slot)?);
    }
    for run in 0..3 {
        let start = Instant::now();
        decode(&mut cuda, &slots, steps, run, vocab)?;
        let rate = (steps * slots.len()) as f64 / start.elapsed().as_secs_f64();
        println!("decode of {} at {context}, run {run}: {rate:.1} tokens/s", slots.len());
    }
    cuda.time_kernels(true);
    // The first step runs as it comes, the second records what it does; the third is timed.
    decode(&mut cuda, &slots, 2, 3, vocab)?;
    cuda.reset_stages();
    decode(&mut cuda, &slots, 1, 5, vocab)?;
    print_times(&cuda);
    cuda.reset_stages();
    let prompt = &tokens[..rows.min(context)];
    cuda.step(&[Feed { slot, tokens: prompt, want: Want::Last }], &mut logits)?;
    println!("{} tokens of a prompt at {context}:", prompt.len());
    print_times(&cuda);
    Ok(())
}

fn print_times(cuda: &CudaExecutor) {
    for (name, count, seconds) in cuda.kernel_times() {
        println!("{:9.1} us {count:5} {name}", seconds * 1e6);
    }
}

fn decode(
    cuda: &mut CudaExecutor,
    slots: &[SlotId],
    steps: usize,
    seed: usize,
    vocab: usize,
) -> Result<(), Box<dyn Error>> {
    let mut logits = Logits::default();
    for step in 0..steps {
        let tokens: Vec<[u32; 1]> = (0..slots.len())
            .map(|i| [((step * 7919 + i * 104729 + seed * 31) % vocab) as u32])
            .collect();
        let feeds: Vec<Feed<'_>> = slots
            .iter()
            .zip(&tokens)
            .map(|(&slot, tokens)| Feed {
                slot,
                tokens,
                want: Want::Shortlist { temperature: 1.0 },
            })
            .collect();
        cuda.step(&feeds, &mut logits)?;
    }
    Ok(())
}
