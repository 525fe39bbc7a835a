//! `ds4 chat`: the loop between a person and a model. Lines come from `lines`, what they ask for is
//! told by `request`, the conversation is in `talk`, and `saved` keeps it in a file.

mod lines;
mod request;
mod saved;
mod talk;

use std::{
    fs,
    io::{self, Write},
    path::Path,
    sync::{Arc, atomic::AtomicBool},
};

use ds4_prompt::Thinking;
use signal_hook::{consts::SIGINT, flag};

use self::{
    lines::{Input, Lines},
    request::Request,
    talk::Talk,
};
use crate::{
    fault::Fault,
    flags::help::CHAT_COMMANDS,
    load,
    plan::{self, Answer, Manner, Setup},
    render,
    term::{Class, Term},
};

pub fn run(
    setup: &Setup,
    manner: Manner,
    answer: &Answer,
    out: &mut dyn Write,
    term: Term,
) -> Result<(), Fault> {
    let loaded = load::load(setup, term)?;
    render::need_markers(&loaded)?;
    // From here on Ctrl-C stops an answer, not the program.
    let stop = Arc::new(AtomicBool::new(false));
    flag::register(SIGINT, Arc::clone(&stop))
        .map_err(|error| Fault::failed(format!("cannot catch Ctrl-C: {error}")))?;
    let mut talk = Talk::new(loaded, manner, answer, stop, term)?;
    if term.err_is_terminal {
        term.say(
            Class::Plain,
            "/help lists what can be typed besides text; Ctrl-C stops an answer",
        );
    }
    let mut lines = Lines::of_this_process(term);
    loop {
        let line = match lines.next("ds4> ") {
            Input::Line(line) => line,
            Input::Interrupted => continue,
            Input::End => return Ok(()),
        };
        let request = match Request::of(&line) {
            Ok(Some(Request::Quit)) => return Ok(()),
            Ok(Some(request)) => request,
            Ok(None) => continue,
            Err(problem) => {
                term.say(Class::Warning, &problem);
                continue;
            }
        };
        match serve(&mut talk, request, out, term) {
            Ok(()) => {}
            Err(Fault::Closed) => return Err(Fault::Closed),
            // One thing that cannot be done is no reason to lose a conversation.
            Err(fault) => {
                term.say(Class::Error, &fault.message().unwrap_or_default());
            }
        }
    }
}

fn serve(talk: &mut Talk, request: Request, out: &mut dyn Write, term: Term) -> Result<(), Fault> {
    match request {
        Request::Say(text) => talk.answer(&text, out),
        Request::Read(path) => talk.answer(&read(&path)?, out),
        Request::Think(thinking) => {
            talk.think(thinking);
            Ok(())
        }
        Request::Context(context) => talk.set_context(context),
        Request::Stats => Ok(talk.write_stats(out)?),
        Request::Save(path) => {
            talk.save(&path)?;
            term.say(Class::Plain, &format!("saved to {}", path.display()));
            Ok(())
        }
        Request::Load(path) => {
            talk.load(&path)?;
            term.say(Class::Plain, &format!("going on with {}", path.display()));
            Ok(())
        }
        Request::Help => Ok(write_help(out)?),
        // The loop has seen to it.
        Request::Quit => Ok(()),
    }
}

fn read(path: &Path) -> Result<String, Fault> {
    let bytes =
        fs::read(path).map_err(|error| Fault::failed(format!("{}: {error}", path.display())))?;
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        Fault::failed(format!("{}: not UTF-8 text at byte {at}", path.display()))
    })
}

fn write_help(out: &mut dyn Write) -> io::Result<()> {
    for (name, doc) in CHAT_COMMANDS {
        writeln!(out, "  {name:<14}{doc}")?;
    }
    out.flush()
}

/// The name of a mode, as the chat commands have it.
fn thinking_name(thinking: Thinking) -> &'static str {
    match thinking {
        Thinking::Off => "nothink",
        Thinking::On => "think",
        Thinking::Max => "think-max",
    }
}

/// The mode with this name.
fn thinking_from_name(name: &str) -> Option<Thinking> {
    [Thinking::Off, Thinking::On, Thinking::Max]
        .into_iter()
        .find(|thinking| thinking_name(*thinking) == name)
}

/// What becomes of a wish to think in a context of this size.
fn settled(requested: Thinking, context: usize) -> (Thinking, String) {
    let setting = plan::thinking(requested, context);
    let line = setting.why.unwrap_or_else(|| thinking_name(setting.effective).to_owned());
    (setting.effective, line)
}
