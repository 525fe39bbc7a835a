//! The command line from outside: help, exit codes, and one line for everything that is wrong.

mod program;

use std::{fs, io::Write as _, path::Path};

use ds4_gguf::GgufWriter;
use program::{PLAIN_MODEL, ds4, ds4_with_input, fixture, folder, program};

#[test]
fn help_goes_to_standard_output_and_is_a_success() {
    for args in [
        &["--help"][..],
        &["-h"],
        &["help"],
        &["--help", "all"],
        &["--help", "sampling"],
        &["run", "--help"],
    ] {
        let run = ds4(args).good();
        assert!(run.err.is_empty() && run.out.len() > 100, "{run:?}");
        assert!(!run.out.contains('\x1b'), "colours without a terminal");
    }
}

#[test]
fn the_spellings_of_the_original_are_known() {
    let help = ds4(&["--help", "all"]).good().out;
    for spelled in [
        "-p, --prompt TEXT",
        "--prompt-file FILE",
        "-sys, --system TEXT",
        "-m, --model FILE",
        "-c, --ctx N",
        "-n, --tokens N",
        "-t, --threads N",
        "--temp F",
        "--top-p F",
        "--min-p F",
        "--seed N",
        "--think ",
        "--think-max",
        "--nothink",
        "--inspect",
        "--dump-tokens",
        "--dump-logits FILE",
        "--dump-logprobs FILE",
        "--logprobs-top-k N",
        "--perplexity-file FILE",
        "-h, --help [TOPIC]",
    ] {
        assert!(help.contains(&format!("\n  {spelled}")), "{spelled}");
    }
}

#[test]
fn version_and_completions() {
    assert_eq!(ds4(&["--version"]).good().out, format!("ds4 {}\n", env!("CARGO_PKG_VERSION")));
    for shell in ["bash", "zsh", "fish"] {
        assert!(ds4(&["completions", shell]).good().out.contains("prompt-file"), "{shell}");
    }
    ds4(&["completions"]).bad(2, "name a shell");
    ds4(&["completions", "tcsh"]).bad(2, "name a shell");
}

/// The shells themselves are the judges, where they are installed.
#[test]
fn completion_scripts_are_sound_shell() {
    for shell in ["bash", "zsh", "fish"] {
        let script = folder("completions").join(shell);
        fs::write(&script, ds4(&["completions", shell]).good().out).unwrap();
        let Ok(output) = std::process::Command::new(shell).arg("-n").arg(&script).output() else {
            continue;
        };
        assert!(output.status.success(), "{shell}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn bad_flags_name_themselves_and_exit_2() {
    for (args, part) in [
        (&["--nonsense"][..], "--nonsense: unknown flag"),
        (&["--temp", "hot", "-p", "x"], "--temp: `hot` is not a number from 0 to 100"),
        (&["-n", "0"], "-n: `0`"),
        (&["-p"], "-p: needs a value"),
        (&["-p", "x", "--prompt-file", "y"], "--prompt-file: not together with -p"),
        (&["--prompt-file", "/nowhere"], "/nowhere: "),
        (&["-p", ""], "the prompt is empty"),
        (&["--rocm", "-p", "x"], "--rocm: not available yet"),
        (&["--ssd-streaming"], "--ssd-streaming: not available yet"),
        (&["--backend", "metal"], "not available yet"),
        (&["serve"], "serve: not available yet"),
        (&["inspect", "--temp", "1"], "--temp: not a flag of `inspect`"),
        (&["inspect", "a", "-m", "b"], "not both"),
        (&["perplexity"], "needs a FILE"),
        (&["--perplexity-file", "/nowhere", "-p", "x"], "takes no prompt"),
    ] {
        ds4(args).bad(2, part);
    }
    ds4_with_input(&["run"], b"\xff\xfe").bad(2, "standard input: not UTF-8 text at byte 0");
    ds4_with_input(&["run"], b"").bad(2, "the prompt is empty");
}

/// A file of the test, with these bytes.
fn file(folder: &Path, name: &str, bytes: &[u8]) -> String {
    let path = folder.join(name);
    fs::File::create(&path).unwrap().write_all(bytes).unwrap();
    path.display().to_string()
}

#[test]
fn bad_model_files_give_one_line_and_exit_1() {
    let folder = folder("bad_files");
    let whole = fs::read(fixture(PLAIN_MODEL)).unwrap();
    let mut other_arch = Vec::new();
    let mut writer = GgufWriter::new("other");
    writer.put("general.architecture", "llama");
    writer.begin(&mut other_arch).unwrap().finish().unwrap();

    let mut models = vec![
        ("/nowhere/model.gguf".to_owned(), "/nowhere/model.gguf"),
        (folder.display().to_string(), "config.json"),
        (file(&folder, "empty.gguf", b""), "empty.gguf"),
        (file(&folder, "text.gguf", b"not a model at all"), "not a GGUF"),
        (file(&folder, "llama.gguf", &other_arch), "general.architecture"),
    ];
    for length in [4, 30, 1000, 20_000, whole.len() / 2, whole.len() - 1] {
        let name = format!("truncated_{length}.gguf");
        models.push((file(&folder, &name, &whole[..length]), "truncated_"));
    }
    for (model, part) in &models {
        ds4(&["inspect", model]).bad(1, part);
        ds4(&["run", "-m", model, "-p", "hi", "-n", "1"]).bad(1, part);
        ds4(&["tokens", "-m", model, "-p", "hi"]).bad(1, part);
    }
}

#[test]
fn a_file_name_cannot_break_the_line() {
    ds4(&["inspect", "/no\nwhere\x1b[31m"]).bad(1, "/no where [31m");
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let mut child =
        program(&["run", "-p", "hi", "-n", "2000", "--logit-bias", "1=-inf"]).spawn().unwrap();
    drop(child.stdout.take());
    assert!(child.wait().unwrap().success());
}

#[test]
fn without_a_model_it_says_which_one_speaks() {
    let mut command = program(&["run", "-p", "hi", "-n", "1"]);
    let output = command.current_dir(folder("without_model")).output().unwrap();
    assert!(output.status.success());
    let err = String::from_utf8(output.stderr).unwrap();
    let first = err.lines().next().unwrap();
    assert!(first.starts_with("ds4: Nano, ") && first.contains("a demonstration"), "{err}");
    assert!(first.contains("`ds4 pull flash` gets the real one"));
}

#[test]
fn a_model_in_the_current_directory_is_found() {
    let folder = folder("with_model");
    fs::copy(fixture(PLAIN_MODEL), folder.join("ds4flash.gguf")).unwrap();
    let output = program(&["--inspect"]).current_dir(&folder).output().unwrap();
    assert!(output.status.success());
    assert!(String::from_utf8(output.stdout).unwrap().contains("ds4flash.gguf"));
}
