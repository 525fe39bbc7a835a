//! One test for each family of flags.

use std::ffi::OsString;

use ds4_model::Rounding;
use ds4_prompt::{Profile, Thinking};

use super::*;
use crate::flags::Backend;

fn asked(line: &[&str]) -> Result<Asked, Fault> {
    parse(line.iter().map(OsString::from))
}

fn args(line: &[&str]) -> Args {
    match asked(line) {
        Ok(Asked::Do(args)) => *args,
        other => panic!("{line:?}: {other:?}"),
    }
}

/// Refused with a usage error that has `part` in it.
fn refused(line: &[&str], part: &str) {
    match asked(line) {
        Err(Fault::Usage(message)) if message.contains(part) => {}
        other => panic!("{line:?} should be refused with {part:?}, got {other:?}"),
    }
}

#[test]
fn nothing_typed_is_nothing_asked() {
    assert_eq!(args(&[]), Args::default());
}

#[test]
fn prompts() {
    let typed = args(&["run", "-p", "hello", "-sys", "be brief"]);
    assert_eq!(typed.command, Some(Command::Run));
    assert_eq!(typed.prompt.as_deref(), Some("hello"));
    assert_eq!(typed.system.as_deref(), Some("be brief"));
    assert_eq!(args(&["--prompt=a=b"]).prompt.as_deref(), Some("a=b"));
    assert_eq!(args(&["--prompt="]).prompt.as_deref(), Some(""));
    assert_eq!(args(&["-p", "--nothink"]).prompt.as_deref(), Some("--nothink"));
    assert_eq!(args(&["--system", ""]).system.as_deref(), Some(""));
    assert_eq!(args(&["--prompt-file", "x"]).prompt_file, Some("x".into()));
    assert!(args(&["run", "--raw", "-p", "x"]).raw);
    refused(&["-p"], "-p: needs a value, as in `-p TEXT`");
    refused(&["--prompt-file", ""], "--prompt-file: needs a path");
}

#[test]
fn model_and_runtime() {
    let typed = args(&["-m", "f.gguf", "-c", "4096", "-n", "7", "-t", "2", "--cpu"]);
    assert_eq!(typed.model, Some("f.gguf".into()));
    assert_eq!((typed.context, typed.tokens, typed.threads), (Some(4096), Some(7), Some(2)));
    assert_eq!(args(&["--ctx=1", "--ctx=2"]).context, Some(2));
    assert_eq!(args(&["--prefill-chunk", "64"]).prefill_chunk, Some(64));
    assert!(args(&["--exact"]).exact && args(&["run", "--quality"]).exact && !typed.exact);
    for flag in ["-c", "--ctx", "-n", "--tokens", "-t", "--threads"] {
        for value in ["0", "-1", "x", "1x", "+1", "1.5", "", "99999999999999999999"] {
            refused(&[flag, value], &format!("{flag}: `{value}` is not a whole number from 1"));
        }
    }
    assert_eq!(args(&["--backend", "cpu", "--backend", "auto"]), Args::default());
    assert_eq!(args(&["--backend", "cuda"]), args(&["--cuda"]));
    assert_eq!(args(&["--cpu"]).backend, Backend::Cpu);
    assert_eq!(args(&["--gpu", "1"]).gpu, Some(1));
    refused(&["--backend", "metal"], "not available yet");
    refused(&["--backend", "abacus"], "is no backend");
    refused(&["--cpu=yes"], "--cpu: takes no value");
}

#[test]
fn sampling() {
    let typed = args(&["--temp", "0.6", "--top-p=0.9", "--min-p", "0", "--top-k", "40"]);
    assert_eq!(typed.temperature, Some(0.6));
    assert_eq!(typed.top_p, Some(0.9));
    assert_eq!(typed.min_p, Some(0.0));
    assert_eq!(typed.top_k, Some(40));
    assert_eq!(args(&["--seed", "18446744073709551615"]).seed, Some(u64::MAX));
    for (flag, value) in [
        ("--temp", "-0.1"),
        ("--temp", "nan"),
        ("--temp", "inf"),
        ("--temp", "101"),
        ("--top-p", "1.1"),
        ("--min-p", "x"),
        ("--repetition-penalty", "0"),
    ] {
        refused(&[flag, value], &format!("{flag}: `{value}` is not a number from"));
    }
    refused(&["--seed", "0"], "--seed: `0` is not a whole number from 1 up");
    let typed = args(&["--frequency-penalty", "-0.5", "--presence-penalty=1"]);
    assert_eq!((typed.frequency_penalty, typed.presence_penalty), (Some(-0.5), Some(1.0)));
    let typed = args(&["--repetition-penalty", "1.1", "--penalty-window", "64"]);
    assert_eq!((typed.repetition_penalty, typed.penalty_window), (Some(1.1), Some(64)));
    let typed = args(&["--logit-bias", "1=-inf", "--logit-bias=7=0.5"]);
    assert_eq!(typed.logit_bias, [(1, f32::NEG_INFINITY), (7, 0.5)]);
    for pair in ["1", "1=", "=1", "x=1", "1=nan", "1=inf", "-1=1"] {
        refused(&["--logit-bias", pair], "--logit-bias: ");
    }
}

