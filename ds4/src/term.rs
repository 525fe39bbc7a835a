//! The terminal: colours where there is one, and lines of progress that do not pile up.

use std::{
    env,
    io::{self, IsTerminal, Write},
};

/// Whether to colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    colour: bool,
}

impl Style {
    #[cfg(test)]
    pub const PLAIN: Style = Style { colour: false };
    #[cfg(test)]
    pub const COLOUR: Style = Style { colour: true };

    fn with(self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    pub fn bold(self, text: &str) -> String {
        self.with("1", text)
    }

    /// The name of something that can be typed.
    pub fn name(self, text: &str) -> String {
        self.with("38;5;81", text)
    }
}

/// What a line on standard error is about; it decides the colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    Plain,
    Timing,
    Warning,
    Error,
}

impl Class {
    fn code(self) -> Option<&'static str> {
        match self {
            Class::Plain => None,
            Class::Timing => Some("36"),
            Class::Warning => Some("38;5;208"),
            Class::Error => Some("31"),
        }
    }
}

/// The two streams of this process.
#[derive(Clone, Copy, Debug)]
pub struct Term {
    /// Standard output is a terminal.
    pub out_is_terminal: bool,
    /// Standard error is one.
    pub err_is_terminal: bool,
    pub colours_wanted: bool,
}

impl Term {
    pub fn of_this_process() -> Term {
        let set = |name: &str| env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = env::var_os("TERM").is_some_and(|term| term == "dumb");
        Term {
            out_is_terminal: io::stdout().is_terminal(),
            err_is_terminal: io::stderr().is_terminal(),
            colours_wanted: !set("NO_COLOR") && !dumb,
        }
    }

    /// The style of text on standard output.
    pub fn out_style(self) -> Style {
        Style { colour: self.out_is_terminal && self.colours_wanted }
    }

    /// Whether thoughts can be told from answers by their colour.
    pub fn out_has_colours(self) -> bool {
        self.out_style().colour
    }

    /// Says one line on standard error. Nobody can be told that it cannot be written.
    pub fn say(self, class: Class, line: &str) {
        let _ = writeln!(io::stderr().lock(), "{}", self.coloured(class, line));
    }

    fn coloured(self, class: Class, line: &str) -> String {
        let style = Style { colour: self.err_is_terminal && self.colours_wanted };
        match class.code() {
            Some(code) => style.with(code, &format!("ds4: {line}")),
            None => format!("ds4: {line}"),
        }
    }

    /// A line of progress about to begin.
    pub fn progress(self) -> ProgressLine {
        ProgressLine { term: self, open: false }
    }
}

/// Progress: on a terminal one line that is written over, elsewhere a line for each step.
pub struct ProgressLine {
    term: Term,
    open: bool,
}

impl ProgressLine {
    pub fn show(&mut self, line: &str) {
        if self.term.err_is_terminal {
            self.flash(line);
        } else {
            self.term.say(Class::Plain, line);
        }
    }

    /// Shows what is too short-lived to be kept in a log: on a terminal only.
    pub fn flash(&mut self, line: &str) {
        if !self.term.err_is_terminal {
            return;
        }
        self.open = true;
        let mut err = io::stderr().lock();
        let _ = write!(err, "\r{}\x1b[K", self.term.coloured(Class::Timing, line));
        let _ = err.flush();
    }

    /// Wipes the line away: what it counted is done.
    pub fn clear(&mut self) {
        if self.open {
            self.open = false;
            let mut err = io::stderr().lock();
            let _ = write!(err, "\r\x1b[K");
            let _ = err.flush();
        }
    }
}

impl Drop for ProgressLine {
    fn drop(&mut self) {
        self.clear();
    }
}

/// Bytes for people.
pub fn human_bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    match unit {
        0 => format!("{bytes} B"),
        unit => format!("{value:.2} {}", UNITS[unit]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_read_well() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.00 KiB"),
            (87_000_000_000, "81.03 GiB"),
            (u64::MAX, "16384.00 PiB"),
        ] {
            assert_eq!(human_bytes(bytes), text);
        }
    }

    #[test]
    fn without_a_terminal_there_are_no_colours() {
        let term = Term { out_is_terminal: false, err_is_terminal: false, colours_wanted: true };
        assert_eq!(term.coloured(Class::Error, "x"), "ds4: x");
        let term = Term { err_is_terminal: true, ..term };
        assert_eq!(term.coloured(Class::Error, "x"), "\x1b[31mds4: x\x1b[0m");
        let term = Term { colours_wanted: false, ..term };
        assert_eq!(term.coloured(Class::Error, "x"), "ds4: x");
    }
}
