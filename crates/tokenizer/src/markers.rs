//! Markers: the tokens of the protocol, which no run of text is ever merged into.

/// The markers that the vocabulary's authors did not declare special, though they are part of the
/// protocol: skipping special tokens keeps them, because a parser reads them. A GGUF file cannot say
/// so (its one flag, "control", covers most of these too), therefore they are listed here.
pub(crate) const NOT_SPECIAL: [&str; 53] = [
    "<think>",
    "</think>",
    "｜DSML｜",
    "<dsml:",
    "</dsml:",
    "<｜User｜>",
    "<｜Assistant｜>",
    "<|EOT|>",
    "<｜latest_reminder｜>",
    "<｜action｜>",
    "<｜query｜>",
    "<｜authority｜>",
    "<｜domain｜>",
    "<｜task｜>",
    "<｜political｜>",
    "<｜entity｜>",
    "<｜title｜>",
    "<｜safety｜>",
    "<｜answer｜>",
    "<｜search｜>",
    "<｜extracted_url｜>",
    "<｜read_url｜>",
    "<｜begin▁sys｜>",
    "<｜end▁sys｜>",
    "<｜search▁begin｜>",
    "<｜search▁end｜>",
    "<｜fim▁hole｜>",
    "<｜fim▁begin｜>",
    "<｜fim▁end｜>",
    "<｜tool▁calls▁begin｜>",
    "<｜tool▁calls▁end｜>",
    "<｜tool▁call▁begin｜>",
    "<｜tool▁call▁end｜>",
    "<｜tool▁outputs▁begin｜>",
    "<｜tool▁outputs▁end｜>",
    "<｜tool▁output▁begin｜>",
    "<｜tool▁output▁end｜>",
    "<｜tool▁sep｜>",
    "<｜begin▁of▁repo▁name｜>",
    "<｜end▁of▁repo▁name｜>",
    "<｜begin▁of▁file▁name｜>",
    "<｜end▁of▁file▁name｜>",
    "<｜begin▁of▁file｜>",
    "<｜end▁of▁file｜>",
    "<｜place▁holder▁for▁copy｜>",
    "<｜place▁holder▁for▁pointer▁replace｜>",
    "<｜image2｜>",
    "<｜/table>｜",
    "<｜table｜>",
    "<｜/td｜>",
    "<｜td｜>",
    "<｜/tr｜>",
    "<｜tr｜>",
];

/// A set of markers that can be found in text.
pub(crate) struct MarkerSet {
    /// In order of name.
    markers: Vec<(Box<str>, u32)>,
    /// The bytes that some marker begins with.
    begins: Box<[bool; 256]>,
}

/// A part of a text that was searched for markers.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Span<'t> {
    Text(&'t str),
    Marker(u32),
}

impl MarkerSet {
    pub(crate) fn new<'a>(markers: impl Iterator<Item = (&'a str, u32)>) -> MarkerSet {
        // A marker without a name would be found everywhere.
        let mut markers: Vec<(Box<str>, u32)> = markers
            .filter(|(name, _)| !name.is_empty())
            .map(|(name, id)| (name.into(), id))
            .collect();
        markers.sort_unstable();
        markers.dedup_by(|second, first| second.0 == first.0);
        let mut begins = Box::new([false; 256]);
        for first in markers.iter().filter_map(|(name, _)| name.bytes().next()) {
            begins[usize::from(first)] = true;
        }
        MarkerSet { markers, begins }
    }

    pub(crate) fn id(&self, name: &str) -> Option<u32> {
        let at = self.markers.binary_search_by(|(marker, _)| (**marker).cmp(name)).ok()?;
        self.markers.get(at).map(|&(_, id)| id)
    }

    /// The markers in `text` and what lies between them: leftmost first, the longest of those that
    /// begin at the same place.
    pub(crate) fn spans<'m, 't>(&'m self, text: &'t str) -> Spans<'m, 't> {
        Spans { set: self, rest: text, marker: None }
    }

    /// The first marker in `text`: where it begins, its length and its id.
    fn find(&self, text: &str) -> Option<(usize, usize, u32)> {
        text.bytes().enumerate().filter(|&(_, byte)| self.begins[usize::from(byte)]).find_map(
            |(at, _)| {
                let (length, id) = self.longest(text.as_bytes().get(at..)?)?;
                Some((at, length, id))
            },
        )
    }

    /// The longest marker that `text` begins with. Narrows the sorted markers byte by byte, so the
    /// cost does not grow with the number of markers that are alike.
    fn longest(&self, text: &[u8]) -> Option<(usize, u32)> {
        let mut alike = self.markers.as_slice();
        let mut longest = None;
        for (at, &byte) in text.iter().enumerate() {
            let byte_of = |marker: &(Box<str>, u32)| marker.0.as_bytes().get(at).copied();
            let from = alike.partition_point(|marker| byte_of(marker) < Some(byte));
            let to = alike.partition_point(|marker| byte_of(marker) <= Some(byte));
            alike = &alike[from..to];
            // Of those that are alike so far, the one that ends here sorts first.
            match alike.first() {
                None => break,
                Some((name, id)) if name.len() == at + 1 => longest = Some((at + 1, *id)),
                Some(_) => {}
            }
        }
        longest
    }
}

/// Iterates over the [`Span`]s of a text.
pub(crate) struct Spans<'m, 't> {
    set: &'m MarkerSet,
    rest: &'t str,
    /// Found behind the text that was answered last.
    marker: Option<u32>,
}

impl<'t> Iterator for Spans<'_, 't> {
    type Item = Span<'t>;

    fn next(&mut self) -> Option<Span<'t>> {
        if let Some(id) = self.marker.take() {
            return Some(Span::Marker(id));
        }
        if self.rest.is_empty() {
            return None;
        }
        let Some((at, length, id)) = self.set.find(self.rest) else {
            return Some(Span::Text(std::mem::take(&mut self.rest)));
        };
        let (before, found) = self.rest.split_at_checked(at)?;
        self.rest = found.get(length..)?;
        if before.is_empty() {
            return Some(Span::Marker(id));
        }
        self.marker = Some(id);
        Some(Span::Text(before))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &[Span]) {
        let names = ["<a>", "<a>b", "<", "ab", "｜x｜", "", "<a>"];
        let set = MarkerSet::new(names.into_iter().zip(1..));
        assert_eq!(set.spans(text).collect::<Vec<_>>(), expected, "{text:?}");
    }

    #[test]
    fn leftmost_then_longest() {
        use Span::{Marker, Text};
        check("", &[]);
        check("xyz", &[Text("xyz")]);
        check("x<a>y", &[Text("x"), Marker(1), Text("y")]);
        check("<a>b<a>", &[Marker(2), Marker(1)]);
        check("<a><", &[Marker(1), Marker(3)]);
        check("<ab", &[Marker(3), Marker(4)]);
        check("<a", &[Marker(3), Text("a")]);
        check("｜x｜x｜", &[Marker(5), Text("x｜")]);
    }

    #[test]
    fn a_marker_without_a_name_is_none() {
        assert_eq!(MarkerSet::new([("", 1)].into_iter()).id(""), None);
    }
}
