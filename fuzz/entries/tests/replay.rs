//! Every input that a fuzzer has kept, tried again.

use std::{
    collections::BTreeSet,
    fs,
    panic::catch_unwind,
    path::{Path, PathBuf},
};

use ds4_fuzz_entries::TARGETS;

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the fuzzing project").to_owned()
}

fn names(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let name = |entry: fs::DirEntry| entry.file_name().into_string().expect("a plain name");
    entries.map(|entry| name(entry.expect("a readable folder"))).collect()
}

#[test]
fn corpora_hold_no_surprise() {
    for target in TARGETS {
        let folder = fuzz().join("corpus").join(target.name);
        let files = names(&folder);
        assert!(!files.is_empty(), "{} has no corpus", target.name);
        for file in files {
            let input = fs::read(folder.join(&file)).expect("a readable file");
            let outcome = catch_unwind(|| (target.run)(&input));
            assert!(outcome.is_ok(), "{}/{file} panics: see above", target.name);
        }
    }
}

#[test]
fn what_our_writers_make_is_taken() {
    for target in TARGETS {
        for (number, seed) in (target.seeds)().iter().enumerate() {
            assert!((target.run)(seed), "seed {number} of {}", target.name);
        }
    }
}

#[test]
fn each_target_has_its_binary_and_its_corpus() {
    let known: BTreeSet<String> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
    let binaries = names(&fuzz().join("fuzz_targets"));
    let binaries: BTreeSet<String> = binaries.iter().map(|n| n.replace(".rs", "")).collect();
    assert_eq!(binaries, known);
    assert_eq!(names(&fuzz().join("corpus")), known);
}
