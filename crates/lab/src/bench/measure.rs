//! The measuring itself.

use std::{fmt, ops::ControlFlow, sync::Arc, time::Instant};

use ds4_engine::{Engine, Logits, Sampler, Session, SessionOptions, Stage, top_logprobs};
use ds4_host::Memory;

use super::{
    Decode, Frontier, IntegerPeak, Limits, Report, Subject, Traffic, limits::Sample, stages,
};
use crate::{LabError, Machine, Summary, percentile, statistics::ratio};

/// How a benchmark is made.
#[derive(Clone, Debug, PartialEq)]
pub struct BenchOptions {
    /// Context lengths, growing.
    pub frontiers: Vec<usize>,
    /// Tokens to decode at each; 0 for prompts only.
    pub decode: usize,
    /// How many sessions decode together, one measurement for each.
    pub batches: Vec<usize>,
    /// Runs that count.
    pub runs: usize,
    /// Runs before them that do not. They stop at the first context length.
    pub warm_up: usize,
    /// Context and chunk of every session.
    pub session: SessionOptions,
    /// A token that is never decoded: the one that ends an answer.
    pub never: Option<u32>,
    /// Whether to find out where the time goes even if that takes a run of its own, because it slows
    /// the backend down.
    pub stages: bool,
}

/// Steps before the stages of a decode are timed in a run of their own: a backend may record the first
/// ones to replay them later.
const UNTIMED_STEPS: usize = 2;
/// Steps that are then timed.
const TIMED_STEPS: usize = 8;

/// What a benchmark is at, for those who wait.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Doing {
    /// Reading weights to see how fast that goes.
    Reading,
    /// Evaluating a prompt.
    Prefill {
        /// The run, from 1; 0 is for warming up.
        run: usize,
        /// Tokens that are there.
        done: usize,
        /// Tokens wanted.
        total: usize,
    },
    /// Decoding.
    Decode {
        /// The run, from 1; 0 is for warming up.
        run: usize,
        /// The context.
        context: usize,
        /// Sessions.
        batch: usize,
    },
}

impl fmt::Display for Doing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let run = |f: &mut fmt::Formatter<'_>, run: usize| match run {
            0 => write!(f, "warming up"),
            run => write!(f, "run {run}"),
        };
        match *self {
            Doing::Reading => write!(f, "reading weights"),
            Doing::Prefill { run: number, done, total } => {
                run(f, number)?;
                write!(f, ": prompt, {done} of {total} tokens")
            }
            Doing::Decode { run: number, context, batch } => {
                run(f, number)?;
                write!(f, ": decoding at {context}, batch {batch}")
            }
        }
    }
}

impl BenchOptions {
    fn check(&self, tokens: &[u32]) -> Result<(), LabError> {
        let growing = self.frontiers.is_sorted_by(|a, b| a < b);
        let Some(&longest) = self.frontiers.last().filter(|_| growing && self.frontiers[0] > 0)
        else {
            return Err(LabError::Frontiers);
        };
        if self.runs == 0 {
            return Err(LabError::Zero("runs"));
        }
        if self.batches.is_empty() || self.batches.contains(&0) {
            return Err(LabError::Zero("batch"));
        }
        if tokens.len() < longest {
            return Err(LabError::ShortPrompt { given: tokens.len(), wanted: longest });
        }
        Ok(())
    }
}

/// Measures an engine on the first of these tokens. `watch` hears what is being done.
pub fn bench(
    engine: &Arc<Engine>,
    subject: Subject,
    tokens: &[u32],
    options: BenchOptions,
    watch: &mut dyn FnMut(Doing),
) -> Result<Report, LabError> {
    options.check(tokens)?;
    let machine = Machine::here();
    let card = engine.card()?;
    let traffic = Traffic::of(engine.model(), engine.rounding())?;
    // A reading that drives other things out of memory would measure the disk.
    let room = Memory::of_this_machine().map(|memory| memory.available / 4);
    let sample = Sample::of(&engine.model().weights, room);
    let (untimed, timed) = (0, options.decode);
    let mut bench = Bench { engine, tokens, options: &options, watch, untimed, timed };

    let mut limits = Limits {
        sample_bytes: sample.bytes(),
        cores: machine.cores,
        integers: match card {
            None => IntegerPeak::measure(&machine, machine.cores),
            Some(_) => None,
        },
        card,
        ..Limits::default()
    };
    (bench.watch)(Doing::Reading);
    match engine.read_rate()? {
        Some(rate) => limits.sample_bytes = rate.sample_bytes,
        None => drop(sample.read(machine.cores)),
    }
    for _ in 0..options.warm_up {
        bench.run(0, &options.frontiers[..1])?;
    }
    let mut runs = Vec::new();
    for run in 1..=options.runs {
        let mut read = |bench: &mut Bench<'_>| {
            (bench.watch)(Doing::Reading);
            match engine.read_rate()? {
                Some(rate) => limits.read_all.runs.push(rate.bytes_per_second),
                None => {
                    limits.read_all.runs.push(sample.read(machine.cores));
                    limits.read_one.runs.push(sample.read(1));
                }
            }
            Ok::<_, LabError>(())
        };
        if run % 2 == 1 {
            read(&mut bench)?;
        }
        runs.push(bench.run(run, &options.frontiers)?);
        if run % 2 == 0 {
            read(&mut bench)?;
        }
    }
    let staged = bench.staged_run()?;
    let frontiers = (0..options.frontiers.len())
        .map(|place| {
            let visits: Vec<&Visit> = runs.iter().filter_map(|run| run.get(place)).collect();
            let staged: Vec<&Visit> = staged.iter().filter_map(|run| run.get(place)).collect();
            let staged = if staged.is_empty() { &visits } else { &staged };
            frontier(&options, place, &visits, staged, &traffic)
        })
        .collect();
    Ok(Report { machine, subject, options, limits, frontiers })
}

