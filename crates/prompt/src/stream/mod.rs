//! The lenient reading of a completion while it is sampled: it never fails and never takes back.
//!
//! Text goes in as it comes, events come out as soon as they are certain. Held back is only what
//! may still become a marker (`</thin`), and newlines that are dropped if a marker follows. However
//! the text is cut into pieces, the events add up to the same [`Completion`].
//!
//! Rules beyond the well-formed case, which are those of DeepSeek's own API:
//! - newlines that lead the reasoning or the content, or come before `</think>` or the tool calls,
//!   are dropped;
//! - a further `</think>` in the content is dropped; without any, all is reasoning;
//! - if the request has tools, any DSML tag opens the tool calls, also inside the reasoning; else
//!   it is text;
//! - whatever follows the tool calls is dropped;
//! - repeated parameters are all passed on, values that should be JSON are not looked at, and a call
//!   that breaks off stays incomplete: it gets no [`Event::CallEnd`].
//!
//! Where a tag itself is damaged this reader makes the best of it, while the API's loses track: a
//! parameter's name is escaped, and may contain spaces; one that says neither `true` nor `false`, or
//! nothing at all, of its value has a string; newlines before a tag are dropped even behind a `<`.

mod marker;

use crate::{
    profile::Mode,
    pyjson::push_escaped,
    stream::marker::{Marker, Markers},
};

/// Where a piece of text came from, which decides whether it can be (part of) a control token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Nobody knows: markers are recognised by their spelling.
    Unknown,
    /// Ordinary tokens. `</think>` spelled with them is text.
    Ordinary,
    /// One control token.
    Special,
}

/// Where in a turn the completion begins, which the prompt has decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// In new reasoning, behind `<think>`.
    Reasoning,
    /// In new content, behind `</think>`.
    Content,
    /// In the middle of reasoning that the prompt began: leading newlines count.
    ReasoningContinued,
    /// In the middle of content that the prompt began: leading newlines count.
    ContentContinued,
    /// Inside the tool calls, which the prompt has opened.
    ToolCalls,
}

impl From<Mode> for Start {
    fn from(mode: Mode) -> Start {
        match mode {
            Mode::Thinking => Start::Reasoning,
            Mode::Chat => Start::Content,
        }
    }
}

/// Whether tool calls are looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tools {
    /// The request has tools.
    Offered,
    /// It has none, and markup of calls is text.
    None,
}

/// Something that the model said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// More reasoning.
    Reasoning(String),
    /// More of the answer.
    Content(String),
    /// A tool call begins. Calls count from 0.
    CallBegin {
        /// Which call.
        index: usize,
        /// The tool.
        name: String,
    },
    /// More of the JSON text of a call's arguments.
    Arguments {
        /// Which call.
        index: usize,
        /// The text.
        json: String,
    },
    /// A tool call is complete.
    CallEnd {
        /// Which call.
        index: usize,
    },
    /// The completion is over.
    Finish(Finish),
}

/// How a completion ended, as far as its text tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Finish {
    /// With an answer, or cut off.
    #[default]
    Stop,
    /// With at least one tool call.
    ToolCalls,
}

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Reasoning,
    Content,
    /// Between calls.
    Calls,
    /// Inside the quotes of an invoke tag.
    Name,
    /// Inside an invoke, between parameters.
    Parameters {
        is_first: bool,
    },
    /// Inside the quotes of a parameter's name.
    Key,
    /// Inside an invoke tag's parameter, behind the name: the attribute that says what the value is.
    Attribute,
    Value {
        is_string: bool,
    },
    Done,
}

/// The parser. Make one for each completion.
#[derive(Debug)]
pub struct StreamParser {
    tools: Tools,
    stage: Stage,
    /// Nothing but newlines so far in this stage, and those are dropped.
    at_start: bool,
    /// Newlines that are text, unless a marker follows.
    newlines: usize,
    /// What may still become a marker; always the beginning of one. Comes after the newlines.
    held: Vec<(char, Origin)>,
    name: String,
    attribute: String,
    calls: usize,
    events: Vec<Event>,
}

