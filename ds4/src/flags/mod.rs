//! The command line as data: one table of flags and one of commands drive parsing, every kind of help
//! and the completions of three shells. Nothing here knows what a flag is for once its value is stored.

mod args;
mod bench;
pub mod complete;
mod defs;
mod eval;
pub mod help;
mod later;
pub mod parse;
mod pull;

pub use args::{Args, Backend, BenchArgs};

/// What `ds4` can be asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Command {
    Chat,
    Run,
    Inspect,
    Tokens,
    Logits,
    Logprobs,
    Perplexity,
    Bench,
    Eval,
    Pull,
    Completions,
}

/// A command as people see it.
pub struct CommandInfo {
    pub command: Command,
    pub name: &'static str,
    /// The name of the one argument that it takes besides flags.
    pub operand: Option<&'static str>,
    pub summary: &'static str,
}

/// All commands, in the order of the help.
pub const COMMANDS: &[CommandInfo] = &[
    CommandInfo {
        command: Command::Chat,
        name: "chat",
        operand: None,
        summary: "talk to the model; this is what `ds4` alone does",
    },
    CommandInfo {
        command: Command::Run,
        name: "run",
        operand: None,
        summary: "answer one prompt, given with -p, in a file, or on standard input",
    },
    CommandInfo {
        command: Command::Inspect,
        name: "inspect",
        operand: Some("FILE"),
        summary: "say what a model file holds, what it needs, and whether it is complete",
    },
    CommandInfo {
        command: Command::Tokens,
        name: "tokens",
        operand: None,
        summary: "print the tokens of a text",
    },
    CommandInfo {
        command: Command::Logits,
        name: "logits",
        operand: None,
        summary: "print the logits after a prompt, as JSON",
    },
    CommandInfo {
        command: Command::Logprobs,
        name: "logprobs",
        operand: None,
        summary: "answer greedily and print the likeliest tokens of each step, as JSON",
    },
    CommandInfo {
        command: Command::Perplexity,
        name: "perplexity",
        operand: Some("FILE"),
        summary: "score a text file, token by token",
    },
    CommandInfo {
        command: Command::Bench,
        name: "bench",
        operand: None,
        summary: "measure prompts and decoding at growing contexts, beside what the memory allows",
    },
    CommandInfo {
        command: Command::Eval,
        name: "eval",
        operand: None,
        summary: "play and grade the test sets of the built-in model",
    },
    CommandInfo {
        command: Command::Pull,
        name: "pull",
        operand: Some("NAME"),
        summary: "fetch a published model, checked to the last byte; --list says which there are",
    },
    CommandInfo {
        command: Command::Completions,
        name: "completions",
        operand: Some("SHELL"),
        summary: "print the completions of bash, zsh or fish",
    },
];

/// Commands of the original that are still to come: worth a better answer than "unknown".
const LATER_COMMANDS: &[&str] = &["serve", "agent", "quantize", "imatrix", "worker"];

impl Command {
    pub fn info(self) -> &'static CommandInfo {
        // Every variant is in the table; a test says so.
        COMMANDS.iter().find(|info| info.command == self).unwrap_or(&COMMANDS[0])
    }

    pub fn from_name(name: &str) -> Option<Command> {
        COMMANDS.iter().find(|info| info.name == name).map(|info| info.command)
    }
}

/// The sections of the help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topic {
    Prompt,
    Runtime,
    Sampling,
    Thinking,
    Diagnostics,
    Bench,
    Eval,
    Pull,
    General,
    Later,
}

/// All topics: name, heading, and whether the short help has them.
pub const TOPICS: &[(Topic, &str, &str, bool)] = &[
    (Topic::Prompt, "prompt", "Prompt", true),
    (Topic::Runtime, "runtime", "Model and runtime", true),
    (Topic::Sampling, "sampling", "Sampling", true),
    (Topic::Thinking, "thinking", "Thinking", true),
    (Topic::Diagnostics, "diagnostics", "Diagnostics", false),
    (Topic::Bench, "benchmark", "Benchmark", false),
    (Topic::Eval, "evaluation", "Evaluation", false),
    (Topic::Pull, "download", "Fetching models", false),
    (Topic::General, "general", "General", true),
    (Topic::Later, "later", "Known from the original, not available yet", false),
];