/// What one run found at one context length.
struct Visit {
    seconds: f64,
    stages: Vec<Stage>,
    state_bytes: usize,
    /// In the order of the options.
    decodes: Vec<Steps>,
}

/// What one run found at one context length with one batch size.
#[derive(Clone, Default)]
struct Steps {
    /// Of each step.
    seconds: Vec<f64>,
    stages: Vec<Stage>,
}

struct Bench<'a> {
    engine: &'a Arc<Engine>,
    tokens: &'a [u32],
    options: &'a BenchOptions,
    watch: &'a mut dyn FnMut(Doing),
    /// Steps of a decode that do not count.
    untimed: usize,
    /// Steps that do.
    timed: usize,
}

impl Bench<'_> {
    /// A run whose speed does not count, with stages timed, for a backend that times them in no other.
    fn staged_run(&mut self) -> Result<Option<Vec<Visit>>, LabError> {
        if !self.options.stages || !self.engine.time_stages(true)? {
            return Ok(None);
        }
        // Within what a session has room for.
        self.untimed = UNTIMED_STEPS.min(self.options.decode.saturating_sub(1));
        self.timed = TIMED_STEPS.min(self.options.decode - self.untimed);
        let visits = self.run(self.options.runs + 1, &self.options.frontiers);
        self.engine.time_stages(false)?;
        visits.map(Some)
    }

    /// One session from nothing to the last of the context lengths.
    fn run(&mut self, run: usize, frontiers: &[usize]) -> Result<Vec<Visit>, LabError> {
        let mut session = self.engine.session(self.options.session)?;
        let mut visits = Vec::new();
        for &frontier in frontiers {
            let prompt = self.tokens.get(..frontier).unwrap_or(self.tokens);
            self.engine.reset_stages()?;
            let start = Instant::now();
            session.sync(prompt, &mut |progress| {
                (self.watch)(Doing::Prefill { run, done: progress.done, total: progress.total });
                ControlFlow::Continue(())
            })?;
            let seconds = start.elapsed().as_secs_f64();
            let stages = self.engine.stages()?;
            let state_bytes = self.engine.state_bytes()?;
            let decodes = self.decodes(run, &session)?;
            visits.push(Visit { seconds, stages, state_bytes, decodes });
        }
        Ok(visits)
    }

    /// Decodes from a session with every batch size, every other run backwards.
    fn decodes(&mut self, run: usize, session: &Session) -> Result<Vec<Steps>, LabError> {
        let batches = &self.options.batches;
        let mut all: Vec<Steps> = batches.iter().map(|_| Steps::default()).collect();
        if self.options.decode == 0 {
            return Ok(all);
        }
        let order = all.iter_mut().zip(batches);
        let order: Vec<_> = if run % 2 == 1 { order.collect() } else { order.rev().collect() };
        for (steps, &batch) in order {
            (self.watch)(Doing::Decode { run, context: session.len(), batch });
            *steps = self.decode(session, batch)?;
        }
        Ok(all)
    }

    /// Decodes on copies of the session. They part at their first token, which is another one for
    /// each, so that a batch does not choose the same experts throughout.
    fn decode(&self, session: &Session, batch: usize) -> Result<Steps, LabError> {
        let sampler = Sampler::greedy(self.options.never);
        let mut sessions: Vec<Session> =
            (0..batch).map(|_| session.fork()).collect::<Result<_, _>>()?;
        sessions.iter_mut().for_each(|session| session.expect(&sampler));
        let logits = session.logits().unwrap_or_default();
        let firsts = top_logprobs(logits, batch + usize::from(self.options.never.is_some()));
        let mut next: Vec<u32> = firsts
            .iter()
            .map(|first| first.id)
            .filter(|&id| Some(id) != self.options.never)
            .cycle()
            .take(batch)
            .collect();
        next.resize(batch, 0);
        let mut rows = Logits::default();
        let mut seconds = Vec::with_capacity(self.timed);
        self.engine.reset_stages()?;
        for step in 0..self.untimed + self.timed {
            if step == self.untimed {
                self.engine.reset_stages()?;
            }
            let start = Instant::now();
            let mut steps: Vec<(&mut Session, u32)> =
                sessions.iter_mut().zip(next.iter().copied()).collect();
            self.engine.push_together(&mut steps, &mut rows)?;
            for (next, session) in next.iter_mut().zip(&mut sessions) {
                *next = session.draw(&sampler)?.unwrap_or(0);
            }
            if step >= self.untimed {
                seconds.push(start.elapsed().as_secs_f64());
            }
        }
        Ok(Steps { seconds, stages: self.engine.stages()? })
    }
}

