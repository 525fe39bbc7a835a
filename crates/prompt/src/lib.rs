//! The DeepSeek V4 conversation encoding: messages to prompt text, completions to messages.
//!
//! What goes in and comes out is text and structure; token ids are the tokenizer's business, HTTP
//! is the server's. The one thing a [`Prompt`] says about tokens is *where* it means a control
//! token, so that text which merely spells one stays text.
//!
//! - [`encode`], [`encode_after`]: the reference encoder, message by message.
//! - [`next_turn`], [`Sampled`]: a live conversation that only ever grows at its end.
//! - [`Conversation::render`]: request-level tools and formats, laid out as the chosen [`Profile`]
//!   does.
//! - [`StreamParser`]: events while a completion is sampled; [`parse_completion`]: the strict
//!   reading.
//! - [`pyjson`]: the JSON dialects that all of this is written in.

mod completion;
mod conversation;
mod dsml;
mod encode;
mod error;
mod fields;
mod message;
mod profile;
mod prompt;
pub mod pyjson;
mod request;
pub mod stream;
mod strict_schema;
mod turn;
pub mod vectors;
mod wire;

pub use completion::parse_completion;
pub use conversation::{AnswerFormat, Conversation, ToolChoice};
pub use dsml::OddArguments;
pub use encode::{Options, encode, encode_after};
pub use error::{EncodeError, ParseError, RequestError};
pub use message::{Arguments, Message, Part, Role, Sampled, Task, ToolCall, join_parts};
pub use profile::{Effort, Mode, Profile, Thinking, UnknownEffort};
pub use prompt::{ASSISTANT, BOS, DSML, END_THINK, EOS, LATEST_REMINDER, Prompt, THINK, USER};
pub use request::conversation_from_request;
pub use stream::{Completion, Event, Finish, Origin, ParsedCall, Start, StreamParser, Tools};
pub use turn::next_turn;
pub use wire::messages_from_json;
