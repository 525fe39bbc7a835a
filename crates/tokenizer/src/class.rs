//! The class of a character: the few facts about Unicode that the split asks for.

use crate::class_table::CHANGES;

/// What the split knows of a character. The classes do not overlap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// Unassigned, control, format and private characters.
    Other,
    Letter,
    Mark,
    Number,
    Punctuation,
    Symbol,
    Space,
}

/// Most text is ASCII: its classes are looked up, not searched for.
static ASCII: [Class; 128] = {
    let mut classes = [Class::Other; 128];
    let (mut point, mut change, mut class) = (0, 0, Class::Other);
    while point < classes.len() {
        while CHANGES[change] as usize >> 3 <= point {
            class = Class::of_entry(CHANGES[change]);
            change += 1;
        }
        classes[point] = class;
        point += 1;
    }
    classes
};

impl Class {
    pub(crate) fn of(character: char) -> Class {
        let point = character as u32;
        if let Some(&class) = ASCII.get(point as usize) {
            return class;
        }
        let next = CHANGES.partition_point(|change| change >> 3 <= point);
        CHANGES[..next].last().map_or(Class::Other, |&change| Class::of_entry(change))
    }

    /// `L` or `M`: what a word is made of.
    pub(crate) fn is_word(self) -> bool {
        matches!(self, Class::Letter | Class::Mark)
    }

    /// `P` or `S`.
    pub(crate) fn is_sign(self) -> bool {
        matches!(self, Class::Punctuation | Class::Symbol)
    }

    const fn of_entry(change: u32) -> Class {
        match change & 7 {
            1 => Class::Letter,
            2 => Class::Mark,
            3 => Class::Number,
            4 => Class::Punctuation,
            5 => Class::Symbol,
            6 => Class::Space,
            _ => Class::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_ordered_and_change_something() {
        for pair in CHANGES.windows(2) {
            assert!(pair[0] >> 3 < pair[1] >> 3, "{pair:x?}");
            assert_ne!(pair[0] & 7, pair[1] & 7, "{pair:x?}");
        }
    }

    #[test]
    fn white_space_is_what_the_reference_says_it_is() {
        let spaces: Vec<u32> =
            ('\0'..=char::MAX).filter(|&c| Class::of(c) == Class::Space).map(u32::from).collect();
        let mut expected: Vec<u32> = (9..=13).chain([0x20, 0x85, 0xA0, 0x1680]).collect();
        expected.extend((0x2000..=0x200A).chain([0x2028, 0x2029, 0x202F, 0x205F, 0x3000]));
        assert_eq!(spaces, expected);
    }

    #[test]
    fn how_many_characters_each_class_has() {
        let mut counts = [0usize; 7];
        for character in '\0'..=char::MAX {
            counts[Class::of(character) as usize] += 1;
        }
        assert_eq!(counts[1..], [141028, 2501, 1911, 855, 8514, 25]);
    }

    #[test]
    fn the_table_is_unicode_16() {
        assert_eq!(Class::of('\u{1C89}'), Class::Letter, "new in 16.0");
        assert_eq!(Class::of('\u{A7CB}'), Class::Letter, "new in 16.0");
        assert_eq!(Class::of('\u{20C1}'), Class::Other, "new in 17.0");
    }

    #[test]
    fn ascii_agrees_with_the_standard_library() {
        for character in '\0'..='\x7F' {
            let class = Class::of(character);
            assert_eq!(class == Class::Letter, character.is_ascii_alphabetic(), "{character:?}");
            assert_eq!(class == Class::Number, character.is_ascii_digit(), "{character:?}");
            assert_eq!(class.is_sign(), character.is_ascii_punctuation(), "{character:?}");
        }
    }
}
