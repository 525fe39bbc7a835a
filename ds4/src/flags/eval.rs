//! The flags of `ds4 eval` alone.

use ds4_model::Rounding;

use super::{Action, Args, Command, Flag, Topic};

/// All of them, in the order of the help.
pub const FLAGS: &[Flag] = &[
    flag(
        "suite",
        Action::Word { name: "NAME", known: &["nano"], set: suite },
        "which test sets: nano has those that the built-in model was trained for [nano]",
    ),
    flag(
        "limit",
        Action::Count { name: "N", from: 1, to: 1 << 32, set: |args, n| args.eval.limit = Some(n) },
        "only the first tests of each group [all]",
    ),
    flag(
        "plain",
        Action::Switch(|args| args.rounding = Some(Rounding::Plain)),
        "the same as --rounding plain",
    ),
];

const fn flag(long: &'static str, action: Action, doc: &'static str) -> Flag {
    let commands = &[Command::Eval];
    Flag { long, short: None, topic: Topic::Eval, commands, action, doc }
}

fn suite(_: &mut Args, name: &str) -> Result<(), String> {
    match name {
        "nano" => Ok(()),
        _ => Err(format!("`{name}` is no suite, there is nano")),
    }
}
