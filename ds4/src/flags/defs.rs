//! The table of flags. A new flag is a new entry here and a field in [`super::Args`].

use ds4_cpu::Numa;
use ds4_model::Rounding;
use ds4_prompt::{Profile, Thinking};

use super::{
    Action, Backend, Command,
    Command::{
        Bench, Chat, Completions, Eval, Inspect, Logits, Logprobs, Perplexity, Pull, Run, Tokens,
    },
    Flag, Topic,
};

/// Commands that answer.
const ANSWER: &[Command] = &[Chat, Run];
/// Commands that render a conversation.
const RENDER: &[Command] = &[Chat, Run, Logits, Logprobs];
/// Commands that are given one prompt.
const PROMPTED: &[Command] = &[Run, Tokens, Logits, Logprobs];
/// Commands that evaluate tokens.
const EVALUATE: &[Command] = &[Chat, Run, Logits, Logprobs, Perplexity, Bench, Eval];
const WITH_MODEL: &[Command] =
    &[Chat, Run, Inspect, Tokens, Logits, Logprobs, Perplexity, Bench, Eval];
pub(super) const ALL: &[Command] =
    &[Chat, Run, Inspect, Tokens, Logits, Logprobs, Perplexity, Bench, Eval, Pull, Completions];
/// Flags that stand for a command make sense without one only.
const BARE: &[Command] = &[];

