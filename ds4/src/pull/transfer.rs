//! Fetching one file: beside its final name until it is whole and proven, from where an earlier run
//! stopped, and again after what may pass.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{ErrorKind, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use ureq::{Agent, http::Uri};

use super::{
    catalogue, check,
    remote::{self, Opened, Remote, Stop},
};
use crate::{
    fault::Fault,
    term::{Class, ProgressLine, Term, human_bytes},
};

/// One file to fetch.
pub struct Job<'a> {
    pub agent: &'a Agent,
    pub remote: &'a Remote,
    pub url: Uri,
    pub file: &'a catalogue::File,
    pub folder: &'a Path,
    pub patience: Patience,
    /// The bytes that fit where a path lies, if that is known.
    pub room: fn(&Path) -> Option<u64>,
    /// What the file is called in lines of progress.
    pub label: &'a str,
    pub term: Term,
}

/// How often to try again, and when.
#[derive(Clone, Copy)]
pub struct Patience {
    /// Failures in a row, without a byte in between.
    pub failures: u32,
    pub first_pause: Duration,
    pub longest_pause: Duration,
}

impl Patience {
    pub const USUAL: Patience = Patience {
        failures: 6,
        first_pause: Duration::from_secs(1),
        longest_pause: Duration::from_secs(120),
    };

    fn pause(self, failures: u32, asked: Option<Duration>) -> Duration {
        let doubled = self.first_pause.saturating_mul(1 << failures.saturating_sub(1).min(16));
        asked.unwrap_or(doubled).min(self.longest_pause)
    }
}

/// How it went.
#[derive(Debug, PartialEq, Eq)]
pub enum Fetched {
    Now,
    AlreadyThere,
}

/// Fetches the file, unless it is there.
pub fn fetch(job: &Job<'_>) -> Result<Fetched, Fault> {
    let target = job.folder.join(job.file.name);
    if is_there(job.file, &target)? {
        return Ok(Fetched::AlreadyThere);
    }
    fs::create_dir_all(job.folder).map_err(|error| at(job.folder, error))?;
    let mut part = Part::open(target.with_file_name(format!("{}.part", job.file.name)))?;
    let mut progress = Progress::new(job, part.len);
    let mut total = match job.file.size {
        catalogue::Size::Exactly(total) => Some(total),
        catalogue::Size::About(_) => None,
    };
    if total.is_some_and(|total| part.len > total) {
        let shown = part.path.display();
        job.term.say(Class::Warning, &format!("{shown}: longer than the file, starting again"));
        part.clear()?;
    }
    let mut failures = 0;
    while total != Some(part.len) {
        let before = part.len;
        let stop = match run(job, &mut part, &mut progress) {
            Ok(of) => {
                total = Some(of);
                if part.len > before || part.len == of {
                    continue;
                }
                Stop::again(format!("{}: the server sent nothing", remote::shown(&job.url)))
            }
            Err(stop) => stop,
        };
        progress.line.clear();
        failures = if part.len > before { 1 } else { failures + 1 };
        pause(job, stop, failures)?;
    }
    prove(job, &mut part, &mut progress)?;
    part.rename(&target)?;
    Ok(Fetched::Now)
}

/// Whether the finished file is there. One that cannot be it stays untouched, and nothing is fetched.
fn is_there(file: &catalogue::File, target: &Path) -> Result<bool, Fault> {
    let unfinished = target.with_file_name(format!("{}.aria2", file.name));
    if unfinished.exists() {
        let shown = unfinished.display();
        return Err(Fault::failed(format!("{shown}: aria2 has not finished this file")));
    }
    match fs::metadata(target) {
        Ok(facts) if facts.is_file() && file.size.fits(facts.len()) => Ok(true),
        Ok(facts) => Err(Fault::failed(format!(
            "{}: there is something else of this name, of {} bytes where the published file has {}; \
             move it away",
            target.display(),
            facts.len(),
            file.size.bytes()
        ))),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(at(target, error)),
    }
}

