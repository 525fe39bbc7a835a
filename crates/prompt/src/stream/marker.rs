//! The markers that the stream parser looks for, and the matching of text against them.

use crate::stream::Origin;

/// Something that ends a stage of the parser.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Marker {
    EndThink,
    /// The beginning of any opening tag.
    Dsml,
    Invoke,
    Quote,
    Parameter,
    /// The beginning of any closing tag.
    EndDsml,
    EndCalls,
    /// As V4.1 spells it.
    EndCallsOfNextVersion,
    QuoteAndSpace,
    QuoteAndBracket,
}

/// A part of a marker: ordinary text, or a whole control token.
#[derive(Debug, Clone, Copy)]
enum Part {
    Text(&'static str),
    Token(&'static str),
}

impl Marker {
    fn parts(self) -> &'static [Part] {
        use Part::{Text, Token};
        match self {
            Marker::EndThink => &[Token("</think>")],
            Marker::Dsml => &[Text("<"), Token("｜DSML｜")],
            Marker::Invoke => &[Text("invoke name=\"")],
            Marker::Quote => &[Text("\"")],
            Marker::Parameter => &[Text("parameter name=\"")],
            Marker::EndDsml => &[Text("</"), Token("｜DSML｜")],
            Marker::EndCalls => &[Text("</"), Token("｜DSML｜"), Text("tool_calls>")],
            Marker::EndCallsOfNextVersion => &[Text("</"), Token("｜DSML｜"), Text(" calls>")],
            Marker::QuoteAndSpace => &[Text("\" ")],
            Marker::QuoteAndBracket => &[Text("\">")],
        }
    }

    /// The characters, each with whether it belongs to a control token.
    fn characters(self) -> impl Iterator<Item = (char, bool)> {
        self.parts().iter().flat_map(|part| {
            let (spelling, is_token) = match part {
                Part::Text(spelling) => (spelling, false),
                Part::Token(spelling) => (spelling, true),
            };
            spelling.chars().map(move |character| (character, is_token))
        })
    }
}

fn matches((character, origin): (char, Origin), (expected, is_token): (char, bool)) -> bool {
    character == expected
        && match origin {
            Origin::Unknown => true,
            Origin::Ordinary => !is_token,
            Origin::Special => is_token,
        }
}

/// The markers of one stage. None is the beginning of another.
#[derive(Clone, Copy)]
pub(super) struct Markers(pub(super) &'static [Marker]);

impl Markers {
    /// Whether `held` and then `next` is a marker or the beginning of one.
    pub(super) fn may_follow(self, held: &[(char, Origin)], next: (char, Origin)) -> bool {
        self.0.iter().any(|marker| {
            let mut expected = marker.characters();
            let mut found = held.iter().copied().chain([next]);
            found.all(|found| expected.next().is_some_and(|expected| matches(found, expected)))
        })
    }

    /// The marker that `held` has become.
    pub(super) fn complete(self, held: &[(char, Origin)]) -> Option<Marker> {
        self.0.iter().copied().find(|marker| {
            let mut expected = marker.characters();
            let begins = held
                .iter()
                .all(|&found| expected.next().is_some_and(|expected| matches(found, expected)));
            begins && expected.next().is_none()
        })
    }
}