impl StreamParser {
    /// A parser for a completion that begins at `start`.
    pub fn new(start: Start, tools: Tools) -> StreamParser {
        let stage = match start {
            Start::Reasoning | Start::ReasoningContinued => Stage::Reasoning,
            Start::Content | Start::ContentContinued => Stage::Content,
            Start::ToolCalls => Stage::Calls,
        };
        StreamParser {
            tools,
            stage,
            at_start: matches!(start, Start::Reasoning | Start::Content),
            newlines: 0,
            held: Vec::new(),
            name: String::new(),
            attribute: String::new(),
            calls: 0,
            events: Vec::new(),
        }
    }

    /// Takes the next piece of text and says what is certain by now.
    pub fn feed(&mut self, piece: &str, origin: Origin) -> Vec<Event> {
        for character in piece.chars() {
            self.step(character, origin);
        }
        std::mem::take(&mut self.events)
    }

    /// Ends the completion: what was held back is text after all. The last event is
    /// [`Event::Finish`].
    pub fn finish(mut self) -> Vec<Event> {
        while !self.held.is_empty() {
            self.release_first();
        }
        self.release_newlines();
        let finish = if self.calls > 0 { Finish::ToolCalls } else { Finish::Stop };
        self.events.push(Event::Finish(finish));
        self.events
    }

    fn step(&mut self, character: char, origin: Origin) {
        if self.stage == Stage::Done {
            return;
        }
        // Let go of the front until the rest, with this character, may still become a marker. What
        // is held is shorter than the longest marker, so this takes a bounded time for each
        // character.
        while !self.held.is_empty() && !self.may_become_marker((character, origin)) {
            self.release_first();
        }
        if self.held.is_empty() && character == '\n' && self.holds_newlines() {
            self.newlines += usize::from(!self.at_start);
            return;
        }
        self.at_start = false;
        if !self.held.is_empty() || self.may_become_marker((character, origin)) {
            self.held.push((character, origin));
            if let Some(marker) = self.markers().complete(&self.held) {
                self.held.clear();
                self.take(marker);
            }
        } else {
            self.release_newlines();
            self.text(character);
        }
    }

    fn markers(&self) -> Markers {
        match self.stage {
            Stage::Reasoning | Stage::Content => match self.tools {
                Tools::Offered => Markers(&[Marker::EndThink, Marker::Dsml]),
                Tools::None => Markers(&[Marker::EndThink]),
            },
            Stage::Calls => {
                Markers(&[Marker::Invoke, Marker::EndCalls, Marker::EndCallsOfNextVersion])
            }
            Stage::Name => Markers(&[Marker::Quote]),
            Stage::Parameters { .. } => Markers(&[Marker::Parameter, Marker::EndDsml]),
            Stage::Key => Markers(&[Marker::QuoteAndSpace, Marker::QuoteAndBracket]),
            Stage::Attribute => Markers(&[Marker::QuoteAndBracket]),
            Stage::Value { .. } => Markers(&[Marker::EndDsml]),
            Stage::Done => Markers(&[]),
        }
    }

    fn may_become_marker(&self, next: (char, Origin)) -> bool {
        self.markers().may_follow(&self.held, next)
    }

    /// Whether newlines wait for what follows them.
    fn holds_newlines(&self) -> bool {
        match self.stage {
            Stage::Reasoning => true,
            Stage::Content => self.at_start || self.tools == Tools::Offered,
            _ => false,
        }
    }

    fn release_newlines(&mut self) {
        for _ in 0..std::mem::take(&mut self.newlines) {
            self.text('\n');
        }
    }

    fn release_first(&mut self) {
        self.release_newlines();
        let (character, _) = self.held.remove(0);
        self.text(character);
    }

    /// A character that is part of no marker.
    fn text(&mut self, character: char) {
        match self.stage {
            Stage::Reasoning => match self.events.last_mut() {
                Some(Event::Reasoning(text)) => text.push(character),
                _ => self.events.push(Event::Reasoning(character.into())),
            },
            Stage::Content => match self.events.last_mut() {
                Some(Event::Content(text)) => text.push(character),
                _ => self.events.push(Event::Content(character.into())),
            },
            Stage::Name => self.name.push(character),
            Stage::Attribute => self.attribute.push(character),
            Stage::Key | Stage::Value { is_string: true } => {
                let mut escaped = String::new();
                push_escaped(character.encode_utf8(&mut [0; 4]), &mut escaped);
                self.push_arguments(&escaped);
            }
            Stage::Value { is_string: false } => {
                self.push_arguments(character.encode_utf8(&mut [0; 4]));
            }
            Stage::Calls | Stage::Parameters { .. } | Stage::Done => {}
        }
    }

