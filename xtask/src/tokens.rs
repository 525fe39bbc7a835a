//! `cargo xtask tokens`: tokenizer vectors against the tokenizer.
//!
//! A set is one JSON object a line: `id`, `text`, the `pieces` of the split (null where they are too
//! long to list) with their number, and for each vocabulary, `small` and `real`, the `ids` with markers
//! recognised, the `ids_plain` without where they differ, and what the ids decode to where that is
//! not the text. Files that end in `.gz` are unpacked.

use std::{
    ffi::OsStr,
    fs,
    io::Read,
    path::{Path, PathBuf},
};

use ds4_gguf::Gguf;
use ds4_host::Region;
use ds4_tokenizer::{Tokenizer, pieces};
use serde_json::Value;

use crate::arguments::Arguments;

/// Checks every case of a set; prints the ids of those that fail and the count.
pub fn run(arguments: &[String]) -> Result<bool, String> {
    let arguments = Arguments::parse(arguments, &["set", "tokenizer", "ids"], &[])?;
    let set = arguments.path("set")?;
    let vocabulary = arguments.word("ids", &["small", "real"])?;
    let tokenizer = match arguments.get("tokenizer") {
        Some(path) => load_tokenizer(Path::new(path))?,
        None => load_tokenizer(&small_tokenizer_beside(&set)?)?,
    };
    let cases = unpacked(&set)?;
    let cases = str::from_utf8(&cases).map_err(|error| format!("{}: {error}", set.display()))?;
    let (mut passed, mut failed) = (0, 0);
    for (number, line) in (1..).zip(cases.lines()).filter(|(_, line)| !line.trim().is_empty()) {
        let place = || format!("{}:{number}", set.display());
        let case = serde_json::from_str(line).map_err(|error| format!("{}: {error}", place()))?;
        let faults =
            faults(&tokenizer, &case, vocabulary).ok_or_else(|| format!("{}: no case", place()))?;
        if faults.is_empty() {
            passed += 1;
        } else {
            failed += 1;
            println!("{}: {}", case["id"].as_str().unwrap_or("?"), faults.join(", "));
        }
    }
    println!("passed {passed} failed {failed}");
    Ok(failed == 0)
}

/// What the tokenizer does differently in one case. `None` if the case lacks what a case must have.
fn faults(tokenizer: &Tokenizer, case: &Value, vocabulary: &str) -> Option<Vec<&'static str>> {
    let (text, expected) = (case["text"].as_str()?, &case[vocabulary]);
    let with_markers = ids(&expected["ids"])?;
    let plain = ids(&expected["ids_plain"]).unwrap_or_else(|| with_markers.clone());
    let decoded = expected["decode"].as_str().unwrap_or(text);
    let skipped = expected["decode_skip_special"].as_str().unwrap_or(decoded);
    let split_agrees = match &case["pieces"] {
        Value::Array(expected) => pieces(text).eq(expected.iter().filter_map(Value::as_str)),
        _ => case["n_pieces"].as_u64().is_none_or(|count| count == pieces(text).count() as u64),
    };
    let checks = [
        ("pieces", split_agrees),
        ("ids", tokenizer.encode_with_markers(text) == with_markers),
        ("ids_plain", tokenizer.encode(text) == plain),
        ("decode", tokenizer.decode(&with_markers) == decoded),
        ("decode_skip_special", tokenizer.decode_skip_special(&with_markers) == skipped),
    ];
    Some(checks.into_iter().filter(|(_, right)| !right).map(|(name, _)| name).collect())
}

fn ids(value: &Value) -> Option<Vec<u32>> {
    value.as_array()?.iter().map(|id| id.as_u64()?.try_into().ok()).collect()
}

/// The small tokenizer that lies in the folder of a set, packed or not.
pub(crate) fn small_tokenizer_beside(set: &Path) -> Result<PathBuf, String> {
    let plain = set.with_file_name("small_tokenizer.gguf");
    let packed = set.with_file_name("small_tokenizer.gguf.gz");
    [plain, packed]
        .into_iter()
        .find(|path| path.exists())
        .ok_or_else(|| format!("{}: no small_tokenizer.gguf beside it", set.display()))
}

/// Loads a tokenizer from a GGUF file or a `tokenizer.json`.
pub(crate) fn load_tokenizer(path: &Path) -> Result<Tokenizer, String> {
    let name = path.to_string_lossy();
    if name.trim_end_matches(".gz").ends_with(".json") {
        return Tokenizer::from_hf_json(&unpacked(path)?, &name).map_err(|error| error.to_string());
    }
    let gguf = if is_packed(path) {
        Gguf::from_region(Region::from_vec(unpacked(path)?), &name)
    } else {
        Gguf::open(path)
    };
    let gguf = gguf.map_err(|error| error.to_string())?;
    Tokenizer::from_gguf(&gguf).map_err(|error| error.to_string())
}

/// The bytes of a file, unpacked if it is packed.
pub(crate) fn unpacked(path: &Path) -> Result<Vec<u8>, String> {
    let failed = |error| format!("{}: {error}", path.display());
    let bytes = fs::read(path).map_err(failed)?;
    if !is_packed(path) {
        return Ok(bytes);
    }
    let mut unpacked = Vec::new();
    flate2::read::GzDecoder::new(&bytes[..]).read_to_end(&mut unpacked).map_err(failed)?;
    Ok(unpacked)
}

fn is_packed(path: &Path) -> bool {
    path.extension() == Some(OsStr::new("gz"))
}
