//! From tokens back to text, one token at a time.

use crate::Tokenizer;

/// Turns tokens into text as they come. A token may end inside a character: what is whole is given
/// out at once, the rest waits for the next token.
///
/// Bytes that are no UTF-8 become U+FFFD, exactly as when the whole is decoded at once.
#[derive(Clone, Debug, Default)]
pub struct Decoder {
    /// The beginning of a character.
    held: Vec<u8>,
    skip_special: bool,
}

impl Decoder {
    /// A decoder that gives out every token, markers too.
    pub fn new() -> Decoder {
        Decoder::default()
    }

    /// A decoder that leaves out special tokens ([`Tokenizer::is_special`]).
    pub fn skipping_special() -> Decoder {
        Decoder { skip_special: true, ..Decoder::default() }
    }

    /// Appends to `text` what `id` completes. An id that no token has adds nothing.
    pub fn push(&mut self, tokenizer: &Tokenizer, id: u32, text: &mut String) {
        if self.skip_special && tokenizer.is_special(id) {
            return;
        }
        self.held.extend_from_slice(tokenizer.token_bytes(id).unwrap_or_default());
        let mut given = 0;
        for chunk in self.held.utf8_chunks() {
            text.push_str(chunk.valid());
            given += chunk.valid().len();
            let last = given + chunk.invalid().len() == self.held.len();
            if last && may_be_continued(chunk.invalid()) {
                break;
            }
            if !chunk.invalid().is_empty() {
                text.push(char::REPLACEMENT_CHARACTER);
                given += chunk.invalid().len();
            }
        }
        self.held.drain(..given);
    }

    /// Ends the text: a character that was never completed becomes U+FFFD.
    pub fn finish(&mut self, text: &mut String) {
        if !self.held.is_empty() {
            self.held.clear();
            text.push(char::REPLACEMENT_CHARACTER);
        }
    }
}

/// Whether more bytes could still make a character of these.
fn may_be_continued(bytes: &[u8]) -> bool {
    str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}
