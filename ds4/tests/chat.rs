//! A chat through pipes: what is typed goes in, answers come out, and Ctrl-C is a signal.

mod program;

use std::{
    io::{BufRead, BufReader, Read, Write},
    process::{Child, ChildStderr, ChildStdin, Command, Stdio},
    thread,
};

use program::{PLAIN_MODEL, ds4, ds4_with_input, fixture, folder, program};

/// Answers of a fixed length that nothing but their tokens decides.
const STEADY: [&str; 7] = ["chat", "-n", "8", "--seed", "5", "--logit-bias", "1=-inf"];

fn chat(args: &[&str], typed: &str) -> program::Run {
    ds4_with_input(&[&STEADY[..], args].concat(), typed.as_bytes()).good()
}

/// How many tokens each turn found evaluated already.
fn reused(run: &program::Run) -> Vec<usize> {
    let counts = run.err.lines().filter_map(|line| line.split_once("reused: "));
    counts.map(|(_, rest)| rest.split(' ').next().unwrap().parse().unwrap()).collect()
}

#[test]
fn the_end_of_input_ends_a_chat() {
    let run = chat(&[], "");
    assert!(run.out.is_empty());
    chat(&[], "/quit\nnot read\n");
    chat(&[], "\n  \n/exit\n");
}

#[test]
fn turns_reuse_what_is_evaluated() {
    let run = chat(&[], "hello\nmore\nand more\n");
    let reused = reused(&run);
    assert_eq!(reused.len(), 3);
    assert_eq!(reused[0], 0);
    // Everything said so far: the prompt of the first turn and its answer of 8, and so on.
    assert!(reused[1] > 8 && reused[2] > reused[1] + 8, "{reused:?}");
}

#[test]
fn commands_work_and_wrong_ones_do_no_harm() {
    let run = chat(
        &[],
        "/help\n/bogus\n/ctx x\n/read /nowhere\n/load /nowhere\n/save\nhello\n/stats\n/quit\n",
    );
    for part in ["/bogus: unknown", "/ctx: `x`", "/nowhere", "/save: needs a file"] {
        assert!(run.err.contains(part), "{part}: {run:?}");
    }
    assert!(run.out.contains("/think-max"), "{run:?}");
    assert!(run.out.contains("messages   2"), "{run:?}");
}

#[test]
fn thinking_can_be_changed_between_turns() {
    let run = chat(&[], "/nothink\n/think\n/think-max\n/stats\nhello\n");
    assert!(run.err.contains("thinking: nothink") && run.err.contains("thinking: think\n"));
    assert!(run.err.contains("plain thinking instead of --think-max"), "{run:?}");
    let one_shot =
        ["run", "-p", "hello", "--nothink", "-n", "8", "--seed", "5", "--logit-bias", "1=-inf"];
    assert_eq!(chat(&[], "/nothink\nhello\n").out, ds4(&one_shot).good().out);
}

#[test]
fn a_file_can_be_said() {
    let path = folder("read").join("question.txt");
    std::fs::write(&path, "hello").unwrap();
    let said = chat(&[], &format!("/read {}\n", path.display()));
    assert_eq!(said.out, chat(&[], "hello\n").out);
}

#[test]
fn another_context_keeps_the_conversation() {
    let run = chat(&[], "hello\n/ctx 400\nmore\n");
    assert_eq!(reused(&run), [0, 0]);
    assert_eq!(run.out, chat(&[], "hello\nmore\n").out);
    // What no longer fits is refused, and the chat goes on.
    let run = chat(&[], "hello\n/ctx 20\nmore\n/ctx 400\nmore\n");
    assert!(run.err.contains("a context of 20 has no room"), "{run:?}");
    assert_eq!(run.out, chat(&[], "hello\nmore\n").out);
}

