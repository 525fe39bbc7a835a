//! `ds4 pull` from outside: what can be asked for, and what is said when it does not come.

mod program;
#[path = "../src/pull/test_server.rs"]
mod test_server;

use std::{
    fs::{self, File},
    path::Path,
};

use program::{Run, ds4, folder, program};
use test_server::{Reply, Server};

/// The smallest of the published files, and its size.
const SMALL: &str = "ds4f-vision-encoder";
const SMALL_FILE: &str = "DeepSeek-V4-Flash-Vision-Encoder.gguf";
const SMALL_SIZE: u64 = 932_857_760;

/// Runs in `folder`, with nothing in the environment that could lead elsewhere.
fn pull(folder: &Path, args: &[&str]) -> Run {
    let mut command = program(&[&["pull"], args].concat());
    for name in [
        "HF_TOKEN",
        "HF_HOME",
        "HF_ENDPOINT",
        "DS4_GGUF_DIR",
        "http_proxy",
        "HTTP_PROXY",
        "ALL_PROXY",
    ] {
        command.env_remove(name);
    }
    Run::of(&command.current_dir(folder).output().expect("the program runs"))
}

#[test]
fn the_list_says_what_there_is() {
    let list = ds4(&["pull", "--list"]).good();
    assert!(list.err.is_empty());
    for name in ["ds4f-q2 (flash, q2)", "ds4f-mxfp4", "pro-q2-imatrix", "q2-imatrix", "mtp"] {
        assert!(list.out.lines().any(|line| line.starts_with(name)), "{name}: {}", list.out);
    }
    assert!(list.out.contains("  80.76 GiB  Flash 0731"), "{}", list.out);
}

#[test]
fn what_cannot_be_asked_for_is_a_usage_error() {
    ds4(&["pull"]).bad(2, "needs a NAME");
    ds4(&["pull", "glm53-q2"])
        .bad(2, "glm53-q2: nothing of this name is published; there are ds4f-q2, ");
    ds4(&["pull", "flash", "--base-url", "example.org"]).bad(2, "--base-url: ");
    ds4(&["pull", "flash", "--base-url", "http://example.org", "--token", "x"])
        .bad(2, "unencrypted");
    ds4(&["run", "--list"]).bad(2, "--list: not a flag of `run`; it belongs to pull");
}

#[test]
fn a_server_that_has_it_not_is_quoted() {
    let folder = folder("pull_refused");
    for (status, args, part) in [
        (401, &[][..], "the server wants a token; give one with --token or in HF_TOKEN (401)"),
        (403, &["--token", "hf_secret"], "the server does not accept the token (403)"),
        (404, &[], "the server has no such file (404)"),
    ] {
        let server = Server::start(move |_, _| Reply::status(status));
        let url = server.url();
        let run = pull(&folder, &[&[SMALL, "--base-url", &url], args].concat());
        assert_eq!(run.code, Some(1), "{run:?}");
        assert!(run.err.lines().last().is_some_and(|line| line.contains(part)), "{run:?}");
        assert!(!run.err.contains("hf_secret"), "{run:?}");
        let seen = server.seen();
        assert_eq!(seen.len(), 1);
        let path = format!("/antirez/deepseek-v4-gguf/resolve/main/{SMALL_FILE}");
        assert_eq!(seen[0].path, path);
        assert_eq!(seen[0].header("authorization").is_some(), !args.is_empty());
    }
}

#[test]
fn another_file_than_the_published_one_is_not_fetched() {
    let folder = folder("pull_other");
    let server = Server::start(|_, _| Reply::whole(b"a page"));
    let run = pull(&folder, &[SMALL, "--base-url", &server.url(), "--dir", "models"]);
    assert_eq!(run.code, Some(1), "{run:?}");
    assert!(
        run.err.contains(&format!("offers 6 bytes, the published file has {SMALL_SIZE}")),
        "{run:?}"
    );
    assert!(!folder.join("models").join(SMALL_FILE).exists());
}

#[test]
fn what_is_there_needs_no_server() {
    let folder = folder("pull_there");
    fs::create_dir(folder.join("gguf")).unwrap();
    // A file with a hole: it takes no room.
    File::create(folder.join("gguf").join(SMALL_FILE)).unwrap().set_len(SMALL_SIZE).unwrap();
    let run = pull(&folder, &[SMALL, "--base-url", "http://127.0.0.1:1"]).good();
    assert!(run.err.contains("already there"), "{run:?}");
    assert!(run.err.contains("no use for it yet"), "{run:?}");
    assert!(!folder.join("ds4flash.gguf").exists(), "it is no model");
    fs::remove_dir_all(folder).unwrap();
}

#[cfg(unix)]
#[test]
fn a_model_becomes_the_default_one() {
    let folder = folder("pull_link");
    let name = "DeepSeek-V4-Flash-IQ2XXS-w2Q2K-AProjQ8-SExpQ8-OutQ8-chat-v2-imatrix-0731.gguf";
    fs::create_dir(folder.join("gguf")).unwrap();
    File::create(folder.join("gguf").join(name)).unwrap().set_len(86_720_111_488).unwrap();
    let run = pull(&folder, &["flash", "--base-url", "http://127.0.0.1:1"]).good();
    assert!(run.err.contains("ds4flash.gguf leads to it"), "{run:?}");
    let link = fs::read_link(folder.join("ds4flash.gguf")).unwrap();
    assert_eq!(link, Path::new("gguf").join(name));
    fs::remove_dir_all(folder).unwrap();
}
