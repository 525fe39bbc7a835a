//! Help: everything, a topic, a command, or what most people need.

use super::{Action, COMMANDS, Command, CommandInfo, Flag, TOPICS, Topic, all};
use crate::term::Style;

const SUMMARY: &str = "DwarfStar: DeepSeek V4 on machines that people own";

/// Examples that fit any help.
const EXAMPLES: &[&str] = &[
    "ds4                               talk to the model in this directory",
    "ds4 run -m MODEL.gguf -p \"Why is the sky blue?\"",
    "ds4 run --nothink < question.txt",
    "ds4 inspect MODEL.gguf --ctx 100000",
];

/// What can be typed in a chat.
pub const CHAT_COMMANDS: &[(&str, &str)] = &[
    ("/help", "this list"),
    ("/think", "reason before answering"),
    ("/think-max", "reason with the strongest urging"),
    ("/nothink", "answer at once"),
    ("/ctx N", "another context limit; the conversation stays"),
    ("/read FILE", "say what the file says"),
    ("/stats", "tokens, memory and speed so far"),
    ("/save FILE", "keep the conversation and its state"),
    ("/load FILE", "go on with a kept conversation"),
    ("/quit, /exit", "leave; so does the end of input"),
];

/// The help about `what`: a topic, a command, `all`, or `None` for the usual.
pub fn help(what: Option<&str>, style: Style) -> String {
    let mut page = Page { text: String::new(), style };
    match what {
        None => page.usual(),
        Some("all") => page.all(),
        Some("commands") => page.chat_commands(),
        Some(what) => {
            if let Some(command) = Command::from_name(what) {
                page.command(command.info());
            } else if let Some((topic, _, heading, _)) =
                TOPICS.iter().find(|(_, name, ..)| *name == what)
            {
                page.flags(heading, |flag| flag.topic == *topic);
            } else {
                page.line(&format!("There is no help about `{what}`."));
                page.usual();
            }
        }
    }
    page.text
}

struct Page {
    text: String,
    style: Style,
}

impl Page {
    fn line(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }

    fn heading(&mut self, heading: &str) {
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        let heading = self.style.bold(heading);
        self.line(&heading);
    }

    fn usual(&mut self) {
        self.intro();
        self.commands();
        for (topic, _, heading, is_usual) in TOPICS {
            if *is_usual {
                self.flags(heading, |flag| flag.topic == *topic);
            }
        }
        self.more();
        self.examples();
    }

    fn all(&mut self) {
        self.intro();
        self.commands();
        for (topic, _, heading, _) in TOPICS {
            self.flags(heading, |flag| flag.topic == *topic);
        }
        self.chat_commands();
        self.examples();
    }

    fn intro(&mut self) {
        let name = self.style.bold("ds4");
        self.line(&format!("{name}  {SUMMARY}"));
        self.line("");
        self.line("usage: ds4 [COMMAND] [FLAGS]");
    }

    fn commands(&mut self) {
        self.heading("Commands");
        for info in COMMANDS {
            let name = match info.operand {
                Some(operand) => format!("{} {operand}", info.name),
                None => info.name.to_owned(),
            };
            self.entry(&name, info.summary);
        }
    }

    fn command(&mut self, info: &CommandInfo) {
        let operand = info.operand.map(|name| format!(" {name}")).unwrap_or_default();
        self.line(&format!("usage: ds4 {}{operand} [FLAGS]", info.name));
        self.line("");
        self.line(info.summary);
        for (topic, _, heading, _) in TOPICS {
            if *topic != Topic::Later {
                self.flags(heading, |flag| flag.topic == *topic && flag.is_for(info.command));
            }
        }
        if info.command == Command::Chat {
            self.chat_commands();
        }
    }

    fn flags(&mut self, heading: &str, wanted: impl Fn(&Flag) -> bool) {
        let mut flags = all().filter(|flag| wanted(flag)).peekable();
        if flags.peek().is_none() {
            return;
        }
        self.heading(heading);
        for flag in flags {
            let doc = match flag.action {
                // The range matters where the words do not say it.
                Action::Number { from, to, .. } => format!("{} ({from} to {to})", flag.doc),
                _ => flag.doc.to_owned(),
            };
            self.entry(&flag.spelled(), &doc);
        }
    }