    fn push_arguments(&mut self, text: &str) {
        match self.events.last_mut() {
            Some(Event::Arguments { json, .. }) => json.push_str(text),
            _ => {
                let index = self.calls.saturating_sub(1);
                self.events.push(Event::Arguments { index, json: text.to_owned() });
            }
        }
    }

    fn take(&mut self, marker: Marker) {
        match (self.stage, marker) {
            (Stage::Reasoning, Marker::EndThink) => {
                self.newlines = 0;
                self.stage = Stage::Content;
                self.at_start = true;
            }
            (Stage::Content, Marker::EndThink) => self.release_newlines(),
            (Stage::Reasoning | Stage::Content, _) => {
                self.newlines = 0;
                self.stage = Stage::Calls;
            }
            (Stage::Calls, Marker::Invoke) => self.stage = Stage::Name,
            (Stage::Calls, _) => self.stage = Stage::Done,
            (Stage::Name, _) => {
                let name = std::mem::take(&mut self.name);
                self.events.push(Event::CallBegin { index: self.calls, name });
                self.calls += 1;
                self.stage = Stage::Parameters { is_first: true };
            }
            (Stage::Parameters { is_first }, Marker::Parameter) => {
                self.push_arguments(if is_first { "{\"" } else { ", \"" });
                self.stage = Stage::Key;
            }
            (Stage::Parameters { is_first }, _) => {
                self.push_arguments(if is_first { "{}" } else { "}" });
                self.events.push(Event::CallEnd { index: self.calls.saturating_sub(1) });
                self.stage = Stage::Calls;
            }
            (Stage::Key, _) => {
                self.push_arguments("\": ");
                match marker {
                    Marker::QuoteAndSpace => self.stage = Stage::Attribute,
                    // A parameter that does not say what it is is a string.
                    _ => self.open_value(true),
                }
            }
            (Stage::Attribute, _) => {
                let attribute = std::mem::take(&mut self.attribute);
                self.open_value(!attribute.ends_with("false"));
            }
            (Stage::Value { is_string }, _) => {
                if is_string {
                    self.push_arguments("\"");
                }
                self.stage = Stage::Parameters { is_first: false };
            }
            (Stage::Done, _) => {}
        }
    }

    fn open_value(&mut self, is_string: bool) {
        if is_string {
            self.push_arguments("\"");
        }
        self.stage = Stage::Value { is_string };
    }
}

/// A whole completion, put together from its events.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Completion {
    /// The reasoning.
    pub reasoning: String,
    /// The answer.
    pub content: String,
    /// The tool calls.
    pub tool_calls: Vec<ParsedCall>,
    /// How it ended.
    pub finish: Finish,
}

/// A tool call as the model wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParsedCall {
    /// The tool.
    pub name: String,
    /// The text of the arguments; JSON if the model wrote any, and only as far as it came.
    pub arguments: String,
    /// Whether the call was closed. One that was not must not be executed.
    pub is_complete: bool,
}

impl Completion {
    /// Reads a whole completion, without the closing end of sentence.
    pub fn read(text: &str, start: Start, tools: Tools) -> Completion {
        let mut parser = StreamParser::new(start, tools);
        let mut completion = Completion::default();
        completion.extend(parser.feed(text, Origin::Unknown));
        completion.extend(parser.finish());
        completion
    }
}

impl Extend<Event> for Completion {
    fn extend<I: IntoIterator<Item = Event>>(&mut self, events: I) {
        for event in events {
            match event {
                Event::Reasoning(text) => self.reasoning.push_str(&text),
                Event::Content(text) => self.content.push_str(&text),
                Event::CallBegin { name, .. } => {
                    let call = ParsedCall { name, arguments: String::new(), is_complete: false };
                    self.tool_calls.push(call);
                }
                Event::Arguments { index, json } => {
                    if let Some(call) = self.tool_calls.get_mut(index) {
                        call.arguments.push_str(&json);
                    }
                }
                Event::CallEnd { index } => {
                    if let Some(call) = self.tool_calls.get_mut(index) {
                        call.is_complete = true;
                    }
                }
                Event::Finish(finish) => self.finish = finish,
            }
        }
    }
}

#[cfg(test)]
mod tests;
