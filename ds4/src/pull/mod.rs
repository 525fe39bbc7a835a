//! `ds4 pull`: the published files, fetched whole or not at all. A file gets its name when its bytes
//! have the size and the SHA-256 of the published one; who sent them does not matter.

mod catalogue;
mod check;
mod link;
mod remote;
#[cfg(test)]
mod test_server;
mod transfer;

use std::{
    io::{ErrorKind, Write},
    path::Path,
    time::Duration,
};

use ds4_host::free_disk_bytes;
use ureq::Agent;

pub use catalogue::Entry;
pub use remote::{Remote, Token};

use crate::{
    fault::Fault,
    plan::DEFAULT_MODEL,
    term::{Class, Term, human_bytes},
};
use catalogue::{CATALOGUE, Part};
use link::Linked;
use remote::Stop;
use transfer::{Fetched, Job, Patience};

/// A server that says nothing for so long has forgotten us.
const SILENCE: Duration = Duration::from_secs(60);

/// Prints what there is to fetch.
pub fn list(out: &mut dyn Write) -> Result<(), Fault> {
    let named = |entry: &Entry| match entry.aliases {
        [] => entry.name.to_owned(),
        aliases => format!("{} ({})", entry.name, aliases.join(", ")),
    };
    let width = CATALOGUE.iter().map(|entry| named(entry).len()).max().unwrap_or(0);
    for part in [Part::Model, Part::Later] {
        if part == Part::Later {
            writeln!(out, "\nnot used by this version of ds4:")?;
        }
        for entry in CATALOGUE.iter().filter(|entry| entry.part == part) {
            let (name, size) = (named(entry), human_bytes(entry.bytes()));
            writeln!(out, "{name:<width$}  {size:>10}  {}", entry.about)?;
        }
    }
    Ok(out.flush()?)
}

/// The names of everything that runs, for a message.
pub fn names() -> String {
    let names: Vec<&str> = CATALOGUE.iter().map(|entry| entry.name).collect();
    names.join(", ")
}

/// Fetches an entry, and makes it the default model if it is one.
pub fn fetch(entry: &Entry, remote: &Remote, folder: &Path, term: Term) -> Result<(), Fault> {
    let agent = agent(SILENCE);
    for (place, file) in entry.files.iter().enumerate() {
        let url = remote.url(entry.repo, file.name).map_err(|stop| match stop {
            Stop::Never(why) | Stop::Again { why, .. } => Fault::failed(why),
        })?;
        let label = match entry.files.len() {
            1 => entry.name.to_owned(),
            files => format!("{} ({} of {files})", entry.name, place + 1),
        };
        let target = folder.join(file.name);
        let size = human_bytes(file.size.bytes());
        term.say(Class::Plain, &format!("{label}: {size}, {}", remote::shown(&url)));
        let job = Job {
            agent: &agent,
            remote,
            url,
            file,
            folder,
            patience: Patience::USUAL,
            room: free_disk_bytes,
            label: &label,
            term,
        };
        let line = match transfer::fetch(&job)? {
            Fetched::Now => format!("{}: whole, its SHA-256 is right", target.display()),
            Fetched::AlreadyThere => format!("{}: already there", target.display()),
        };
        term.say(Class::Plain, &line);
    }
    match (entry.part, entry.files.first()) {
        (Part::Model, Some(file)) => make_default(&folder.join(file.name), term),
        _ => {
            let name = entry.name;
            term.say(Class::Warning, &format!("{name}: this version of ds4 has no use for it yet"));
            Ok(())
        }
    }
}

/// One that reports every answer as it is: redirects and refusals are for [`remote`] to judge.
fn agent(silence: Duration) -> Agent {
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_idle_connections(0)
        .timeout_connect(Some(silence))
        .timeout_per_read(Some(silence))
        .user_agent(concat!("ds4/", env!("CARGO_PKG_VERSION")));
    config.build().into()
}

fn make_default(model: &Path, term: Term) -> Result<(), Fault> {
    let shown = model.display();
    let link = Path::new(DEFAULT_MODEL);
    let line = match link::link(model, link) {
        Ok(Linked::Done) => format!("{DEFAULT_MODEL} leads to it: `ds4` runs it in this directory"),
        Ok(Linked::FileInTheWay) => format!("{DEFAULT_MODEL} is a file, and stays; use -m {shown}"),
        Err(error) if error.kind() == ErrorKind::Unsupported => format!("use it with -m {shown}"),
        Err(error) => {
            return Err(Fault::failed(format!("{DEFAULT_MODEL}: {error}; use -m {shown}")));
        }
    };
    term.say(Class::Plain, &line);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{fs, ops::Deref, path::PathBuf};

    use super::*;

    /// A new empty folder, for as long as a test has it.
    pub struct Folder(PathBuf);

    pub fn folder(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("ds4-pull-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    impl Deref for Folder {
        type Target = Path;

        fn deref(&self) -> &Path {
            &self.0
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn the_list_has_everything_in_lines_that_fit() {
        let mut out = Vec::new();
        list(&mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        for entry in CATALOGUE {
            assert!(text.contains(&format!("{} ", entry.name)), "{}", entry.name);
        }
        assert!(text.lines().all(|line| line.len() <= 120), "{text}");
        assert!(text.starts_with("ds4f-q2 (flash, q2) "), "{text}");
    }
}
