//! `ds4 bench`: how fast the model runs on this machine, and how fast it could.

use std::{io::Write, path::Path};

use ds4_cpu::Activations;
use ds4_host::physical_cores;
use ds4_lab::bench::{
    BenchOptions, Doing, Report, Subject, bench, chart, csv, formats, frontiers, json, roofline,
    table,
};
use ds4_model::Rounding;
use ds4_tokenizer::Tokenizer;

use super::write_result;
use crate::{
    fault::Fault,
    load::{self, Loaded},
    plan::{Bench, BenchPrompt, Prompt, Setup, is_dash},
    render,
    term::{Class, Term},
};

pub fn run(setup: &Setup, wanted: &Bench, out: &mut dyn Write, term: Term) -> Result<(), Fault> {
    let loaded = load::load(setup, term)?;
    let most = wanted.most_in(loaded.session.context)?;
    let options = BenchOptions {
        frontiers: frontiers(wanted.start, most, wanted.stride),
        decode: wanted.decode,
        batches: wanted.batches.clone(),
        runs: wanted.runs,
        warm_up: wanted.warm_up,
        session: loaded.session,
        never: loaded.tokenizer.eos(),
        stages: wanted.roofline,
    };
    warn_of_memory(&loaded, &options, term);
    let tokens = tokens(&loaded, &wanted.prompt, most, term)?;
    let mut line = term.progress();
    let mut last_run = 0;
    let report =
        bench(&loaded.engine, subject(setup, wanted, &loaded), &tokens, options, &mut |doing| {
            match doing {
                Doing::Prefill { run, .. } if run > last_run => {
                    last_run = run;
                    line.show(&match wanted.runs {
                        runs if run > runs => "one more run, for the stages".to_owned(),
                        runs => format!("run {run} of {runs}"),
                    });
                }
                doing => line.flash(&doing.to_string()),
            }
        })?;
    line.clear();
    print(&report, wanted, out, term)
}

/// The sessions of a batch begin as copies of one and share what they can, so that more of them may fit
/// than a plan for strangers says: no reason to refuse.
fn warn_of_memory(loaded: &Loaded, options: &BenchOptions, term: Term) {
    let most = options.batches.iter().copied().max().unwrap_or(1) as u64;
    let context = options.session.context as u64;
    if let Some(free) = loaded.card
        && let Err(error) = loaded.memory.check(free, most, context)
    {
        term.say(Class::Warning, &format!("the largest batch may not fit: {error}"));
    }
}

fn print(report: &Report, wanted: &Bench, out: &mut dyn Write, term: Term) -> Result<(), Fault> {
    let mut to = |path: &Path, text: String| {
        let path = (!is_dash(path)).then_some(path);
        write_result(path, out, |out| Ok(out.write_all(text.as_bytes())?))?;
        if let Some(path) = path {
            term.say(Class::Plain, &format!("wrote {}", path.display()));
        }
        Ok::<_, Fault>(())
    };
    if let Some(path) = &wanted.csv {
        to(path, csv(report))?;
    }
    if let Some(path) = &wanted.json {
        to(path, format!("{:#}\n", json(report)))?;
    }
    if let Some(path) = &wanted.svg {
        to(path, chart(report))?;
    }
    if [&wanted.csv, &wanted.json].into_iter().flatten().any(|path| is_dash(path)) {
        return Ok(());
    }
    out.write_all(table(report).as_bytes())?;
    if wanted.roofline {
        out.write_all(roofline(report).as_bytes())?;
    }
    Ok(out.flush()?)
}

fn subject(setup: &Setup, wanted: &Bench, loaded: &Loaded) -> Subject {
    let model = loaded.engine.model();
    Subject {
        file: loaded.name.clone(),
        model: model.config.name.clone(),
        formats: formats(model),
        backend: loaded.engine.backend().to_owned(),
        threads: if setup.threads == 0 { physical_cores() } else { setup.threads },
        rounding: match setup.rounding {
            Rounding::Official => "official",
            Rounding::Plain => "plain",
        }
        .to_owned(),
        activations: match (setup.activations, loaded.engine.backend()) {
            (Activations::Exact, _) => "f32",
            (Activations::Int8, "cuda") => "f16, int8 before IQ2_XXS and Q2_K experts",
            (Activations::Int8, _) => "int8",
        }
        .to_owned(),
        prompt: match &wanted.prompt {
            BenchPrompt::Drawn => "drawn at random".to_owned(),
            BenchPrompt::Raw { name, .. } | BenchPrompt::Chat { name, .. } => name.clone(),
        },
    }
}

/// The tokens to measure on: at least `most` of them where they are drawn.
fn tokens(
    loaded: &Loaded,
    prompt: &BenchPrompt,
    most: usize,
    term: Term,
) -> Result<Vec<u32>, Fault> {
    match prompt {
        BenchPrompt::Drawn => Ok(drawn(&loaded.tokenizer, most)),
        BenchPrompt::Raw { text, .. } => Ok(loaded.tokenizer.encode(text)),
        BenchPrompt::Chat { text, manner, .. } => {
            let prompt = Prompt { text: text.clone(), raw: false };
            Ok(render::prompt(loaded, manner, &prompt, term)?.tokens)
        }
    }
}

/// Ordinary tokens in an order that says nothing and is always the same: so that experts are chosen as
/// widely as they are in text.
fn drawn(tokenizer: &Tokenizer, count: usize) -> Vec<u32> {
    let vocab = tokenizer.vocab_size() as u64;
    let mut state = 0u64;
    let mut draw = || {
        // SplitMix64.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % vocab.max(1)) as u32
    };
    // A vocabulary of nothing but special tokens must not be searched for ever.
    const TRIES: usize = 100;
    (0..count)
        .map(|_| (0..TRIES).map(|_| draw()).find(|id| !tokenizer.is_special(*id)).unwrap_or(0))
        .collect()
}
