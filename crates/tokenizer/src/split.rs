//! The official split of text into pieces, each of which is then encoded on its own.
//!
//! The model's tokenizer states it as three regular expressions, each splitting what the one before
//! left, where a match and the gap between two matches are pieces alike:
//!
//! 1. numbers, three at a time;
//! 2. runs of Chinese and Japanese characters;
//! 3. words, signs and white space (see [`match_length`]).
//!
//! Written out by hand it needs no regex engine, no backtracking, and looks at no character more
//! than a few times, whatever the text.

use crate::class::Class;

/// The patterns that this module implements, as a `tokenizer.json` spells them.
pub(crate) const PATTERNS: [&str; 3] = [
    r"\p{N}{1,3}",
    "[\u{4E00}-\u{9FA5}\u{3040}-\u{309F}\u{30A0}-\u{30FF}]+",
    concat!(
        r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+"##,
        "|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+",
        "| ?[\\p{P}\\p{S}]+[\r\n]*",
        "|\\s*[\r\n]+",
        r"|\s+(?!\S)|\s+",
    ),
];

/// Splits `text` into pieces. Joined again they are the text.
pub fn pieces(text: &str) -> Pieces<'_> {
    Pieces { segment: "", rest: text }
}

/// The pieces of a text, from [`pieces`].
#[derive(Clone, Debug)]
pub struct Pieces<'t> {
    /// What is left of the current match, or gap, of the first two patterns.
    segment: &'t str,
    rest: &'t str,
}

impl<'t> Iterator for Pieces<'t> {
    type Item = &'t str;

    fn next(&mut self) -> Option<&'t str> {
        if self.segment.is_empty() {
            (self.segment, self.rest) = self.rest.split_at_checked(segment_length(self.rest))?;
        }
        if self.segment.is_empty() {
            return None;
        }
        let piece;
        (piece, self.segment) = self.segment.split_at_checked(piece_length(self.segment))?;
        Some(piece)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Script {
    Number,
    ChineseOrJapanese,
    Other,
}

impl Script {
    fn of(character: char) -> Script {
        match character {
            '\u{4E00}'..='\u{9FA5}' | '\u{3040}'..='\u{30FF}' => Script::ChineseOrJapanese,
            _ if Class::of(character) == Class::Number => Script::Number,
            _ => Script::Other,
        }
    }
}

/// Bytes up to the first boundary that patterns 1 and 2 make.
fn segment_length(text: &str) -> usize {
    let Some(script) = text.chars().next().map(Script::of) else { return 0 };
    let limit = if script == Script::Number { 3 } else { usize::MAX };
    for (count, (at, character)) in text.char_indices().enumerate() {
        if count == limit || Script::of(character) != script {
            return at;
        }
    }
    text.len()
}

/// Bytes of the first piece that pattern 3 makes of a segment: a match, or a gap up to a match.
fn piece_length(segment: &str) -> usize {
    let gap = segment.char_indices().find_map(|(at, _)| {
        let length = segment.get(at..).map_or(0, match_length);
        (length > 0).then_some((at, length))
    });
    match gap {
        Some((0, length)) => length,
        Some((at, _)) => at,
        None => segment.len(),
    }
}

/// Bytes that pattern 3 matches at the start of `text`, 0 when it matches nothing there. The end of
/// `text` is the end of a segment: white space before a digit is white space at the end.
fn match_length(text: &str) -> usize {
    let mut characters = text.chars();
    let Some(first) = characters.next() else { return 0 };
    let rest = characters.as_str();

    // `.append`, `'t`, `<html`: one ASCII sign takes the ASCII letters that follow it.
    if first.is_ascii_punctuation() {
        let letters = run(rest, |c| c.is_ascii_alphabetic());
        if letters > 0 {
            return 1 + letters;
        }
    }
    match Class::of(first) {
        Class::Letter | Class::Mark => run(text, |c| Class::of(c).is_word()),
        Class::Punctuation | Class::Symbol => signs(text),
        class => {
            // A word takes the one character before it: a space, mostly.
            let word = run(rest, |c| Class::of(c).is_word());
            if word > 0 && !is_line_end(first) {
                return first.len_utf8() + word;
            }
            let signs = if first == ' ' { signs(rest) } else { 0 };
            match class {
                _ if signs > 0 => 1 + signs,
                Class::Space => white_space(text),
                _ => 0,
            }
        }
    }
}

/// Signs and the line ends after them.
fn signs(text: &str) -> usize {
    let signs = run(text, |c| Class::of(c).is_sign());
    match text.get(signs..) {
        Some(after) if signs > 0 => signs + run(after, is_line_end),
        _ => 0,
    }
}

/// White space up to its last line end; without one, all of it but the last character, which is left
/// for the word that follows; all of it where nothing follows.
fn white_space(text: &str) -> usize {
    let length = run(text, |c| Class::of(c) == Class::Space);
    let blank = text.get(..length).unwrap_or_default();
    if let Some(last) = blank.rfind(is_line_end) {
        return last + 1;
    }
    match blank.char_indices().next_back() {
        Some((last, _)) if last > 0 && length < text.len() => last,
        _ => length,
    }
}

fn is_line_end(character: char) -> bool {
    matches!(character, '\r' | '\n')
}

/// Bytes of the characters at the start of `text` that are all `wanted`.
fn run(text: &str, wanted: impl Fn(char) -> bool) -> usize {
    text.find(|c| !wanted(c)).unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &[&str]) {
        assert_eq!(pieces(text).collect::<Vec<_>>(), expected, "{text:?}");
    }

