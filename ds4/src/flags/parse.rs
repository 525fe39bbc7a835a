//! From the words of the command line to [`Args`], by the table. Left to right; where a flag is given
//! twice the last one counts.

use std::{
    ffi::{OsStr, OsString},
    path::PathBuf,
};

use super::{Action, Args, Command, Flag, LATER_COMMANDS, Topic, all};
use crate::fault::Fault;

/// What the command line asks for.
#[derive(Debug, PartialEq)]
pub enum Asked {
    /// Help, about something or in general.
    Help(Option<String>),
    /// To do something.
    Do(Box<Args>),
}

/// Parses everything behind the program's name.
pub fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Asked, Fault> {
    let mut words = words.into_iter();
    let mut args = Args::default();
    let mut given: Vec<(&Flag, String)> = Vec::new();
    let mut flags_end = false;
    while let Some(word) = words.next() {
        let text = word.to_str().unwrap_or_default();
        if flags_end || text.len() < 2 || !text.starts_with('-') {
            if !flags_end && text == "help" && args.command.is_none() {
                return Ok(Asked::Help(topic(words.next(), None)));
            }
            operand(&mut args, word)?;
            continue;
        }
        if text == "--" {
            flags_end = true;
            continue;
        }
        let (name, glued) = match text.split_once('=') {
            Some((name, value)) if text.starts_with("--") => (name, Some(value)),
            _ => (text, None),
        };
        let flag = find(name, args.command).ok_or_else(|| unknown(name))?;
        match (&flag.action, glued) {
            (Action::Help, _) => {
                let next = glued.map(OsString::from).or_else(|| words.next());
                return Ok(Asked::Help(topic(next, args.command)));
            }
            (Action::Later, _) => {
                let what = flag.doc;
                return Err(Fault::usage(format!("{name}: not available yet ({what})")));
            }
            (Action::Switch(_), Some(_)) => {
                return Err(Fault::usage(format!("{name}: takes no value")));
            }
            (Action::Switch(set), None) => set(&mut args),
            (action, glued) => {
                let value = glued.map(OsString::from).or_else(|| words.next());
                let value = value.ok_or_else(|| {
                    let wanted = action.value_name().unwrap_or("value");
                    Fault::usage(format!("{name}: needs a value, as in `{name} {wanted}`"))
                })?;
                store(action, &value, &mut args)
                    .map_err(|reason| Fault::usage(format!("{name}: {reason}")))?;
            }
        }
        given.push((flag, name.to_owned()));
    }
    if let Some(command) = args.command {
        check_flags_belong(command, &given)?;
    }
    Ok(Asked::Do(Box::new(args)))
}

/// The flag of this spelling. Where commands have different ones, that of the command, or the first.
fn find(spelled: &str, command: Option<Command>) -> Option<&'static Flag> {
    let known = || {
        all().filter(|flag| match spelled.strip_prefix("--") {
            Some(long) => flag.long == long,
            None => flag.short.is_some() && flag.short == spelled.strip_prefix('-'),
        })
    };
    let own = command.and_then(|command| known().find(|flag| flag.is_for(command)));
    own.or_else(|| known().next())
}

fn operand(args: &mut Args, word: OsString) -> Result<(), Fault> {
    let shown = word.to_string_lossy().into_owned();
    let Some(command) = args.command else {
        args.command = Some(Command::from_name(&shown).ok_or_else(|| unknown_command(&shown))?);
        return Ok(());
    };
    let info = command.info();
    match (info.operand, &args.operand) {
        (None, _) => {
            let hint = if command == Command::Chat { "" } else { "; a prompt is given with -p" };
            Err(Fault::usage(format!("`{shown}`: `{}` takes flags only{hint}", info.name)))
        }
        (Some(name), Some(_)) => {
            Err(Fault::usage(format!("`{shown}`: `{}` takes one {name}", info.name)))
        }
        (Some(_), None) => {
            args.operand = Some(word);
            Ok(())
        }
    }
}