#[test]
fn thinking() {
    assert_eq!(args(&["--think"]).thinking, Some(Thinking::On));
    assert_eq!(args(&["--think-max"]).thinking, Some(Thinking::Max));
    assert_eq!(args(&["--think", "--nothink"]).thinking, Some(Thinking::Off));
    assert_eq!(args(&["--effort-profile", "preview"]).effort_profile, Some(Profile::Preview));
    assert_eq!(args(&["--effort-profile", "official"]).effort_profile, Some(Profile::Official));
    refused(&["--effort-profile", "hosted"], "--effort-profile: `hosted` is no profile");
}

#[test]
fn diagnostics_by_command_and_by_flag() {
    let typed = args(&["inspect", "f.gguf", "--json", "--check", "--ctx", "8"]);
    assert_eq!(typed.operand, Some("f.gguf".into()));
    assert!(typed.json && typed.check);
    assert_eq!(args(&["--dump-tokens", "--inspect"]).by_flag, [Command::Tokens, Command::Inspect]);
    let typed = args(&["--dump-logprobs", "out.json", "--logprobs-top-k", "3"]);
    assert_eq!(typed.by_flag, [Command::Logprobs]);
    assert_eq!(typed.output, Some("out.json".into()));
    assert_eq!(typed.top_logprobs, Some(3));
    assert_eq!(args(&["--perplexity-file", "t"]).perplexity_file, Some("t".into()));
    assert_eq!(args(&["logits", "-o", "x"]).output, Some("x".into()));
    assert_eq!(args(&["--rounding", "plain"]).rounding, Some(Rounding::Plain));
    refused(&["--rounding", "up"], "--rounding: `up` is no rounding");
    refused(&["--logprobs-top-k", "129"], "from 1 to 128");
}

#[test]
fn a_flag_must_belong_to_the_command() {
    refused(
        &["inspect", "--temp", "1"],
        "--temp: not a flag of `inspect`; it belongs to chat, run",
    );
    refused(&["chat", "-p", "x"], "-p: not a flag of `chat`");
    refused(&["tokens", "--dump-tokens"], "it stands for a command of its own");
    // Without a command everything may stand, as in the original.
    args(&["--dump-tokens", "-p", "x", "--temp", "0"]);
}

#[test]
fn operands() {
    assert_eq!(args(&["-m", "f", "run"]).command, Some(Command::Run));
    assert_eq!(args(&["inspect", "--", "-odd"]).operand, Some("-odd".into()));
    refused(&["inspect", "a", "b"], "`b`: `inspect` takes one FILE");
    refused(&["run", "hello"], "a prompt is given with -p");
    refused(&["hello"], "hello: unknown command");
    refused(&["serve"], "serve: not available yet");
}

#[test]
fn help_wins_over_what_follows() {
    for (line, topic) in [
        (&["--help"][..], None),
        (&["-h", "sampling"], Some("sampling")),
        (&["--help=all"], Some("all")),
        (&["run", "--help"], Some("run")),
        (&["run", "--help", "--temp"], Some("run")),
        (&["help", "inspect"], Some("inspect")),
        (&["help"], None),
        (&["--help", "--nonsense"], None),
    ] {
        assert_eq!(asked(line), Ok(Asked::Help(topic.map(str::to_owned))), "{line:?}");
    }
    assert!(args(&["--version"]).version);
}

#[test]
fn what_comes_later_says_so_at_once() {
    for flag in all().filter(|flag| matches!(flag.action, Action::Later)) {
        let spelled = format!("--{}", flag.long);
        refused(&[&spelled], &format!("{spelled}: not available yet"));
        refused(&[&format!("{spelled}=1")], "not available yet");
    }
}

#[test]
fn unknown_flags_suggest_the_nearest() {
    refused(&["--tmep"], "did you mean --temp?");
    refused(&["--no-think"], "did you mean --nothink?");
    refused(&["-x"], "unknown flag; `ds4 --help all`");
    refused(&["--abracadabra"], "unknown flag; `ds4 --help all`");
}

#[cfg(unix)]
#[test]
fn paths_need_not_be_text_but_prompts_do() {
    use std::os::unix::ffi::OsStringExt;
    let odd = OsString::from_vec(vec![0xff, 0xfe]);
    let asked = parse(["-m".into(), odd.clone()]);
    assert!(matches!(asked, Ok(Asked::Do(args)) if args.model == Some(odd.clone().into())));
    let asked = parse(["-p".into(), odd]);
    assert_eq!(asked, Err(Fault::usage("-p: the value is not UTF-8")));
}
