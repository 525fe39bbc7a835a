//! Completions for three shells, from the same table.

use std::collections::HashSet;

use super::{Action, COMMANDS, Flag, Topic, all};

/// The shells.
pub const SHELLS: &[&str] = &["bash", "zsh", "fish"];

/// The script of one shell, if it is known.
pub fn script(shell: &str) -> Option<String> {
    match shell {
        "bash" => Some(bash()),
        "zsh" => Some(zsh()),
        "fish" => Some(fish()),
        _ => None,
    }
}

/// Nobody wants to be offered what is not available.
fn offered() -> impl Iterator<Item = &'static Flag> {
    all().filter(|flag| flag.topic != Topic::Later)
}

fn takes_file(flag: &Flag) -> bool {
    matches!(flag.action, Action::Path { .. })
}

fn command_names() -> String {
    let names: Vec<&str> = COMMANDS.iter().map(|info| info.name).collect();
    names.join(" ")
}

fn spellings(flags: impl Iterator<Item = &'static Flag>) -> Vec<String> {
    flags
        .flat_map(|flag| {
            [flag.short.map(|short| format!("-{short}")), Some(format!("--{}", flag.long))]
        })
        .flatten()
        .collect()
}

fn bash() -> String {
    let mut values = String::new();
    for flag in offered().filter(|flag| flag.action.takes_value()) {
        let pattern = spellings(std::iter::once(flag)).join("|");
        let reply = match flag.action.known_words() {
            [] if takes_file(flag) => "compopt -o default; COMPREPLY=()".to_owned(),
            [] => "COMPREPLY=()".to_owned(),
            words => format!("COMPREPLY=($(compgen -W '{}' -- \"$word\"))", words.join(" ")),
        };
        values.push_str(&format!("        {pattern}) {reply}; return ;;\n"));
    }
    let mut commands = String::new();
    for info in COMMANDS {
        let flags = spellings(offered().filter(|flag| flag.is_for(info.command))).join(" ");
        commands.push_str(&format!("        {}) flags='{flags}' ;;\n", info.name));
    }
    let names = command_names();
    let shells = SHELLS.join(" ");
    let all = spellings(offered()).join(" ");
    format!(
        "_ds4() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}}
    local flags='{all}' command
    case $before in
{values}        completions) COMPREPLY=($(compgen -W '{shells}' -- \"$word\")); return ;;
    esac
    for command in \"${{COMP_WORDS[@]:1:COMP_CWORD-1}}\"; do
        case $command in
{commands}        esac
    done
    if [[ $word == -* ]]; then
        COMPREPLY=($(compgen -W \"$flags\" -- \"$word\"))
    elif [[ $COMP_CWORD == 1 ]]; then
        COMPREPLY=($(compgen -W '{names}' -- \"$word\"))
    else
        compopt -o default
        COMPREPLY=()
    fi
}}
complete -F _ds4 ds4
"
    )
}

fn zsh() -> String {
    let mut text = String::from("#compdef ds4\n_arguments \\\n");
    // Where two commands give one spelling two meanings, zsh is told of the first.
    let mut told = HashSet::new();
    for flag in offered().filter(|flag| told.insert(flag.long)) {
        let doc = flag.doc.replace('\'', "'\\''").replace('[', "(").replace(']', ")");
        let value = match (&flag.action, flag.action.known_words()) {
            (action, _) if !action.takes_value() => String::new(),
            (Action::Path { name, .. }, _) => format!(":{name}:_files"),
            (action, []) => format!(":{}: ", action.value_name().unwrap_or("value")),
            (action, words) => {
                format!(":{}:({})", action.value_name().unwrap_or("value"), words.join(" "))
            }
        };
        for spelled in spellings(std::iter::once(flag)) {
            text.push_str(&format!("    '{spelled}[{doc}]{value}' \\\n"));
        }
    }
    text.push_str(&format!("    '1:command:({})' \\\n    '*:file:_files'\n", command_names()));
    text
}

fn fish() -> String {
    let mut text = String::from("complete -c ds4 -e\n");
    let quoted = |text: &str| text.replace('\\', "\\\\").replace('\'', "\\'");
    for info in COMMANDS {
        let (name, summary) = (info.name, quoted(info.summary));
        text.push_str(&format!(
            "complete -c ds4 -n __fish_use_subcommand -f -a {name} -d '{summary}'\n"
        ));
    }
    let shells = SHELLS.join(" ");
    text.push_str(&format!(
        "complete -c ds4 -n '__fish_seen_subcommand_from completions' -f -a '{shells}'\n"
    ));
    for flag in offered() {
        let mut line = format!("complete -c ds4 -l {}", flag.long);
        if let Some(short) = flag.short {
            let option = if short.len() == 1 { "-s" } else { "-o" };
            line.push_str(&format!(" {option} {short}"));
        }
        let takers: Vec<&str> = flag.commands.iter().map(|command| command.info().name).collect();
        if !takers.is_empty() && takers.len() < COMMANDS.len() {
            let takers = takers.join(" ");
            line.push_str(&format!(
                " -n '__fish_use_subcommand; or __fish_seen_subcommand_from {takers}'"
            ));
        }
        match (&flag.action, flag.action.known_words()) {
            (Action::Path { .. }, _) => line.push_str(" -r -F"),
            (action, []) if action.takes_value() => line.push_str(" -x"),
            (_, []) => {}
            (_, words) => line.push_str(&format!(" -x -a '{}'", words.join(" "))),
        }
        text.push_str(&format!("{line} -d '{}'\n", quoted(flag.doc)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shell_offers_every_flag_that_works() {
        for shell in SHELLS {
            let script = script(shell).unwrap();
            for flag in all() {
                let there = match *shell {
                    "fish" => script.contains(&format!(" -l {} ", flag.long)),
                    _ => script.contains(&format!("--{}", flag.long)),
                };
                // A name may be the beginning of another one, so absence is tested exactly.
                if flag.topic == Topic::Later {
                    assert!(
                        !script.contains(&format!("--{}[", flag.long)),
                        "{shell} {}",
                        flag.long
                    );
                    assert!(!script.contains(&format!(" -l {} ", flag.long)), "{shell}");
                } else {
                    assert!(there, "{shell} {}", flag.long);
                }
            }
            for info in COMMANDS {
                assert!(script.contains(info.name), "{shell} {}", info.name);
            }
        }
        assert_eq!(script("tcsh"), None);
    }
}