/// One request: reads as much as comes. The bytes of the whole file, if it went well.
fn run(job: &Job<'_>, part: &mut Part, progress: &mut Progress<'_>) -> Result<u64, Stop> {
    let mut opened = remote::open(job.agent, job.remote, &job.url, part.len)?;
    check_offer(job, &opened)?;
    check_room(job, opened.total.saturating_sub(part.len))?;
    // A server that does not continue begins at the beginning; what is there already stays.
    let mut known = part.len.saturating_sub(opened.start);
    let mut left = opened.length;
    let mut buffer = vec![0; 1 << 20];
    while left > 0 {
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let room = buffer.get_mut(..most).unwrap_or_default();
        let read = match opened.body.read(room) {
            Ok(0) => return Err(Stop::again(lost(job, left, "it ended"))),
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(Stop::again(lost(job, left, &error.to_string()))),
        };
        left = left.saturating_sub(read as u64);
        let skipped = known.min(read as u64);
        known -= skipped;
        let new = buffer.get(skipped as usize..read).unwrap_or_default();
        part.append(new).map_err(Stop::Never)?;
        progress.at(part.len, opened.total);
    }
    Ok(opened.total)
}

fn lost(job: &Job<'_>, left: u64, why: &str) -> String {
    let host = job.url.host().unwrap_or_default();
    format!("{host}: the connection broke {} before the end: {why}", human_bytes(left))
}

/// Nobody should wait a day for the wrong file.
fn check_offer(job: &Job<'_>, opened: &Opened) -> Result<(), Stop> {
    let shown = remote::shown(&job.url);
    let file = job.file;
    if !file.size.fits(opened.total) {
        return Err(Stop::Never(format!(
            "{shown}: the server offers {} bytes, the published file has {}",
            opened.total,
            file.size.bytes()
        )));
    }
    match &opened.sha256 {
        Some(hash) if hash != file.sha256 => Err(Stop::Never(format!(
            "{shown}: the server offers a file of SHA-256 {hash}, the published one has {}",
            file.sha256
        ))),
        _ => Ok(()),
    }
}

fn check_room(job: &Job<'_>, needed: u64) -> Result<(), Stop> {
    match (job.room)(job.folder) {
        Some(room) if room < needed => Err(Stop::Never(format!(
            "{}: {} more are needed, {} are free; --dir takes another place",
            job.folder.display(),
            human_bytes(needed),
            human_bytes(room)
        ))),
        _ => Ok(()),
    }
}

/// Waits, or gives up.
fn pause(job: &Job<'_>, stop: Stop, failures: u32) -> Result<(), Fault> {
    let (why, after) = match stop {
        Stop::Never(why) => return Err(Fault::failed(why)),
        Stop::Again { why, after } => (why, after),
    };
    if failures >= job.patience.failures {
        return Err(Fault::failed(format!(
            "{why}; gave up after {failures} tries, the same command goes on from here"
        )));
    }
    let pause = job.patience.pause(failures, after);
    let seconds = pause.as_secs_f64();
    job.term.say(Class::Warning, &format!("{why}; trying again in {seconds:.0} s"));
    thread::sleep(pause);
    Ok(())
}

/// Reads back what was written: a wrong byte may come from the network as well as from the disk.
fn prove(job: &Job<'_>, part: &mut Part, progress: &mut Progress<'_>) -> Result<(), Fault> {
    let total = part.len;
    part.file.seek(SeekFrom::Start(0)).map_err(|error| at(&part.path, error))?;
    let hash = check::sha256(&mut part.file, &mut |done| progress.checked(done, total))
        .map_err(|error| at(&part.path, error))?;
    progress.line.clear();
    if hash == job.file.sha256 {
        return Ok(());
    }
    part.remove()?;
    Err(Fault::failed(format!(
        "{}: what came has SHA-256 {hash}, the published file {}; it was deleted",
        remote::shown(&job.url),
        job.file.sha256
    )))
}

