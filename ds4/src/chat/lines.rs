//! Where the lines of a chat come from: an editor with a history on a terminal, plain reading elsewhere.

use std::{
    io::{self, BufRead, IsTerminal},
    path::PathBuf,
};

use rustyline::{Config, DefaultEditor, error::ReadlineError};

use crate::{
    plan::history_path,
    term::{Class, Term},
};

const HISTORY_ENTRIES: usize = 512;

/// What a person did.
pub enum Input {
    Line(String),
    /// Ctrl-C at the prompt: whatever was typed is dropped.
    Interrupted,
    /// Ctrl-D, the end of a file, or a terminal that is gone.
    End,
}

pub enum Lines {
    Editor { editor: Box<DefaultEditor>, history: PathBuf, term: Term },
    Plain { term: Term },
}

impl Lines {
    pub fn of_this_process(term: Term) -> Lines {
        if !io::stdin().is_terminal() || !term.out_is_terminal {
            return Lines::Plain { term };
        }
        let config =
            Config::builder().max_history_size(HISTORY_ENTRIES).map(|config| config.build());
        match config.and_then(DefaultEditor::with_config) {
            Ok(mut editor) => {
                let history = history_path();
                // The first chat has none yet.
                let _ = editor.load_history(&history);
                Lines::Editor { editor: Box::new(editor), history, term }
            }
            Err(error) => {
                term.say(Class::Warning, &format!("no line editor: {error}"));
                Lines::Plain { term }
            }
        }
    }

    pub fn next(&mut self, prompt: &str) -> Input {
        match self {
            Lines::Editor { editor, history, term } => match editor.readline(prompt) {
                Ok(line) => {
                    remember(editor, history, &line, *term);
                    Input::Line(line)
                }
                Err(ReadlineError::Interrupted) => Input::Interrupted,
                Err(ReadlineError::Eof) => Input::End,
                Err(error) => {
                    term.say(Class::Error, &format!("the terminal is gone: {error}"));
                    Input::End
                }
            },
            Lines::Plain { term } => {
                let mut line = Vec::new();
                match io::stdin().lock().read_until(b'\n', &mut line) {
                    Ok(0) => Input::End,
                    Ok(_) => match String::from_utf8(line) {
                        Ok(line) => Input::Line(line),
                        Err(_) => {
                            term.say(Class::Warning, "a line that is not UTF-8 text was left out");
                            Input::Interrupted
                        }
                    },
                    Err(error) => {
                        term.say(Class::Error, &format!("standard input: {error}"));
                        Input::End
                    }
                }
            }
        }
    }
}

/// Kept after each line, so that a lost connection loses nothing.
fn remember(editor: &mut DefaultEditor, history: &PathBuf, line: &str, term: Term) {
    if line.trim().is_empty() {
        return;
    }
    let saved = editor.add_history_entry(line).and_then(|_| editor.save_history(history));
    if let Err(error) = saved {
        term.say(Class::Warning, &format!("{}: {error}", history.display()));
    }
}
