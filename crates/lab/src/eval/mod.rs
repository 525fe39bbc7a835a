//! How good a model is: test sets played and graded without a person.
//!
//! A [`Suite`] is groups of [`Item`]s: a conversation to begin with, and for each turn of the model what
//! it must say and what its tools then answer. A [`Player`] plays them greedily, so that the same model
//! gets the same score, and [`Score`] adds up. What is right is decided by [`Expect`], from a strict
//! reading of the turn: an answer that does not stop, or whose calls are not well formed, is wrong.

mod expect;
mod items;
mod play;
mod score;

pub use expect::{Call, Expect};
pub use items::{Group, Item, Suite, Turn};
pub use play::{Outcome, Player};
pub use score::Score;