/// One flag.
pub struct Flag {
    /// Spelled with two dashes.
    pub long: &'static str,
    /// Spelled with one dash. More than one letter is the original's way: `-sys`.
    pub short: Option<&'static str>,
    pub topic: Topic,
    /// The commands that take it. `ds4` without a command takes every flag.
    pub commands: &'static [Command],
    pub action: Action,
    pub doc: &'static str,
}

/// What a flag takes and where that goes. The kind of value, its range and the place it is stored in
/// cannot disagree, as they are one thing.
pub enum Action {
    Switch(fn(&mut Args)),
    Text {
        name: &'static str,
        set: fn(&mut Args, String),
    },
    Path {
        name: &'static str,
        set: fn(&mut Args, std::path::PathBuf),
    },
    Count {
        name: &'static str,
        from: u64,
        to: u64,
        set: fn(&mut Args, u64),
    },
    Number {
        name: &'static str,
        from: f32,
        to: f32,
        set: fn(&mut Args, f32),
    },
    /// A word with a meaning. `known` is for help and completions; `set` has the last word.
    Word {
        name: &'static str,
        known: &'static [&'static str],
        set: fn(&mut Args, &str) -> Result<(), String>,
    },
    /// Asks for help; the next argument may say about what.
    Help,
    /// A flag of the original that cannot do its work here yet, and says so.
    Later,
}

impl Action {
    /// The name of the value in the help; `None` for flags without one.
    pub fn value_name(&self) -> Option<&'static str> {
        match self {
            Action::Switch(_) | Action::Later => None,
            Action::Help => Some("[TOPIC]"),
            Action::Text { name, .. }
            | Action::Path { name, .. }
            | Action::Count { name, .. }
            | Action::Number { name, .. }
            | Action::Word { name, .. } => Some(name),
        }
    }

    /// Whether the argument behind the flag belongs to it.
    pub fn takes_value(&self) -> bool {
        !matches!(self, Action::Switch(_) | Action::Help | Action::Later)
    }

    /// The words that can stand behind the flag, where they are few.
    pub fn known_words(&self) -> &'static [&'static str] {
        match self {
            Action::Word { known, .. } => known,
            _ => &[],
        }
    }
}

impl Flag {
    /// `-p, --prompt TEXT`.
    pub fn spelled(&self) -> String {
        let mut text = String::new();
        if let Some(short) = self.short {
            text.push_str(&format!("-{short}, "));
        }
        text.push_str(&format!("--{}", self.long));
        if let Some(value) = self.action.value_name() {
            text.push_str(&format!(" {value}"));
        }
        text
    }

    pub fn is_for(&self, command: Command) -> bool {
        self.commands.contains(&command)
    }
}

/// Every flag, in the order of the help.
pub fn all() -> impl Iterator<Item = &'static Flag> {
    defs::FLAGS.iter().chain(bench::FLAGS).chain(eval::FLAGS).chain(pull::FLAGS).chain(later::LATER)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_command_is_in_the_table() {
        use Command::*;
        for command in [
            Chat,
            Run,
            Inspect,
            Tokens,
            Logits,
            Logprobs,
            Perplexity,
            Bench,
            Eval,
            Pull,
            Completions,
        ] {
            assert_eq!(command.info().command, command);
            assert_eq!(Command::from_name(command.info().name), Some(command));
        }
        assert!(LATER_COMMANDS.iter().all(|name| Command::from_name(name).is_none()));
    }

    #[test]
    fn no_command_has_a_spelling_twice() {
        let mut seen = HashSet::new();
        for flag in all() {
            let long = format!("--{}", flag.long);
            let spelled = [Some(long), flag.short.map(|short| format!("-{short}"))];
            for spelled in spelled.into_iter().flatten() {
                // Flags that stand for a command are for no command; they are themselves.
                let bare = flag.commands.is_empty().then_some(None);
                for command in flag.commands.iter().copied().map(Some).chain(bare) {
                    assert!(seen.insert((spelled.clone(), command)), "{spelled} {command:?}");
                }
            }
        }
    }

    #[test]
    fn every_flag_is_explained_and_belongs_somewhere() {
        for flag in all() {
            let name = flag.long;
            assert!(flag.doc.len() >= 8, "--{name} is not explained");
            assert!(!flag.doc.ends_with('.'), "--{name}: docs are phrases, not sentences");
            assert!(TOPICS.iter().any(|(topic, ..)| *topic == flag.topic), "--{name}");
            let later = matches!(flag.action, Action::Later);
            assert_eq!(flag.topic == Topic::Later, later, "--{name}");
        }
    }
}
