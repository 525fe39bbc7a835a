//! Rendered text that remembers which parts of it are control tokens.
//!
//! A user may type `<think>`; a web page may contain `<｜User｜>`. Such text must reach the model as
//! ordinary pieces, never as the token it spells. So a prompt is text plus the byte ranges of the
//! markers that *we* put there, and the only way to put one there is [`Prompt::push_structure`],
//! which takes text of this program's own source. The tokenizer then turns exactly those ranges
//! into control tokens and everything between them into plain pieces.

use std::ops::Range;

/// Begin of sentence: the first token of every conversation.
pub const BOS: &str = "<｜begin▁of▁sentence｜>";
/// End of sentence: closes every assistant turn.
pub const EOS: &str = "<｜end▁of▁sentence｜>";
/// Opens a user turn.
pub const USER: &str = "<｜User｜>";
/// Opens an assistant turn.
pub const ASSISTANT: &str = "<｜Assistant｜>";
/// Opens a reminder, which has no closing marker.
pub const LATEST_REMINDER: &str = "<｜latest_reminder｜>";
/// Opens the reasoning of an assistant turn.
pub const THINK: &str = "<think>";
/// Closes the reasoning; alone, it opens a turn without reasoning.
pub const END_THINK: &str = "</think>";
/// The token inside every tool-call tag; the angle brackets around it are ordinary text.
pub const DSML: &str = "｜DSML｜";

/// Every marker that a rendered prompt can contain.
const MARKERS: [&str; 14] = [
    BOS,
    EOS,
    USER,
    ASSISTANT,
    LATEST_REMINDER,
    THINK,
    END_THINK,
    DSML,
    "<｜action｜>",
    "<｜query｜>",
    "<｜authority｜>",
    "<｜domain｜>",
    "<｜title｜>",
    "<｜read_url｜>",
];

/// Rendered text and the byte ranges in it that are control tokens.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Prompt {
    /// The whole text.
    pub text: String,
    /// The structural markers, in order, none touching another's bytes.
    pub specials: Vec<Range<usize>>,
}

impl Prompt {
    /// A prompt with nothing in it.
    pub fn new() -> Prompt {
        Prompt::default()
    }

    /// Appends text of any origin. Whatever it spells, it stays text.
    pub fn push_text(&mut self, text: &str) {
        self.text.push_str(text);
    }

    /// Appends text of this program, in which every marker is meant as one. The `'static` bound is
    /// the guard: text that came from a client, a file or a model cannot get here.
    pub fn push_structure(&mut self, own: &'static str) {
        let mut rest = own;
        while let Some((at, marker)) = first_marker(rest) {
            let start = self.text.len() + at;
            self.specials.push(start..start + marker.len());
            let (through, after) = rest.split_at(at + marker.len());
            self.text.push_str(through);
            rest = after;
        }
        self.text.push_str(rest);
    }

    /// Appends what the model sampled: `is_special` says whether the piece is one control token,
    /// which only the sampler's token id can tell. Its own special tokens are as structural as
    /// ours.
    pub fn push_sampled(&mut self, piece: &str, is_special: bool) {
        if is_special && !piece.is_empty() {
            self.specials.push(self.text.len()..self.text.len() + piece.len());
        }
        self.text.push_str(piece);
    }

    /// Appends another prompt with its markers.
    pub fn push_prompt(&mut self, other: &Prompt) {
        let offset = self.text.len();
        self.text.push_str(&other.text);
        self.specials
            .extend(other.specials.iter().map(|range| range.start + offset..range.end + offset));
    }
}

fn first_marker(text: &'static str) -> Option<(usize, &'static str)> {
    MARKERS
        .iter()
        .filter_map(|&marker| text.find(marker).map(|at| (at, marker)))
        .min_by_key(|&(at, _)| at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marked(prompt: &Prompt) -> Vec<&str> {
        prompt.specials.iter().map(|range| &prompt.text[range.clone()]).collect()
    }

    #[test]
    fn only_our_own_markers_are_special() {
        let mut prompt = Prompt::new();
        prompt.push_structure("<｜begin▁of▁sentence｜>");
        prompt.push_text("<think><｜User｜>");
        prompt.push_structure("\n\n<｜DSML｜invoke name=\"");
        prompt.push_text("｜DSML｜");
        prompt.push_structure("\"></think>");
        assert_eq!(marked(&prompt), [BOS, DSML, END_THINK]);
        assert_eq!(prompt.specials[1].start, BOS.len() + "<think><｜User｜>\n\n<".len());
    }

    #[test]
    fn ranges_move_along_when_prompts_are_joined() {
        let mut head = Prompt::new();
        head.push_structure("<｜Assistant｜><think>");
        let mut tail = Prompt::new();
        tail.push_text("hm");
        tail.push_structure("</think>");
        head.push_prompt(&tail);
        assert_eq!(marked(&head), [ASSISTANT, THINK, END_THINK]);
    }

    #[test]
    fn a_sampled_piece_is_what_the_sampler_says_it_is() {
        let mut sampled = Prompt::new();
        sampled.push_sampled("</think>", false);
        sampled.push_sampled("</think>", true);
        assert_eq!(marked(&sampled), [END_THINK]);
        assert_eq!(sampled.specials[0].start, END_THINK.len());
    }
}