/// Every flag that works, in the order of the help.
pub const FLAGS: &[Flag] = &[
    Flag {
        long: "prompt",
        short: Some("p"),
        topic: Topic::Prompt,
        commands: PROMPTED,
        action: Action::Text { name: "TEXT", set: |args, text| args.prompt = Some(text) },
        doc: "what to answer to",
    },
    Flag {
        long: "prompt-file",
        short: None,
        topic: Topic::Prompt,
        commands: &[Run, Tokens, Logits, Logprobs, Bench],
        action: Action::Path { name: "FILE", set: |args, path| args.prompt_file = Some(path) },
        doc: "read the prompt from a file",
    },
    Flag {
        long: "system",
        short: Some("sys"),
        topic: Topic::Prompt,
        commands: &[Chat, Run, Logits, Logprobs, Bench],
        action: Action::Text { name: "TEXT", set: |args, text| args.system = Some(text) },
        doc: "the system message; an empty one is left out [You are a helpful assistant]",
    },
    Flag {
        long: "raw",
        short: None,
        topic: Topic::Prompt,
        commands: &[Run, Logits, Logprobs],
        action: Action::Switch(|args| args.raw = true),
        doc: "the prompt is rendered already: no template, and markers that it spells count as markers",
    },
    Flag {
        long: "model",
        short: Some("m"),
        topic: Topic::Runtime,
        commands: WITH_MODEL,
        action: Action::Path { name: "FILE", set: |args, path| args.model = Some(path) },
        doc: "a GGUF file, one part of a split one, or a checkpoint's directory \
              [ds4flash.gguf in this directory, else the built-in one]",
    },
    Flag {
        long: "ctx",
        short: Some("c"),
        topic: Topic::Runtime,
        commands: &[Chat, Run, Inspect, Logits, Logprobs, Perplexity, Eval],
        action: Action::Count {
            name: "N",
            from: 1,
            to: 1 << 32,
            set: |args, n| args.context = Some(n),
        },
        doc: "the most tokens that prompt and answer may have together \
              [32768, or what the model was made for if that is less]",
    },
    Flag {
        long: "tokens",
        short: Some("n"),
        topic: Topic::Runtime,
        commands: &[Chat, Run, Logprobs, Perplexity, Bench],
        action: Action::Count {
            name: "N",
            from: 1,
            to: 1 << 32,
            set: |args, n| args.tokens = Some(n),
        },
        doc: "the most tokens to generate or to score [50000]; for bench, the same as --gen-tokens",
    },
    Flag {
        long: "threads",
        short: Some("t"),
        topic: Topic::Runtime,
        commands: EVALUATE,
        action: Action::Count {
            name: "N",
            from: 1,
            to: 4096,
            set: |args, n| args.threads = Some(n),
        },
        doc: "threads that compute [one for each physical core]",
    },
    Flag {
        long: "numa",
        short: None,
        topic: Topic::Runtime,
        commands: EVALUATE,
        action: Action::Word { name: "WHEN", known: &["off", "auto", "copy"], set: numa },
        doc: "copy each core's share of the weights into the memory near it: never, if the cores belong \
              to several memory nodes and there is room, or always; changes speed, never an answer [auto]",
    },
    Flag {
        long: "backend",
        short: None,
        topic: Topic::Runtime,
        commands: EVALUATE,
        action: Action::Word { name: "NAME", known: &["cpu", "cuda", "auto"], set: backend },
        doc: "what computes: cpu, cuda, or auto for the best there is [auto]",
    },
    Flag {
        long: "cpu",
        short: None,
        topic: Topic::Runtime,
        commands: EVALUATE,
        action: Action::Switch(|args| args.backend = Backend::Cpu),
        doc: "the same as --backend cpu",
    },
    Flag {
        long: "cuda",
        short: None,
        topic: Topic::Runtime,
        commands: EVALUATE,
        action: Action::Switch(|args| args.backend = Backend::Cuda),
        doc: "the same as --backend cuda",
    },
    Flag {
        long: "gpu",
        short: None,
        topic: Topic::Runtime,
        commands: EVALUATE,
        action: Action::Count { name: "N", from: 0, to: 255, set: |args, n| args.gpu = Some(n) },
        doc: "which GPU, as the driver counts them [0]",
    },
    Flag {
        long: "exact",
        short: None,
        topic: Topic::Runtime,
        commands: EVALUATE,
        action: Action::Switch(|args| args.exact = true),
        doc: "multiply weights with floats instead of bytes or halves: several times slower, for checking",
    },
    Flag {
        long: "quality",
        short: None,
        topic: Topic::Runtime,
        commands: EVALUATE,
        action: Action::Switch(|args| args.exact = true),
        doc: "the same as --exact",
    },
    Flag {
        long: "prefill-chunk",
        short: None,
        topic: Topic::Runtime,
        commands: EVALUATE,
        action: Action::Count {
            name: "N",
            from: 1,
            to: 65_536,
            set: |args, n| args.prefill_chunk = Some(n),
        },
        doc: "tokens of a prompt that are evaluated at a time; changes speed, never an answer [512; on a GPU 4096, with --exact 512]",
    },
    Flag {
        long: "temp",
        short: None,
        topic: Topic::Sampling,
        commands: ANSWER,
        action: Action::Number {
            name: "F",
            from: 0.0,
            to: 100.0,
            set: |args, value| args.temperature = Some(value),
        },
        doc: "temperature; 0 always takes the most probable token [1]",
    },
    Flag {
        long: "top-p",
        short: None,
        topic: Topic::Sampling,
        commands: ANSWER,
        action: Action::Number {
            name: "F",
            from: 0.0,
            to: 1.0,
            set: |args, value| args.top_p = Some(value),
        },
        doc: "only the most probable tokens that reach this probability together; 1 is off [1]",
    },
    Flag {
        long: "min-p",
        short: None,
        topic: Topic::Sampling,
        commands: ANSWER,
        action: Action::Number {
            name: "F",
            from: 0.0,
            to: 1.0,
            set: |args, value| args.min_p = Some(value),
        },
        doc: "only tokens at least this probable next to the most probable one; 0 is off [0.05]",
    },
    Flag {
        long: "top-k",
        short: None,
        topic: Topic::Sampling,
        commands: ANSWER,
        action: Action::Count {
            name: "N",
            from: 0,
            to: 1 << 32,
            set: |args, n| args.top_k = Some(n),
        },
        doc: "only this many of the most probable tokens; 0 is off [0]",
    },
    Flag {
        long: "seed",
        short: None,
        topic: Topic::Sampling,
        commands: ANSWER,
        action: Action::Count {
            name: "N",
            from: 1,
            to: u64::MAX,
            set: |args, n| args.seed = Some(n),
        },
        doc: "makes the draws repeatable; without it one is drawn and printed",
    },
    Flag {
        long: "repetition-penalty",
        short: None,
        topic: Topic::Sampling,
        commands: ANSWER,
        action: Action::Number {
            name: "F",
            from: 0.01,
            to: 100.0,
            set: |args, value| args.repetition_penalty = Some(value),
        },
        doc: "makes tokens that were there already less likely; 1 is off [1]",
    },
    Flag {
        long: "frequency-penalty",
        short: None,
        topic: Topic::Sampling,
        commands: ANSWER,
        action: Action::Number {
            name: "F",
            from: -100.0,
            to: 100.0,
            set: |args, value| args.frequency_penalty = Some(value),
        },
        doc: "taken off a logit for each time that its token was there [0]",
    },
    Flag {
        long: "presence-penalty",
        short: None,
        topic: Topic::Sampling,
        commands: ANSWER,
        action: Action::Number {
            name: "F",
            from: -100.0,
            to: 100.0,
            set: |args, value| args.presence_penalty = Some(value),
        },
        doc: "taken off a logit if its token was there [0]",
    },
    Flag {
        long: "penalty-window",
        short: None,
        topic: Topic::Sampling,
        commands: ANSWER,
        action: Action::Count {
            name: "N",
            from: 0,
            to: 1 << 32,
            set: |args, n| args.penalty_window = Some(n),
        },
        doc: "how many of the last tokens the penalties look at; 0 is all [0]",
    },
    Flag {
        long: "logit-bias",
        short: None,
        topic: Topic::Sampling,
        commands: ANSWER,
        action: Action::Word { name: "ID=F", known: &[], set: logit_bias },
        doc: "added to the logit of a token; -inf forbids it; may be given several times",
    },
    Flag {
        long: "think",
        short: None,
        topic: Topic::Thinking,
        commands: RENDER,
        action: Action::Switch(|args| args.thinking = Some(Thinking::On)),
        doc: "reason before answering; this is the default",
    },
    Flag {
        long: "think-max",
        short: None,
        topic: Topic::Thinking,
        commands: RENDER,
        action: Action::Switch(|args| args.thinking = Some(Thinking::Max)),
        doc: "reason with the strongest urging; needs a context of at least 393216",
    },
    Flag {
        long: "nothink",
        short: None,
        topic: Topic::Thinking,
        commands: RENDER,
        action: Action::Switch(|args| args.thinking = Some(Thinking::Off)),
        doc: "answer at once",
    },
    Flag {
        long: "effort-profile",
        short: None,
        topic: Topic::Thinking,
        commands: RENDER,
        action: Action::Word { name: "NAME", known: &["official", "preview"], set: effort_profile },
        doc: "whose words --think-max uses: official for checkpoints since Flash 0731, \
              preview for those of April 2026 [official]",
    },
    Flag {
        long: "inspect",
        short: None,
        topic: Topic::Diagnostics,
        commands: BARE,
        action: Action::Switch(|args| args.by_flag.push(Inspect)),
        doc: "the same as the command inspect",
    },
    Flag {
        long: "dump-tokens",
        short: None,
        topic: Topic::Diagnostics,
        commands: BARE,
        action: Action::Switch(|args| args.by_flag.push(Tokens)),
        doc: "the same as the command tokens",
    },
    Flag {
        long: "dump-logits",
        short: None,
        topic: Topic::Diagnostics,
        commands: BARE,
        action: Action::Path {
            name: "FILE",
            set: |args, path| {
                args.by_flag.push(Logits);
                args.output = Some(path);
            },
        },
        doc: "the command logits, written to a file",
    },
    Flag {
        long: "dump-logprobs",
        short: None,
        topic: Topic::Diagnostics,
        commands: BARE,
        action: Action::Path {
            name: "FILE",
            set: |args, path| {
                args.by_flag.push(Logprobs);
                args.output = Some(path);
            },
        },
        doc: "the command logprobs, written to a file",
    },
    Flag {
        long: "perplexity-file",
        short: None,
        topic: Topic::Diagnostics,
        commands: BARE,
        action: Action::Path {
            name: "FILE",
            set: |args, path| {
                args.by_flag.push(Perplexity);
                args.perplexity_file = Some(path);
            },
        },
        doc: "the command perplexity on this file",
    },
    Flag {
        long: "logprobs-top-k",
        short: None,
        topic: Topic::Diagnostics,
        commands: &[Logprobs],
        action: Action::Count {
            name: "N",
            from: 1,
            to: 128,
            set: |args, n| args.top_logprobs = Some(n),
        },
        doc: "how many tokens of each step to print [20]",
    },
    Flag {
        long: "output",
        short: Some("o"),
        topic: Topic::Diagnostics,
        commands: &[Logits, Logprobs],
        action: Action::Path { name: "FILE", set: |args, path| args.output = Some(path) },
        doc: "write there instead of standard output",
    },
    Flag {
        long: "json",
        short: None,
        topic: Topic::Diagnostics,
        commands: &[Inspect],
        action: Action::Switch(|args| args.json = true),
        doc: "print for machines",
    },
    Flag {
        long: "check",
        short: None,
        topic: Topic::Diagnostics,
        commands: &[Inspect],
        action: Action::Switch(|args| args.check = true),
        doc: "also read all weights and look for values that are not finite",
    },
    Flag {
        long: "rounding",
        short: None,
        topic: Topic::Diagnostics,
        commands: EVALUATE,
        action: Action::Word { name: "NAME", known: &["official", "plain"], set: rounding },
        doc: "official rounds cached rows as the model was trained, plain does not, for checking \
              [official]",
    },
    Flag {
        long: "help",
        short: Some("h"),
        topic: Topic::General,
        commands: ALL,
        action: Action::Help,
        doc: "this help, or that of a topic or a command; all is everything",
    },
    Flag {
        long: "version",
        short: Some("V"),
        topic: Topic::General,
        commands: ALL,
        action: Action::Switch(|args| args.version = true),
        doc: "the version of this program",
    },
];

