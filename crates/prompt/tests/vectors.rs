//! Every vector case in the repository: renderings of the reference encoder and its strict parser
//! (`dev`), conversions and streamed completions of the hosted API (`api_dev`).

use std::{fs::File, io::Read, path::Path};

use ds4_prompt::vectors::Case;
use flate2::read::GzDecoder;

/// Cases answered differently on purpose, each with its reason. There are none.
const DELIBERATE: [(&str, &str); 0] = [];

fn cases(name: &str) -> Vec<Case> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/encoding").join(name);
    let mut text = String::new();
    GzDecoder::new(File::open(path).expect("fixture exists"))
        .read_to_string(&mut text)
        .expect("valid gzip");
    text.lines().map(|line| Case::parse(line).expect("a case a line")).collect()
}

fn check(name: &str, count: usize) {
    let cases = cases(name);
    assert_eq!(cases.len(), count);
    let failed: Vec<String> = cases
        .iter()
        .filter(|case| !DELIBERATE.iter().any(|(id, _)| *id == case.id))
        .filter_map(|case| Some(format!("{}: {}", case.id, case.run().difference?)))
        .collect();
    assert!(failed.is_empty(), "{} of {count} failed:\n{}", failed.len(), failed.join("\n"));
}

#[test]
fn reference_encoder_and_parser() {
    check("dev.jsonl.gz", 349);
}

#[test]
fn hosted_api() {
    check("api_dev.jsonl.gz", 191);
}

#[test]
fn every_marked_range_is_a_marker_and_in_order() {
    for case in cases("dev.jsonl.gz").into_iter().chain(cases("api_dev.jsonl.gz")) {
        let Some(prompt) = case.run().prompt else { continue };
        let mut end = 0;
        for range in &prompt.specials {
            assert!(range.start >= end && range.end > range.start, "{}", case.id);
            end = range.end;
            let marker = &prompt.text[range.clone()];
            assert!(marker.contains('｜') || marker.ends_with("think>"), "{}: {marker}", case.id);
        }
        assert!(end <= prompt.text.len());
    }
}
