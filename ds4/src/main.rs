//! `ds4`: DeepSeek V4 from the command line.
//!
//! The way of a run: words are parsed by the table of [`flags`] into what was typed, [`plan`] makes of it
//! what will be done, one of [`commands`] or the [`chat`] does it, and a [`fault`] says in one line why
//! it could not. Only model text and results go to standard output; all else goes through [`term`].

mod builtin;
mod chat;
mod commands;
mod fault;
mod flags;
mod generate;
mod load;
mod plan;
mod pull;
mod render;
mod speak;
mod term;

use std::{
    env,
    ffi::OsString,
    io::{self, Write},
    process::ExitCode,
};

use commands::{bench, eval, inspect, logits, logprobs, perplexity, run, tokens};
use fault::Fault;
use flags::parse::{Asked, parse};
use plan::{Plan, Pull};
use term::{Class, Term};

fn main() -> ExitCode {
    let term = Term::of_this_process();
    match obey(env::args_os().skip(1), &mut io::stdout().lock(), term) {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            if let Some(message) = fault.message() {
                term.say(Class::Error, &message);
            }
            fault.exit_code()
        }
    }
}

/// Does what the command line asks for.
fn obey(
    words: impl Iterator<Item = OsString>,
    out: &mut dyn Write,
    term: Term,
) -> Result<(), Fault> {
    let args = match parse(words)? {
        Asked::Help(about) => {
            write!(out, "{}", flags::help::help(about.as_deref(), term.out_style()))?;
            return Ok(out.flush()?);
        }
        Asked::Do(args) => args,
    };
    match Plan::of(*args)? {
        Plan::Version => Ok(writeln!(out, "ds4 {}", env!("CARGO_PKG_VERSION"))?),
        Plan::Completions { shell } => {
            write!(out, "{}", flags::complete::script(shell).unwrap_or_default())?;
            Ok(out.flush()?)
        }
        Plan::Chat(setup, manner, answer) => chat::run(&setup, manner, &answer, out, term),
        Plan::Run(setup, manner, answer, prompt) => {
            run::run(&setup, &manner, &answer, &prompt, out, term)
        }
        Plan::Inspect { model, context, json, check } => {
            inspect::run(&model, &inspect::Wanted { context, json, check }, out, term)
        }
        Plan::Tokens { model, text } => tokens::run(&model, &text, out, term),
        Plan::Logits { setup, manner, prompt, output } => {
            logits::run(&setup, &manner, &prompt, output.as_deref(), out, term)
        }
        Plan::Logprobs { setup, manner, prompt, output, top, tokens } => {
            let wanted = logprobs::Wanted { output: output.as_deref(), top, tokens };
            logprobs::run(&setup, &manner, &prompt, &wanted, out, term)
        }
        Plan::Perplexity { setup, path, text, tokens } => {
            perplexity::run(&setup, &path, &text, tokens, out, term)
        }
        Plan::Eval { setup, limit, json } => {
            eval::run(&setup, &eval::Wanted { limit, json: json.as_deref() }, out, term)
        }
        Plan::Pull(Pull::List) => pull::list(out),
        Plan::Pull(Pull::Fetch { entry, remote, folder }) => {
            pull::fetch(entry, &remote, &folder, term)
        }
        Plan::Bench(setup, wanted) => bench::run(&setup, &wanted, out, term),
    }
}
