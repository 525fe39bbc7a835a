//! The byte-level alphabet: vocabulary files spell each byte as one printable character.
//!
//! Bytes that print stand for themselves (`!`..`~`, `¡`..`¬`, `®`..`ÿ`); the other 68 are, in
//! order, U+0100 and up. So a space is `Ġ` and a line feed `Ċ`.

/// The byte that `character` spells, if it is in the alphabet.
pub(crate) fn byte(character: char) -> Option<u8> {
    match character {
        '!'..='~' | '\u{A1}'..='\u{AC}' | '\u{AE}'..='\u{FF}' => u8::try_from(character).ok(),
        '\u{100}'..='\u{120}' => u8::try_from(character as u32 - 0x100).ok(),
        '\u{121}'..='\u{142}' => u8::try_from(character as u32 - 0x121 + 0x7F).ok(),
        '\u{143}' => Some(0xAD),
        _ => None,
    }
}

/// Every byte with its character.
pub(crate) fn spellings() -> impl Iterator<Item = (u8, char)> {
    ('\0'..='\u{143}').filter_map(|character| Some((byte(character)?, character)))
}

/// Appends the bytes that `spelling` stands for. A spelling that leaves the alphabet stands for
/// itself: markers are written plainly.
pub(crate) fn push_bytes(spelling: &str, bytes: &mut Vec<u8>) {
    let start = bytes.len();
    for character in spelling.chars() {
        match byte(character) {
            Some(byte) => bytes.push(byte),
            None => {
                bytes.truncate(start);
                bytes.extend_from_slice(spelling.as_bytes());
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_byte_has_one_character() {
        let mut seen: Vec<(u8, char)> = spellings().collect();
        seen.sort_unstable();
        assert!(seen.iter().map(|&(byte, _)| byte).eq(0..=255));
        assert_eq!(('\0'..=char::MAX).filter_map(byte).count(), 256);
        assert_eq!(seen[0x20], (0x20, 'Ġ'));
        assert_eq!(seen[0x0A], (0x0A, 'Ċ'));
        assert_eq!(seen[0x7F], (0x7F, 'ġ'));
        assert_eq!(seen[0xA0], (0xA0, 'ł'));
        assert_eq!(seen[0xAD], (0xAD, 'Ń'));
    }

    #[test]
    fn what_leaves_the_alphabet_stands_for_itself() {
        let mut bytes = vec![0];
        push_bytes("Ġthe", &mut bytes);
        push_bytes("<｜User｜>", &mut bytes);
        assert_eq!(bytes, [b"\0 the", "<｜User｜>".as_bytes()].concat());
    }
}
