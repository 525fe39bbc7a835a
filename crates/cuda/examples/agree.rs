//! Whether card and processor agree on a model: the relative distance of their logits after each of
//! a few tokens, in full precision; and of each one's fast way from its own full precision.
//!
//! `cargo run --release -p ds4-cuda --example agree -- FILE [TOKENS]`

#![allow(clippy::print_stdout, reason = "a tool's output is its result")]

use std::{env, error::Error, path::Path, sync::Arc};

use ds4_cpu::{Activations, CpuExecutor, CpuOptions};
use ds4_cuda::{CudaExecutor, CudaOptions};
use ds4_engine::{Executor, Feed, Logits, Want};
use ds4_model::Model;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let file = arguments.next().ok_or("which file?")?;
    let count = arguments.next().map_or(Ok(16), |n| n.parse::<usize>())?;
    let model = Arc::new(Model::open(Path::new(&file))?);
    let token = |i: usize| ((i * i * 31 + i * 17) % model.config.vocab) as u32;
    let tokens: Vec<u32> = (0..count).map(token).collect();

    let on_cpu = |activations| {
        let options = CpuOptions { activations, ..CpuOptions::default() };
        evaluate(&mut CpuExecutor::new(Arc::clone(&model), options)?, &tokens)
    };
    let (cpu, bytes) = (on_cpu(Activations::Exact)?, on_cpu(Activations::Int8)?);
    let exact = CudaOptions::default();
    let cuda = evaluate(&mut CudaExecutor::new(Arc::clone(&model), exact)?, &tokens)?;
    let fast = CudaOptions { fast: true, ..exact };
    let fast = evaluate(&mut CudaExecutor::new(Arc::clone(&model), fast)?, &tokens)?;
    let pairs = [
        ("cuda from cpu", &cuda, &cpu),
        ("cuda fast from exact", &fast, &cuda),
        ("cpu fast from exact", &bytes, &cpu),
    ];
    for (what, a, b) in pairs {
        let mut distances: Vec<f64> = a.rows().zip(b.rows()).map(|(a, b)| distance(a, b)).collect();
        distances.sort_by(f64::total_cmp);
        let (median, largest) = (distances[count / 2], distances[count - 1]);
        println!("{what}: median {median:.2e}, largest {largest:.2e} of {count} tokens");
    }
    Ok(())
}

fn evaluate(executor: &mut dyn Executor, tokens: &[u32]) -> Result<Logits, Box<dyn Error>> {
    let slot = executor.open()?;
    let mut logits = Logits::default();
    executor.step(&[Feed { slot, tokens, want: Want::All }], &mut logits)?;
    Ok(logits)
}

fn distance(a: &[f32], b: &[f32]) -> f64 {
    let squares = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>().sqrt();
    squares(&mut a.iter().zip(b).map(|(a, b)| f64::from(a - b)))
        / squares(&mut b.iter().map(|&b| f64::from(b)))
}
