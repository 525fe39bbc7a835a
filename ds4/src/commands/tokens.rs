//! `ds4 tokens`: the tokens of a text exactly as it is written, markers recognised. No weights are read.

use std::io::Write;

use ds4_tokenizer::Tokenizer;

use crate::{fault::Fault, load, plan::ModelChoice, term::Term};

pub fn run(model: &ModelChoice, text: &str, out: &mut dyn Write, term: Term) -> Result<(), Fault> {
    let tokenizer = load::tokenizer(&load::open(model, term)?)?;
    print(&tokenizer, &tokenizer.encode_with_markers(text), out)
}

fn print(tokenizer: &Tokenizer, ids: &[u32], out: &mut dyn Write) -> Result<(), Fault> {
    let list: Vec<String> = ids.iter().map(u32::to_string).collect();
    writeln!(out, "[{}]", list.join(", "))?;
    for &id in ids {
        let bytes = tokenizer.token_bytes(id).unwrap_or_default();
        let spelled = match tokenizer.is_marker(id) {
            true => String::from_utf8_lossy(bytes).into_owned(),
            false => bytes.iter().map(|&byte| spelling(byte)).collect(),
        };
        writeln!(out, "{id:>6}  {spelled}")?;
    }
    Ok(out.flush()?)
}

/// A byte as vocabularies spell it: printable ones as themselves, the others as letters from U+0100 on,
/// in their order. So a space is `Ġ`, and every token is one visible word.
fn spelling(byte: u8) -> char {
    let printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    if printable(byte) {
        return char::from(byte);
    }
    let place = (0..byte).filter(|&before| !printable(before)).count() as u32;
    char::from_u32(0x100 + place).unwrap_or(char::REPLACEMENT_CHARACTER)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::builtin;

    #[test]
    fn bytes_are_spelled_as_in_vocabularies() {
        for (byte, letter) in
            [(b'a', 'a'), (b' ', 'Ġ'), (b'\n', 'Ċ'), (0, 'Ā'), (0xad, 'Ń'), (0xff, 'ÿ')]
        {
            assert_eq!(spelling(byte), letter);
        }
        let all: HashSet<char> = (0..=255).map(spelling).collect();
        assert_eq!(all.len(), 256);
    }

    #[test]
    fn the_list_and_the_lines_say_the_same() {
        let tokenizer = Tokenizer::from_gguf(&builtin::open().unwrap()).unwrap();
        let ids = tokenizer.encode_with_markers("<｜User｜>Hi there");
        let mut out = Vec::new();
        print(&tokenizer, &ids, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let mut lines = text.lines();
        let list: Vec<u32> = serde_json::from_str(lines.next().unwrap()).unwrap();
        assert_eq!(list, ids);
        let column: Vec<u32> = lines.map(|line| line[..6].trim().parse().unwrap()).collect();
        assert_eq!(column, ids);
        assert!(text.contains("  <｜User｜>\n"));
        assert!(text.contains('Ġ'));
    }
}