fn backend(args: &mut super::Args, name: &str) -> Result<(), String> {
    args.backend = match name {
        "auto" => Backend::Auto,
        "cpu" => Backend::Cpu,
        "cuda" => Backend::Cuda,
        "metal" | "rocm" => return Err(format!("`{name}` is not available yet")),
        _ => return Err(format!("`{name}` is no backend, there are cpu, cuda and auto")),
    };
    Ok(())
}

fn numa(args: &mut super::Args, when: &str) -> Result<(), String> {
    args.numa = match when {
        "off" => Numa::Off,
        "auto" => Numa::Auto,
        "copy" => Numa::Copy,
        _ => return Err(format!("`{when}` is none of off, auto and copy")),
    };
    Ok(())
}

fn logit_bias(args: &mut super::Args, pair: &str) -> Result<(), String> {
    let wrong = || format!("`{pair}` is not a token id, `=` and a number, as in 1=-inf");
    let (id, bias) = pair.split_once('=').ok_or_else(wrong)?;
    let bias: f32 = bias.parse().map_err(|_| wrong())?;
    if bias.is_nan() || bias == f32::INFINITY {
        return Err(wrong());
    }
    args.logit_bias.push((id.parse().map_err(|_| wrong())?, bias));
    Ok(())
}

fn effort_profile(args: &mut super::Args, name: &str) -> Result<(), String> {
    args.effort_profile = Some(match name {
        "official" => Profile::Official,
        "preview" => Profile::Preview,
        _ => return Err(format!("`{name}` is no profile, there are official and preview")),
    });
    Ok(())
}

fn rounding(args: &mut super::Args, name: &str) -> Result<(), String> {
    args.rounding = Some(match name {
        "official" => Rounding::Official,
        "plain" => Rounding::Plain,
        _ => return Err(format!("`{name}` is no rounding, there are official and plain")),
    });
    Ok(())
}