#[test]
fn a_saved_chat_goes_on_exactly() {
    let path = folder("saved").join("talk.chat");
    let path = path.display();
    let whole = chat(&["--nothink"], "hello\nmore\nand more\n");
    let first = chat(&["--nothink"], &format!("hello\nmore\n/save {path}\n"));
    // Another seed and another mode: those of the saved chat count.
    let second = ds4_with_input(
        &["chat", "-n", "8", "--seed", "99", "--logit-bias", "1=-inf"],
        format!("/load {path}\nand more\n").as_bytes(),
    )
    .good();
    assert_eq!(format!("{}{}", first.out, second.out), whole.out);
    assert!(reused(&second)[0] > 16, "the state was not taken: {second:?}");
    // Another model must not take it.
    let other = fixture(PLAIN_MODEL);
    let run = ds4_with_input(&["chat", "-m", &other], format!("/load {path}\n").as_bytes()).good();
    assert!(!run.err.contains("going on"), "{run:?}");
    assert!(run.err.lines().last().unwrap().contains("talk.chat"), "{run:?}");
}

#[test]
fn damaged_saves_are_refused() {
    let folder = folder("damaged");
    let path = folder.join("talk.chat");
    chat(&[], &format!("hello\n/save {}\n", path.display()));
    let whole = std::fs::read(&path).unwrap();
    let line = whole.iter().position(|byte| *byte == b'\n').unwrap();
    let mut flipped = whole.clone();
    flipped[whole.len() - 100] ^= 1;
    for (name, bytes) in [
        ("cut", &whole[..whole.len() - 1]),
        ("header_only", &whole[..=line]),
        ("half_header", &whole[..line / 2]),
        ("flipped", &flipped),
        ("empty", &[]),
    ] {
        let path = folder.join(name);
        std::fs::write(&path, bytes).unwrap();
        let run = chat(&[], &format!("/load {}\nhello\n", path.display()));
        assert!(run.err.contains(&format!("{}: ", path.display())), "{name}: {run:?}");
        assert!(!run.err.contains("going on"), "{name}: {run:?}");
        assert_eq!(run.out, chat(&[], "hello\n").out, "{name}");
    }
}

/// A chat that runs while the test looks at it.
struct Live {
    child: Child,
    stdin: ChildStdin,
    stderr: BufReader<ChildStderr>,
}

impl Live {
    fn start(args: &[&str]) -> Live {
        let mut child = program(args).stdin(Stdio::piped()).spawn().unwrap();
        let stdin = child.stdin.take().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        Live { child, stdin, stderr }
    }

    fn type_line(&mut self, line: &str) {
        writeln!(self.stdin, "{line}").unwrap();
    }

    fn wait_for(&mut self, part: &str) {
        let mut line = String::new();
        loop {
            line.clear();
            let count = self.stderr.read_line(&mut line).unwrap();
            assert_ne!(count, 0, "the chat ended without saying {part:?}");
            if line.contains(part) {
                return;
            }
        }
    }

    /// What Ctrl-C sends.
    fn interrupt(&self) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-INT", &id]).status().unwrap().success());
    }

    fn finish(mut self) {
        self.type_line("/quit");
        assert!(self.child.wait().unwrap().success());
    }
}

#[test]
fn an_interrupt_stops_the_answer_and_keeps_the_chat() {
    let mut live = Live::start(&["chat", "-n", "30000", "--seed", "5", "--logit-bias", "1=-inf"]);
    let mut stdout = live.child.stdout.take().unwrap();
    live.type_line("hello");
    let mut some = [0; 64];
    stdout.read_exact(&mut some).unwrap();
    let drain = thread::spawn(move || std::io::copy(&mut stdout, &mut std::io::sink()));
    live.interrupt();
    live.wait_for("what was said stays");
    live.type_line("/ctx 32768");
    live.wait_for("context 32768");
    // The prompt takes no signal amiss.
    live.interrupt();
    live.finish();
    drain.join().unwrap().unwrap();
}

#[test]
fn an_interrupt_stops_the_reading_of_a_prompt_and_takes_it_back() {
    let path = folder("long").join("long.txt");
    std::fs::write(&path, "many different words, 12345; ".repeat(1500)).unwrap();
    let mut live = Live::start(&["chat", "-n", "8", "--prefill-chunk", "16"]);
    live.type_line(&format!("/read {}", path.display()));
    live.wait_for("reading ");
    live.interrupt();
    live.wait_for("the message is taken back");
    live.type_line("/stats");
    live.finish();
}
