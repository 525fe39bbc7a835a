//! Text to tokens and back, exactly as DeepSeek V4 was trained: byte-level byte-pair encoding with
//! the official split.
//!
//! Text is split into pieces ([`pieces`]), and each piece is merged from bytes into tokens. Markers,
//! the tokens that structure a conversation, are apart from all that: text never becomes one. This
//! crate must not know what a conversation looks like; it is told which bytes are markers.

mod alphabet;
mod class;
mod class_table;
mod decoder;
mod error;
mod from_gguf;
mod from_hf;
mod markers;
mod merges;
mod split;
mod tokenizer;
mod vocabulary;

pub use decoder::Decoder;
pub use error::Error;
pub use split::{Pieces, pieces};
pub use tokenizer::Tokenizer;
