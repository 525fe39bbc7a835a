//! `--name value` pairs: all that these tools need of a command line.

use std::{collections::BTreeMap, path::PathBuf};

/// The arguments of one command.
pub struct Arguments {
    values: BTreeMap<String, String>,
}

impl Arguments {
    /// Parses `--name value` pairs and lone `--switches`, refusing names that are not known.
    pub fn parse(
        arguments: &[String],
        known: &[&str],
        switches: &[&str],
    ) -> Result<Arguments, String> {
        let mut values = BTreeMap::new();
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            let name = argument.strip_prefix("--").ok_or(format!("what is `{argument}`?"))?;
            let value = if switches.contains(&name) {
                String::new()
            } else if known.contains(&name) {
                rest.next().ok_or(format!("--{name} needs a value"))?.clone()
            } else {
                return Err(format!("no option --{name}"));
            };
            if values.insert(name.to_owned(), value).is_some() {
                return Err(format!("--{name} is given twice"));
            }
        }
        Ok(Arguments { values })
    }

    /// The value of an option, if given.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// Whether a switch or option is given.
    pub fn has(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    /// The value of an option as a path; an error if it is not given.
    pub fn path(&self, name: &str) -> Result<PathBuf, String> {
        self.get(name).map(PathBuf::from).ok_or(format!("--{name} is needed"))
    }

    /// One of the words allowed for an option, the first being the default.
    pub fn word<'a>(&'a self, name: &str, allowed: &[&'a str]) -> Result<&'a str, String> {
        let word = self.get(name).unwrap_or(allowed[0]);
        if allowed.contains(&word) {
            Ok(word)
        } else {
            Err(format!("--{name} is one of {}", allowed.join(", ")))
        }
    }
}
