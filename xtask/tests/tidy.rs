//! The invariants of ARCHITECTURE.md that are about what is absent: who may know whom, where unsafe
//! code may stand, how long a file may grow.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Which crates of the workspace each crate may use.
const MAY_USE: &[(&str, &[&str])] = &[
    ("host", &[]),
    ("quant", &[]),
    ("gguf", &["host", "quant"]),
    ("tokenizer", &["gguf"]),
    ("prompt", &[]),
    ("model", &["gguf", "host", "quant"]),
    ("engine", &["model", "quant"]),
    ("cpu", &["engine", "host", "model", "quant"]),
    ("lab", &["engine", "host", "model", "prompt", "quant", "tokenizer"]),
    ("cuda", &["engine", "host", "model", "quant"]),
];
/// What backends must never see: text, JSON, sockets.
const NOT_IN_BACKENDS: &[&str] = &["serde_json", "ds4-tokenizer", "ds4-prompt", "axum", "hyper"];
const BACKENDS: &[&str] = &["cpu", "cuda"];
const MAY_HOLD_UNSAFE: &[&str] = &["crates/host/", "crates/cpu/", "crates/cuda/"];
/// One screenful of ideas; the reference pass is one file because the paper is one.
const LONGEST_FILE: usize = 550;
/// Tables of facts, not code.
const TABLES: &[&str] = &["crates/tokenizer/src/class_table.rs", "crates/quant/src/iq2xxs_grid.rs"];
const LARGEST_FILE: u64 = 16 << 20;
const LARGEST_REPOSITORY: u64 = 40 << 20;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Every file of the project: what `git` would list, without asking it.
fn files() -> Vec<(String, PathBuf)> {
    let skipped = |name: &str| {
        matches!(name, "target" | "artifacts" | "__pycache__" | "out")
            || (name.starts_with('.') && name != ".ci")
    };
    let (root, mut found) = (root(), Vec::new());
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a readable folder").flatten() {
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            let kind = entry.file_type().expect("a file type");
            if kind.is_dir() && !skipped(&name) {
                folders.push(path);
            } else if kind.is_file() {
                let short =
                    path.strip_prefix(&root).expect("inside").to_string_lossy().into_owned();
                found.push((short, path));
            }
        }
    }
    found
}

fn sources() -> Vec<(String, String)> {
    let rust = files().into_iter().filter(|(name, _)| name.ends_with(".rs"));
    rust.map(|(name, path)| (name, read(&path))).collect()
}

/// The names under `[dependencies]`.
fn dependencies(manifest: &str) -> BTreeSet<String> {
    let section = manifest.split("[dependencies]").nth(1).unwrap_or_default();
    let section = section.split("\n[").next().unwrap_or_default();
    let name = |line: &str| line.split(['.', '=', ' ']).next().unwrap_or_default().to_owned();
    section.lines().map(name).filter(|name| !name.is_empty() && !name.starts_with('#')).collect()
}

#[test]
fn crates_know_only_what_lies_below_them() {
    for (name, allowed) in MAY_USE {
        let manifest = read(&root().join(format!("crates/{name}/Cargo.toml")));
        for used in dependencies(&manifest).iter().filter_map(|name| name.strip_prefix("ds4-")) {
            assert!(allowed.contains(&used), "{name} must not use {used}");
        }
    }
    for folder in fs::read_dir(root().join("crates")).expect("crates").flatten() {
        let name = folder.file_name().to_string_lossy().into_owned();
        assert!(MAY_USE.iter().any(|(known, _)| *known == name), "say what {name} may use");
    }
}

#[test]
fn backends_never_see_text_json_or_sockets() {
    for backend in BACKENDS {
        let used = dependencies(&read(&root().join(format!("crates/{backend}/Cargo.toml"))));
        for name in NOT_IN_BACKENDS {
            assert!(!used.contains(*name), "{backend} must not use {name}");
        }
    }
}

#[test]
fn unsafe_code_stands_only_where_it_may() {
    for (name, text) in sources() {
        if MAY_HOLD_UNSAFE.iter().any(|place| name.starts_with(place)) || name.ends_with("tidy.rs")
        {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            let found =
                code.split(|c: char| !c.is_alphanumeric() && c != '_').any(|w| w == "unsafe");
            assert!(!found, "{name}:{}: unsafe", number + 1);
        }
    }
    for (name, path) in files().into_iter().filter(|(name, _)| name.ends_with("Cargo.toml")) {
        let text = read(&path);
        let exempt = MAY_HOLD_UNSAFE.iter().any(|place| name.starts_with(place))
            || text.contains("[workspace]");
        assert!(exempt || text.contains("[lints]\nworkspace = true"), "{name} lacks the lints");
    }
}

#[test]
fn files_stay_short_and_open_with_their_purpose() {
    for (name, text) in sources() {
        let lines = text.lines().count();
        assert!(lines <= LONGEST_FILE || TABLES.contains(&name.as_str()), "{name}: {lines} lines");
        assert!(text.starts_with("//!"), "{name} does not say what it is for");
    }
}

#[test]
fn nothing_is_left_unfinished() {
    for (name, text) in sources() {
        if name.ends_with("tidy.rs") {
            continue;
        }
        for mark in ["TODO", "FIXME", "#[ignore"] {
            assert!(!text.contains(mark), "{name} holds {mark}");
        }
    }
}

#[test]
fn the_repository_stays_small() {
    let mut total = 0;
    for (name, path) in files() {
        let size = path.metadata().map_or(0, |m| m.len());
        assert!(size <= LARGEST_FILE, "{name}: {size} bytes");
        total += size;
    }
    assert!(total <= LARGEST_REPOSITORY, "{total} bytes");
}

#[test]
fn the_architecture_names_every_crate_and_every_dependency() {
    let text = read(&root().join("ARCHITECTURE.md"));
    for (name, _) in MAY_USE {
        assert!(text.contains(&format!("`crates/{name}`")), "ARCHITECTURE.md lacks {name}");
    }
    let manifest = read(&root().join("Cargo.toml"));
    let section = manifest.split("[workspace.dependencies]").nth(1).expect("dependencies");
    let section = section.split("\n[").next().expect("a section");
    for line in section.lines().filter(|line| line.contains('=') && !line.starts_with('#')) {
        let name = line.split([' ', '=']).next().expect("a name");
        let known = name.starts_with("ds4-") || text.contains(&format!("| `{name}` |"));
        assert!(known, "ARCHITECTURE.md gives no reason for {name}");
    }
}