/// The file under its temporary name, which is that of the original's downloader.
struct Part {
    file: File,
    path: PathBuf,
    len: u64,
}

impl Part {
    fn open(path: PathBuf) -> Result<Part, Fault> {
        let file = OpenOptions::new().read(true).append(true).create(true).open(&path);
        let file = file.map_err(|error| at(&path, error))?;
        // Where files cannot be locked, there is one writer less to fear than to serve.
        if let Err(TryLockError::WouldBlock) = file.try_lock() {
            let shown = path.display();
            return Err(Fault::failed(format!("{shown}: another ds4 is fetching this file")));
        }
        let len = file.metadata().map_err(|error| at(&path, error))?.len();
        Ok(Part { file, path, len })
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.file.write_all(bytes).map_err(|error| format!("{}: {error}", self.path.display()))?;
        self.len += bytes.len() as u64;
        Ok(())
    }

    fn clear(&mut self) -> Result<(), Fault> {
        self.file.set_len(0).map_err(|error| at(&self.path, error))?;
        self.len = 0;
        Ok(())
    }

    fn remove(&self) -> Result<(), Fault> {
        fs::remove_file(&self.path).map_err(|error| at(&self.path, error))
    }

    fn rename(self, target: &Path) -> Result<(), Fault> {
        self.file.sync_all().map_err(|error| at(&self.path, error))?;
        fs::rename(&self.path, target).map_err(|error| at(target, error))
    }
}

/// A process that another thread is just starting has the file open too until its program begins, and closing alone
/// would leave the lock with it.
impl Drop for Part {
    fn drop(&mut self) {
        let _ = self.file.unlock();
    }
}

fn at(path: &Path, error: std::io::Error) -> Fault {
    Fault::failed(format!("{}: {error}", path.display()))
}

/// The line that tells how far it is: often on a terminal, rarely in a log.
struct Progress<'a> {
    line: ProgressLine,
    label: &'a str,
    on_terminal: bool,
    began: Instant,
    from: u64,
    told: Option<Instant>,
}

impl<'a> Progress<'a> {
    fn new(job: &Job<'a>, from: u64) -> Progress<'a> {
        Progress {
            line: job.term.progress(),
            label: job.label,
            on_terminal: job.term.err_is_terminal,
            began: Instant::now(),
            from,
            told: None,
        }
    }

    fn at(&mut self, done: u64, total: u64) {
        if !self.due() {
            return;
        }
        let seconds = self.began.elapsed().as_secs_f64().max(1e-3);
        let rate = done.saturating_sub(self.from) as f64 / seconds;
        let mut text = self.share(done, total);
        if rate >= 1.0 {
            let left = Duration::from_secs_f64(total.saturating_sub(done) as f64 / rate);
            text.push_str(&format!(", {}/s, {} left", human_bytes(rate as u64), human_time(left)));
        }
        self.line.show(&text);
    }

    fn checked(&mut self, done: u64, total: u64) {
        if self.due() {
            let text = format!("checking {}", self.share(done, total));
            self.line.show(&text);
        }
    }

    fn share(&self, done: u64, total: u64) -> String {
        let percent = 100 * u128::from(done) / u128::from(total.max(1));
        format!("{}: {} of {} ({percent}%)", self.label, human_bytes(done), human_bytes(total))
    }

    fn due(&mut self) -> bool {
        let every = Duration::from_millis(if self.on_terminal { 200 } else { 30_000 });
        let due = self.told.unwrap_or(self.began).elapsed() >= every;
        if due {
            self.told = Some(Instant::now());
        }
        due
    }
}

fn human_time(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..=99 => format!("{seconds} s"),
        seconds @ 100..=7199 => format!("{} min", seconds / 60),
        seconds => format!("{:.1} h", seconds as f64 / 3600.0),
    }
}

#[cfg(test)]
#[path = "transfer_tests.rs"]
mod tests;