/// The word behind a request for help says about what, unless it is a flag.
fn topic(next: Option<OsString>, command: Option<Command>) -> Option<String> {
    let word = next.map(|word| word.to_string_lossy().into_owned());
    let about_command = || command.map(|command| command.info().name.to_owned());
    word.filter(|word| !word.starts_with('-')).or_else(about_command)
}

fn store(action: &Action, value: &OsStr, args: &mut Args) -> Result<(), String> {
    if let Action::Path { set, .. } = action {
        if value.is_empty() {
            return Err("needs a path, not an empty text".into());
        }
        set(args, PathBuf::from(value));
        return Ok(());
    }
    let text = value.to_str().ok_or("the value is not UTF-8")?;
    match action {
        Action::Text { set, .. } => set(args, text.to_owned()),
        Action::Word { set, .. } => set(args, text)?,
        Action::Count { from, to, set, .. } => {
            let wanted = || match *to {
                u64::MAX => format!("`{text}` is not a whole number from {from} up"),
                to => format!("`{text}` is not a whole number from {from} to {to}"),
            };
            let digits_only = text.bytes().all(|byte| byte.is_ascii_digit());
            let number = digits_only.then(|| text.parse().ok()).flatten();
            let number: u64 = number.ok_or_else(wanted)?;
            if !(*from..=*to).contains(&number) {
                return Err(wanted());
            }
            set(args, number);
        }
        Action::Number { from, to, set, .. } => {
            let wanted = || format!("`{text}` is not a number from {from} to {to}");
            let number: f32 = text.parse().map_err(|_| wanted())?;
            // A NaN is in no range.
            if !(*from..=*to).contains(&number) {
                return Err(wanted());
            }
            set(args, number);
        }
        Action::Path { .. } | Action::Switch(_) | Action::Help | Action::Later => {}
    }
    Ok(())
}

fn check_flags_belong(command: Command, given: &[(&Flag, String)]) -> Result<(), Fault> {
    let Some((flag, spelled)) = given.iter().find(|(flag, _)| !flag.is_for(command)) else {
        return Ok(());
    };
    let name = command.info().name;
    let takers: Vec<&str> = flag.commands.iter().map(|command| command.info().name).collect();
    let hint = match takers.as_slice() {
        [] => "it stands for a command of its own".to_owned(),
        takers => format!("it belongs to {}", takers.join(", ")),
    };
    Err(Fault::usage(format!("{spelled}: not a flag of `{name}`; {hint}")))
}

fn unknown(spelled: &str) -> Fault {
    let near = all()
        .filter(|flag| flag.topic != Topic::Later)
        .flat_map(|flag| {
            [Some(format!("--{}", flag.long)), flag.short.map(|short| format!("-{short}"))]
        })
        .flatten()
        .map(|known| (distance(spelled, &known), known))
        .min();
    match near {
        Some((distance, known)) if distance <= 2 && distance < spelled.len() - 1 => {
            Fault::usage(format!("{spelled}: unknown flag; did you mean {known}?"))
        }
        _ => Fault::usage(format!("{spelled}: unknown flag; `ds4 --help all` lists them")),
    }
}

fn unknown_command(name: &str) -> Fault {
    if LATER_COMMANDS.contains(&name) {
        return Fault::usage(format!("{name}: not available yet"));
    }
    let names: Vec<&str> = super::COMMANDS.iter().map(|info| info.name).collect();
    let names = names.join(", ");
    Fault::usage(format!("{name}: unknown command; there are {names}; a prompt is given with -p"))
}

/// Letters to add, take away or change to get from one word to the other.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (cell, y) in row.iter_mut().skip(1).zip(&b) {
            let above = *cell;
            *cell = (diagonal + usize::from(x != *y)).min(above + 1).min(left + 1);
            diagonal = above;
            left = *cell;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;
