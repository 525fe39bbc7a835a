//! `cargo xtask encoding`: vectors of the conversation encoding.
//!
//! A set is one JSON object a line; `ds4_prompt::vectors` knows the four kinds there are. Cases that
//! list token ids are tokenized too, with the small tokenizer if that lies beside the set, or with
//! `--tokenizer` and, for the real vocabulary, `--ids real`. Files that end in `.gz` are unpacked.

use std::path::Path;

use ds4_prompt::{Prompt, vectors::Case};
use ds4_tokenizer::Tokenizer;

use crate::{
    arguments::Arguments,
    tokens::{load_tokenizer, small_tokenizer_beside, unpacked},
};

/// Checks every case of a set; prints the ids of those that fail and the count.
pub fn run(arguments: &[String]) -> Result<bool, String> {
    let arguments = Arguments::parse(arguments, &["set", "tokenizer", "ids"], &["verbose"])?;
    let set = arguments.path("set")?;
    let vocabulary = arguments.word("ids", &["small", "real"])?;
    let tokenizer = match (arguments.get("tokenizer"), vocabulary) {
        (Some(path), _) => Some(load_tokenizer(Path::new(path))?),
        (None, "real") => return Err("--ids real needs --tokenizer".to_owned()),
        (None, _) => {
            small_tokenizer_beside(&set).ok().map(|path| load_tokenizer(&path)).transpose()?
        }
    };
    let ids = format!("ids_{vocabulary}");
    let text = unpacked(&set)?;
    let text = str::from_utf8(&text).map_err(|error| format!("{}: {error}", set.display()))?;
    let (mut passed, mut failed, mut tokenized) = (0, 0, 0);
    for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()) {
        let case =
            Case::parse(line).map_err(|error| format!("{}:{number}: {error}", set.display()))?;
        let verdict = case.run();
        let mut difference = verdict.difference;
        if let (Some(prompt), Some(tokenizer), Some(expected)) =
            (&verdict.prompt, &tokenizer, case.expected_ids(&ids))
        {
            tokenized += 1;
            difference = difference.or_else(|| differing_ids(tokenizer, prompt, &expected));
        }
        match difference {
            None => passed += 1,
            Some(difference) => {
                failed += 1;
                println!(
                    "{}{}",
                    case.id,
                    if arguments.has("verbose") {
                        format!(": {difference}")
                    } else {
                        String::new()
                    }
                );
            }
        }
    }
    if arguments.has("verbose") {
        println!("compared {ids} of {tokenized} prompts");
    }
    println!("passed {passed} failed {failed}");
    Ok(failed == 0)
}

/// Where the ids of a prompt differ from what is expected.
fn differing_ids(tokenizer: &Tokenizer, prompt: &Prompt, expected: &[u32]) -> Option<String> {
    let found = match tokenizer.encode_prompt(&prompt.text, &prompt.specials) {
        Ok(found) => found,
        Err(error) => return Some(format!("the tokenizer refused it: {error}")),
    };
    if found == expected {
        return None;
    }
    let same = found.iter().zip(expected).take_while(|(found, expected)| found == expected).count();
    let from = |ids: &[u32]| format!("{:?}", ids.iter().skip(same).take(8).collect::<Vec<_>>());
    Some(format!("ids differ at {same}: found {}, expected {}", from(&found), from(expected)))
}