    #[test]
    fn words_take_one_character_before_them() {
        check("Hello world", &["Hello", " world"]);
        check("a\tb", &["a", "\tb"]);
        check("\u{A0}b", &["\u{A0}b"]);
        check("\u{1}b", &["\u{1}b"]);
        check("\nb", &["\n", "b"]);
        check("\u{301}\u{301}", &["\u{301}\u{301}"]);
    }

    #[test]
    fn one_ascii_sign_takes_the_ascii_letters_after_it() {
        check("don't", &["don", "'t"]);
        check(".aé", &[".a", "é"]);
        check("..abc", &["..", "abc"]);
        check(".é", &[".", "é"]);
        check("—it", &["—", "it"]);
    }

    #[test]
    fn signs_take_a_space_before_and_line_ends_after() {
        check("x !?\r\n\ny", &["x", " !?\r\n\n", "y"]);
        check("\t!", &["\t", "!"]);
    }

    #[test]
    fn numbers_in_threes_from_the_left() {
        check("1234567", &["123", "456", "7"]);
        check("１２３４", &["１２３", "４"]);
        check("x²", &["x", "²"]);
    }

    #[test]
    fn white_space_leaves_its_last_character_to_what_follows() {
        check("a   b", &["a", "  ", " b"]);
        check("a   ", &["a", "   "]);
        check("a \n  b", &["a", " \n", " ", " b"]);
        check("  \n \n", &["  \n \n"]);
        check("\u{2003}\u{2003}!", &["\u{2003}", "\u{2003}", "!"]);
    }

    #[test]
    fn a_digit_or_a_chinese_character_ends_the_text_before_it() {
        check("a   12", &["a", "   ", "12"]);
        check("x 中文", &["x", " ", "中文"]);
        check("abc中文abc", &["abc", "中文", "abc"]);
    }

    #[test]
    fn signs_inside_a_japanese_run_still_split_it() {
        check("カ・キ", &["カ", "・", "キ"]);
    }

    #[test]
    fn what_nothing_matches_is_one_gap() {
        check("\u{1}\u{2}\u{3}", &["\u{1}\u{2}\u{3}"]);
        check("\u{1}\u{2} \u{3}a", &["\u{1}\u{2}", " ", "\u{3}a"]);
        check("", &[]);
    }
}