/// What all runs say of one context length.
fn frontier(
    options: &BenchOptions,
    place: usize,
    visits: &[&Visit],
    staged: &[&Visit],
    traffic: &Traffic,
) -> Frontier {
    let at = |place: usize| options.frontiers.get(place).copied().unwrap_or(0);
    let tokens = at(place);
    let added = tokens - place.checked_sub(1).map_or(0, at);
    let prefill = Summary::of(visits.iter().map(|visit| ratio(added as f64, visit.seconds)));
    let prefill_stages: Vec<_> = staged.iter().map(|visit| visit.stages.clone()).collect();
    let decode = options.batches.iter().enumerate().filter(|_| options.decode > 0);
    Frontier {
        tokens,
        added,
        prefill_operations: traffic.operations_per_prompt_token() * prefill.median(),
        prefill,
        state_bytes: visits.first().map_or(0, |visit| visit.state_bytes),
        prefill_stages: stages::join(&prefill_stages, added),
        decode: decode
            .map(|(which, &batch)| {
                let of = |visits: &[&Visit]| {
                    let steps = visits.iter().filter_map(|visit| visit.decodes.get(which));
                    steps.cloned().collect::<Vec<Steps>>()
                };
                decoded(options, tokens, batch, &of(visits), &of(staged), traffic)
            })
            .collect(),
    }
}

/// What all runs say of one context length and batch size.
fn decoded(
    options: &BenchOptions,
    context: usize,
    batch: usize,
    steps: &[Steps],
    staged: &[Steps],
    traffic: &Traffic,
) -> Decode {
    let tokens = options.decode;
    let total = (batch * tokens) as f64;
    let all: Vec<f64> = steps.iter().flat_map(|steps| steps.seconds.iter().copied()).collect();
    let stages: Vec<_> = staged.iter().map(|steps| steps.stages.clone()).collect();
    let staged_steps = staged.first().map_or(0, |steps| steps.seconds.len());
    let bytes: f64 = (1..=tokens).map(|step| traffic.step(batch, context + step)).sum();
    Decode {
        batch,
        tokens,
        rate: Summary::of(steps.iter().map(|steps| ratio(total, steps.seconds.iter().sum()))),
        step_median: percentile(&all, 50.0),
        step_99: percentile(&all, 99.0),
        bytes_per_token: ratio(bytes, total),
        stages: stages::join(&stages, staged_steps),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_that_measure_nothing_are_refused() {
        let good = super::super::example::options();
        let tokens = [0; 8];
        assert!(good.check(&tokens).is_ok());
        for (options, message) in [
            (BenchOptions { frontiers: vec![], ..good.clone() }, "one or more"),
            (BenchOptions { frontiers: vec![4, 4], ..good.clone() }, "longer than the one before"),
            (BenchOptions { frontiers: vec![0, 4], ..good.clone() }, "one or more"),
            (BenchOptions { frontiers: vec![9], ..good.clone() }, "has 8 tokens, a context of 9"),
            (BenchOptions { runs: 0, ..good.clone() }, "runs: must be at least 1"),
            (BenchOptions { batches: vec![], ..good.clone() }, "batch: must be at least 1"),
            (BenchOptions { batches: vec![1, 0], ..good }, "batch: must be at least 1"),
        ] {
            let refusal = options.check(&tokens).unwrap_err().to_string();
            assert!(refusal.contains(message), "{refusal}");
        }
    }
}
