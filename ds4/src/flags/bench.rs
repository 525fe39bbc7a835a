//! The flags of `ds4 bench` alone.

use super::{Action, Args, Command, Flag, Topic};

const MANY: u64 = 1 << 32;

/// All of them, in the order of the help.
pub const FLAGS: &[Flag] = &[
    flag(
        "chat-prompt-file",
        Action::Path { name: "FILE", set: |args, path| args.bench.chat_prompt_file = Some(path) },
        "measure on a file as a chat message, without thinking; with --prompt-file it is raw text \
         [tokens drawn at random, the same in every run]",
    ),
    flag(
        "ctx-start",
        Action::Count {
            name: "N",
            from: 1,
            to: MANY,
            set: |args, n| args.bench.ctx_start = Some(n),
        },
        "the first context length to measure at [2048]",
    ),
    flag(
        "ctx-max",
        Action::Count { name: "N", from: 1, to: MANY, set: |args, n| args.bench.ctx_max = Some(n) },
        "the last one [32768, or what the model was made for if that is less]",
    ),
    flag(
        "step-incr",
        Action::Count {
            name: "N",
            from: 1,
            to: MANY,
            set: |args, n| args.bench.step_incr = Some(n),
        },
        "tokens from one context length to the next [2048]",
    ),
    flag(
        "step-mul",
        Action::Number {
            name: "F",
            from: 1.0,
            to: 1000.0,
            set: |args, factor| args.bench.step_mul = Some(factor),
        },
        "each context length so many times the one before; 1 uses --step-incr [1]",
    ),
    flag(
        "ctx-alloc",
        Action::Count {
            name: "N",
            from: 1,
            to: MANY,
            set: |args, n| args.bench.ctx_alloc = Some(n),
        },
        "the most tokens that a session may hold [just enough]",
    ),
    flag(
        "gen-tokens",
        Action::Count {
            name: "N",
            from: 0,
            to: MANY,
            set: |args, n| args.bench.gen_tokens = Some(n),
        },
        "tokens to decode at each context length; 0 measures prompts only [128]",
    ),
    flag(
        "batch",
        Action::Word { name: "LIST", known: &[], set: batches },
        "how many sessions decode together, as in 1,4,16: one measurement for each [1]",
    ),
    flag(
        "repeats",
        Action::Count { name: "N", from: 1, to: 1000, set: |args, n| args.bench.runs = Some(n) },
        "runs, of which the median is printed [3]",
    ),
    flag(
        "warmup",
        Action::Count { name: "N", from: 0, to: 1000, set: |args, n| args.bench.warm_up = Some(n) },
        "runs before them that do not count; they stop at the first context length [1]",
    ),
    flag(
        "roofline",
        Action::Switch(|args| args.bench.roofline = true),
        "also print where the time goes, and how much of the memory's speed each part reaches",
    ),
    flag(
        "csv",
        Action::Path { name: "FILE", set: |args, path| args.bench.csv = Some(path) },
        "write the numbers as CSV; - is standard output, instead of the table",
    ),
    Flag {
        commands: &[Command::Bench, Command::Eval],
        ..flag(
            "json",
            Action::Path { name: "FILE", set: |args, path| args.json_file = Some(path) },
            "write everything as JSON; - is standard output, instead of the table",
        )
    },
    flag(
        "svg",
        Action::Path { name: "FILE", set: |args, path| args.bench.svg = Some(path) },
        "draw a chart",
    ),
];

const fn flag(long: &'static str, action: Action, doc: &'static str) -> Flag {
    let commands = &[Command::Bench];
    Flag { long, short: None, topic: Topic::Bench, commands, action, doc }
}

fn batches(args: &mut Args, list: &str) -> Result<(), String> {
    const MOST: usize = 1024;
    let size = |word: &str| {
        let digits_only = word.bytes().all(|byte| byte.is_ascii_digit());
        let size = digits_only.then(|| word.parse().ok()).flatten();
        size.filter(|size| (1..=MOST).contains(size))
    };
    let sizes: Option<Vec<usize>> = list.split(',').map(size).collect();
    args.bench.batches = sizes.ok_or_else(|| {
        format!("`{list}` is no list of whole numbers from 1 to {MOST}, as in 1,4,16")
    })?;
    Ok(())
}
