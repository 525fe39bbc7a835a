//! Printing an answer as it comes: whole characters only, thoughts dim, tags never.

use std::io::{self, Write};

use ds4_tokenizer::{Decoder, Tokenizer};

use crate::term::Term;

const DIM: &str = "\x1b[90m";
const RESET: &str = "\x1b[0m";

/// Prints the tokens of one answer.
pub struct Speaker<'a> {
    tokenizer: &'a Tokenizer,
    out: &'a mut dyn Write,
    decoder: Decoder,
    /// The ids of `<think>` and `</think>`.
    think: (Option<u32>, Option<u32>),
    thinking: bool,
    dim: bool,
    /// What a model says must not steer a terminal.
    for_terminal: bool,
    at_line_start: bool,
}

impl<'a> Speaker<'a> {
    /// A speaker for an answer whose opener left the model thinking, or not.
    pub fn new(
        tokenizer: &'a Tokenizer,
        out: &'a mut dyn Write,
        term: Term,
        thinking: bool,
    ) -> Speaker<'a> {
        Speaker {
            tokenizer,
            out,
            decoder: Decoder::skipping_special(),
            think: (tokenizer.marker(ds4_prompt::THINK), tokenizer.marker(ds4_prompt::END_THINK)),
            thinking,
            dim: term.out_has_colours(),
            for_terminal: term.out_is_terminal,
            at_line_start: true,
        }
    }

    /// Prints what a token adds.
    pub fn token(&mut self, id: u32) -> io::Result<()> {
        let (open, close) = self.think;
        if Some(id) == close || Some(id) == open {
            self.end_text()?;
            self.thinking = Some(id) == open;
            return self.out.flush();
        }
        let mut text = String::new();
        self.decoder.push(self.tokenizer, id, &mut text);
        self.text(&text)?;
        self.out.flush()
    }

    /// Ends the answer, and its last line.
    pub fn finish(mut self) -> io::Result<()> {
        self.end_text()?;
        self.out.flush()
    }

    /// Thoughts end with their line, so that the answer begins on its own.
    fn end_text(&mut self) -> io::Result<()> {
        let mut text = String::new();
        std::mem::replace(&mut self.decoder, Decoder::skipping_special()).finish(&mut text);
        self.text(&text)?;
        if !self.at_line_start {
            self.at_line_start = true;
            self.out.write_all(b"\n")?;
        }
        Ok(())
    }

    fn text(&mut self, text: &str) -> io::Result<()> {
        let safe = |c: &char| !self.for_terminal || !c.is_control() || matches!(c, '\n' | '\t');
        let text: String = text.chars().filter(safe).collect();
        if text.is_empty() {
            return Ok(());
        }
        self.at_line_start = text.ends_with('\n');
        // The colour ends with each piece: whatever stops the answer, the terminal is left as it was.
        if self.thinking && self.dim {
            write!(self.out, "{DIM}{text}{RESET}")
        } else {
            self.out.write_all(text.as_bytes())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::builtin;

    const PLAIN: Term =
        Term { out_is_terminal: false, err_is_terminal: false, colours_wanted: true };
    const COLOUR: Term = Term { out_is_terminal: true, ..PLAIN };

    fn spoken(term: Term, thinking: bool, text: &str) -> String {
        let tokenizer = Tokenizer::from_gguf(&builtin::open().unwrap()).unwrap();
        let mut out = Vec::new();
        let mut speaker = Speaker::new(&tokenizer, &mut out, term, thinking);
        for id in tokenizer.encode_with_markers(text) {
            speaker.token(id).unwrap();
        }
        speaker.finish().unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn tags_are_never_printed_and_thoughts_end_their_line() {
        assert_eq!(spoken(PLAIN, true, "hm</think>so"), "hm\nso\n");
        assert_eq!(spoken(PLAIN, true, "hm\n</think>so\n"), "hm\nso\n");
        assert_eq!(spoken(PLAIN, false, "a<think>b</think>c"), "a\nb\nc\n");
        assert_eq!(spoken(PLAIN, false, ""), "");
    }

    #[test]
    fn thoughts_are_dim_where_there_are_colours() {
        let text = spoken(COLOUR, true, "x</think>y");
        assert_eq!(text, format!("{DIM}x{RESET}\ny\n"));
    }

    #[test]
    fn a_model_cannot_steer_a_terminal() {
        assert_eq!(spoken(COLOUR, false, "a\x1b[2Jb\tc\u{9b}d"), "a[2Jb\tcd\n");
        assert_eq!(spoken(PLAIN, false, "a\x1b[2Jb"), "a\x1b[2Jb\n");
    }

    #[test]
    fn characters_come_whole() {
        let tokenizer = Tokenizer::from_gguf(&builtin::open().unwrap()).unwrap();
        let ids = tokenizer.encode("€");
        let mut out = Vec::new();
        let mut speaker = Speaker::new(&tokenizer, &mut out, PLAIN, false);
        for &id in &ids[..ids.len() - 1] {
            speaker.token(id).unwrap();
        }
        if ids.len() > 1 {
            assert!(speaker.at_line_start, "half a character was printed");
        }
        speaker.finish().unwrap();
    }
}
