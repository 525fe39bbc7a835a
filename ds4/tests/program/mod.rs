//! Running the real program, in an empty folder of its own and with nothing of the caller's.

#![allow(dead_code, reason = "each test file uses its part")]

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    thread,
};

/// What a run left behind.
#[derive(Debug)]
pub struct Run {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Run {
    pub fn of(output: &Output) -> Run {
        Run {
            code: output.status.code(),
            out: String::from_utf8(output.stdout.clone()).expect("standard output is UTF-8"),
            err: String::from_utf8(output.stderr.clone()).expect("standard error is UTF-8"),
        }
    }

    /// Panics unless the run was a success.
    #[track_caller]
    pub fn good(self) -> Run {
        assert_eq!(self.code, Some(0), "{self:#?}");
        self
    }

    /// Panics unless the run ended with `code` and one line that has `part` in it.
    #[track_caller]
    pub fn bad(self, code: i32, part: &str) {
        assert_eq!(self.code, Some(code), "{self:#?}");
        assert_eq!(self.err.lines().count(), 1, "{self:#?}");
        assert!(self.err.starts_with("ds4: ") && self.err.contains(part), "{part:?}: {self:#?}");
    }
}

/// A new empty folder for one test.
pub fn folder(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&path);
    fs::create_dir_all(&path).expect("a folder for the test");
    path
}

/// The program, in a folder whose model is the random one: what a trained model says would change with
/// each training. No GPU is in sight: tests say the same on every machine.
pub fn program(args: &[&str]) -> Command {
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join("home");
    fs::create_dir_all(&home).expect("a home for the test");
    let model = home.join("ds4flash.gguf");
    if !model.exists() {
        // Tests run side by side: the name appears when the bytes are there.
        let new = home.join(format!("{:?}.new", thread::current().id()));
        fs::copy(format!("{}/assets/noise.gguf", env!("CARGO_MANIFEST_DIR")), &new)
            .expect("a copy");
        fs::rename(new, &model).expect("a model");
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_ds4"));
    command
        .args(args)
        .current_dir(&home)
        .env("HOME", &home)
        .env("CUDA_VISIBLE_DEVICES", "")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

pub fn ds4(args: &[&str]) -> Run {
    Run::of(&program(args).output().expect("the program runs"))
}

/// Runs with `input` on standard input.
pub fn ds4_with_input(args: &[&str], input: &[u8]) -> Run {
    let mut child = program(args).stdin(Stdio::piped()).spawn().expect("the program runs");
    let mut stdin = child.stdin.take().expect("a pipe");
    // A program that does not want it all is not this side's problem.
    let _ = stdin.write_all(input);
    drop(stdin);
    Run::of(&child.wait_with_output().expect("the program ends"))
}

/// A model of the oracle set that the repository carries.
pub fn fixture(name: &str) -> String {
    format!("{}/../fixtures/oracle/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// A fixture in full precision, and one in the formats of the original's files.
pub const PLAIN_MODEL: &str = "sparse_a-f32.gguf";
pub const QUANT_MODEL: &str = "kquant_a-ds4_iq2.gguf";