    fn chat_commands(&mut self) {
        self.heading("In a chat");
        for (name, doc) in CHAT_COMMANDS {
            self.entry(name, doc);
        }
    }

    fn more(&mut self) {
        self.heading("More");
        let topics: Vec<&str> = TOPICS.iter().map(|(_, name, ..)| *name).collect();
        self.line(&format!("  ds4 --help TOPIC: {}, commands, all", topics.join(", ")));
        self.line("  ds4 COMMAND --help: the flags of one command");
    }

    fn examples(&mut self) {
        self.heading("Examples");
        for example in EXAMPLES {
            self.line(&format!("  {example}"));
        }
    }

    /// A name and its explanation, side by side, or below each other where the name is long.
    fn entry(&mut self, name: &str, doc: &str) {
        const INDENT: usize = 28;
        const WIDTH: usize = 96;
        let padding = INDENT.saturating_sub(name.len() + 2);
        let mut line = format!("  {}", self.style.name(name));
        if padding < 2 {
            self.line(&line);
            line = " ".repeat(INDENT);
        } else {
            line.push_str(&" ".repeat(padding));
        }
        let mut column = INDENT;
        for word in doc.split(' ') {
            if column + 1 + word.len() > WIDTH {
                self.line(&line);
                line = " ".repeat(INDENT);
                column = INDENT;
            }
            if column > INDENT {
                line.push(' ');
                column += 1;
            }
            line.push_str(word);
            column += word.len();
        }
        self.line(&line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(what: Option<&str>) -> String {
        help(what, Style::PLAIN)
    }

    /// Whether a line of the page is about the flag.
    fn lists(page: &str, flag: &Flag) -> bool {
        let spelled = flag.spelled();
        page.lines().any(|line| {
            let rest = line.strip_prefix("  ").and_then(|line| line.strip_prefix(&spelled));
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with("  "))
        })
    }

    #[test]
    fn all_has_every_flag_and_every_command() {
        let page = plain(Some("all"));
        for flag in all() {
            assert!(lists(&page, flag), "{}", flag.spelled());
        }
        for info in COMMANDS {
            assert!(page.contains(&format!("\n  {} ", info.name)), "{}", info.name);
        }
        assert!(page.lines().all(|line| line.len() <= 100), "a line is too long");
        assert!(!page.contains('\x1b'));
    }

    #[test]
    fn every_topic_has_a_page_of_its_own() {
        for (topic, name, heading, _) in TOPICS {
            let page = plain(Some(name));
            assert!(page.starts_with(heading), "{name}");
            for flag in all() {
                assert_eq!(lists(&page, flag), flag.topic == *topic, "{name} {}", flag.long);
            }
        }
        assert!(plain(Some("commands")).contains("/think-max"));
    }

    #[test]
    fn a_command_has_its_own_flags_only() {
        for info in COMMANDS {
            let page = plain(Some(info.name));
            for flag in all().filter(|flag| flag.topic != Topic::Later) {
                let expected = flag.is_for(info.command);
                assert_eq!(lists(&page, flag), expected, "{} {}", info.name, flag.long);
            }
        }
    }

    #[test]
    fn an_unknown_topic_says_so_and_helps_anyway() {
        let page = plain(Some("cooking"));
        assert!(page.starts_with("There is no help about `cooking`."));
        assert!(page.contains("usage: ds4"));
    }

    #[test]
    fn colours_change_nothing_but_colours() {
        let coloured = help(None, Style::COLOUR);
        let mut bare = String::new();
        let mut rest = coloured.as_str();
        while let Some(start) = rest.find('\x1b') {
            bare.push_str(&rest[..start]);
            rest = &rest[start..];
            rest = &rest[rest.find('m').unwrap() + 1..];
        }
        bare.push_str(rest);
        assert_eq!(bare, plain(None));
    }
}
