//! The project's own tools: vector sets, fixtures, checks. `cargo xtask help` lists them.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a tool's output is its result; the lint is for libraries"
)]

mod arguments;
mod ci;
mod dequant;
mod encoding;
mod kernels;
mod noise;
mod oracle;
mod requantise;
mod synth;
mod tokens;

use std::{env, process::ExitCode};

/// A command: its name, its usage, and what runs it. `Ok(false)` means that a check failed.
struct Command {
    name: &'static str,
    usage: &'static str,
    run: fn(&[String]) -> Result<bool, String>,
}

const COMMANDS: &[Command] = &[
    Command { name: "ci", usage: ci::USAGE, run: ci::run },
    Command { name: "oracle", usage: oracle::USAGE, run: oracle::run },
    Command { name: "encoding", usage: ENCODING_USAGE, run: encoding::run },
    Command { name: "tokens", usage: TOKENS_USAGE, run: tokens::run },
    Command { name: "dequant", usage: dequant::USAGE, run: dequant::run },
    Command { name: "noise", usage: noise::USAGE, run: noise::run },
    Command { name: "kernels", usage: kernels::USAGE, run: kernels::run },
    Command { name: "requantise", usage: requantise::USAGE, run: requantise::run },
    Command { name: "synth", usage: synth::USAGE, run: synth::run },
];

const ENCODING_USAGE: &str = "--set FILE.jsonl [--tokenizer FILE] [--ids real|small] [--verbose]
    render and parse every conversation of a set";
const TOKENS_USAGE: &str = "--set FILE.jsonl [--tokenizer FILE] [--ids real|small]
    tokenize every text of a set";

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let Some((name, rest)) = arguments.split_first() else {
        eprint!("{}", help());
        return ExitCode::from(2);
    };
    if matches!(name.as_str(), "help" | "--help" | "-h") {
        print!("{}", help());
        return ExitCode::SUCCESS;
    }
    let Some(command) = COMMANDS.iter().find(|command| command.name == name) else {
        eprint!("xtask: no command `{name}`\n\n{}", help());
        return ExitCode::from(2);
    };
    match (command.run)(rest) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(message) => {
            eprintln!("xtask {name}: {message}");
            ExitCode::from(2)
        }
    }
}

fn help() -> String {
    let mut text = String::from("usage: cargo xtask COMMAND\n\n");
    for command in COMMANDS {
        text += &format!("  {} {}\n", command.name, command.usage);
    }
    text
}
