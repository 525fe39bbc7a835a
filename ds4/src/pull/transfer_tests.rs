//! Fetching from servers that break, lie and send wrong bytes.

use std::{
    env,
    process::{Command, Stdio},
    sync::OnceLock,
};

use super::*;
use crate::pull::{
    agent,
    catalogue::Size,
    remote::Token,
    test_server::{Reply, Request, Server},
    tests::{Folder, folder},
};

const TERM: Term = Term { out_is_terminal: false, err_is_terminal: false, colours_wanted: false };
const QUICK: Patience = Patience {
    failures: 3,
    first_pause: Duration::from_millis(1),
    longest_pause: Duration::from_millis(5),
};

/// The file that the servers have: larger than a buffer, and no two parts of it alike.
fn bytes() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| {
        let words = (0..700_000u32).map(|i| i.wrapping_mul(2_654_435_761).rotate_left(7));
        words.flat_map(u32::to_le_bytes).collect()
    })
}

/// The same file, as a catalogue knows it.
fn file() -> catalogue::File {
    static HASH: OnceLock<String> = OnceLock::new();
    let hash = HASH.get_or_init(|| check::sha256(&mut &bytes()[..], &mut |_| {}).unwrap());
    catalogue::File { name: "model.gguf", size: Size::Exactly(bytes().len() as u64), sha256: hash }
}

/// Fetches `file` from `server` into `folder`.
fn fetch_as(
    file: &catalogue::File,
    url: &str,
    folder: &Path,
    token: &str,
) -> Result<Fetched, Fault> {
    let remote = Remote::new(url, Token::new(token)).unwrap();
    fetch(&Job {
        agent: &agent(Duration::from_millis(1500)),
        url: remote.url("who/what", file.name).unwrap_or_else(|stop| panic!("{stop:?}")),
        remote: &remote,
        file,
        folder,
        patience: QUICK,
        room: |_| None,
        label: "test",
        term: TERM,
    })
}

fn fetch_from(server: &Server, folder: &Path) -> Result<Fetched, Fault> {
    fetch_as(&file(), &server.url(), folder, "")
}

/// The right bytes stand under the right name, and nothing beside them.
#[track_caller]
fn is_whole(folder: &Path) {
    assert!(fs::read(folder.join("model.gguf")).unwrap() == bytes(), "wrong bytes");
    assert_eq!(fs::read_dir(folder).unwrap().count(), 1, "something is left over");
}

/// Nothing stands under the final name, and the refusal has `part` in it.
#[track_caller]
fn is_refused(result: Result<Fetched, Fault>, folder: &Path, part: &str) {
    match result {
        Err(Fault::Failed(why)) if why.contains(part) => {}
        other => panic!("should fail with {part:?}: {other:?}"),
    }
    assert!(!folder.join("model.gguf").exists());
}

/// Leaves `part` behind, as an earlier run might have.
fn half_done(name: &str, part: &[u8]) -> Folder {
    let folder = folder(name);
    fs::write(folder.join("model.gguf.part"), part).unwrap();
    folder
}

#[test]
fn a_file_comes_whole_and_is_not_fetched_twice() {
    let home = folder("whole");
    let folder = home.join("made/for/it");
    let server = Server::start(|_, request| Reply::honest(request, bytes()));
    assert_eq!(fetch_from(&server, &folder), Ok(Fetched::Now));
    is_whole(&folder);
    assert_eq!(fetch_from(&server, &folder), Ok(Fetched::AlreadyThere));
    let seen = server.seen();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].path, "/who/what/resolve/main/model.gguf");
    assert!(seen[0].header("user-agent").unwrap().starts_with("ds4/"));
}

#[test]
fn broken_connections_are_gone_on_with() {
    let folder = folder("broken");
    let server = Server::start(|number, request| {
        let reply = Reply::honest(request, bytes());
        if number < 9 { reply.breaking_after(300_000 + number) } else { reply }
    });
    assert_eq!(fetch_from(&server, &folder), Ok(Fetched::Now));
    is_whole(&folder);
    let starts: Vec<_> = server.seen().iter().map(Request::from).collect();
    assert_eq!(starts[..3], [None, Some(300_000), Some(600_001)]);
    assert_eq!(starts.len(), 10, "each time it got further, so it never gave up");
}

#[test]
fn silence_is_a_broken_connection() {
    let folder = folder("silence");
    let server = Server::start(|number, request| {
        let reply = Reply::honest(request, bytes());
        if number == 0 { reply.hanging_after(1_500_000) } else { reply }
    });
    assert_eq!(fetch_from(&server, &folder), Ok(Fetched::Now));
    is_whole(&folder);
    assert_eq!(server.seen()[1].from(), Some(1_500_000));
}

#[test]
fn a_connection_that_never_gets_anywhere_is_given_up() {
    let folder = half_done("stuck", &bytes()[..1000]);
    let server = Server::start(|_, request| Reply::honest(request, bytes()).breaking_after(0));
    is_refused(fetch_from(&server, &folder), &folder, "gave up after 3 tries");
    assert_eq!(server.seen().len(), 3);
    assert_eq!(fs::read(folder.join("model.gguf.part")).unwrap(), &bytes()[..1000], "kept");
}

#[test]
fn what_an_earlier_run_got_is_kept() {
    let folder = half_done("resume", &bytes()[..1_234_567]);
    let server = Server::start(|_, request| Reply::honest(request, bytes()));
    assert_eq!(fetch_from(&server, &folder), Ok(Fetched::Now));
    is_whole(&folder);
    assert_eq!(server.seen().iter().map(Request::from).collect::<Vec<_>>(), [Some(1_234_567)]);
}

#[test]
fn a_run_that_ended_before_the_last_step_needs_no_server() {
    let folder = half_done("complete", bytes());
    assert_eq!(fetch_as(&file(), "http://127.0.0.1:1", &folder, ""), Ok(Fetched::Now));
    is_whole(&folder);
}

#[test]
fn a_part_longer_than_the_file_is_none() {
    let folder = half_done("longer", &[bytes(), b"more"].concat());
    let server = Server::start(|_, request| Reply::honest(request, bytes()));
    assert_eq!(fetch_from(&server, &folder), Ok(Fetched::Now));
    is_whole(&folder);
}

#[test]
fn a_server_without_ranges_begins_at_the_beginning_and_nothing_is_lost() {
    let folder = half_done("no_ranges", &bytes()[..1_000_000]);
    let server = Server::start(|number, _| {
        let reply = Reply::whole(bytes());
        match number {
            0 => reply.breaking_after(2_000_000),
            1 => reply.breaking_after(500_000),
            _ => reply,
        }
    });
    assert_eq!(fetch_from(&server, &folder), Ok(Fetched::Now));
    is_whole(&folder);
    let starts: Vec<_> = server.seen().iter().map(Request::from).collect();
    assert_eq!(starts, [Some(1_000_000), Some(2_000_000), Some(2_000_000)]);
}

#[test]
fn a_server_may_give_less_than_was_asked_for() {
    let folder = half_done("slices", &bytes()[..1]);
    let server = Server::start(|_, request| {
        let (from, total) = (request.from().unwrap(), bytes().len());
        let end = (from + 1_000_000).min(total);
        let range = format!("bytes {from}-{}/{total}", end - 1);
        Reply::honest(request, &bytes()[..end]).with("Content-Range", &range)
    });
    assert_eq!(fetch_from(&server, &folder), Ok(Fetched::Now));
    is_whole(&folder);
    assert_eq!(server.seen().len(), 3);
}

#[test]
fn lies_about_ranges_and_lengths_are_not_believed() {
    let total = bytes().len();
    for (name, header, value) in [
        ("other_start", "Content-Range", format!("bytes 0-{}/{total}", total - 1)),
        ("later_start", "Content-Range", format!("bytes 1001-{}/{total}", total - 1)),
        ("backwards", "Content-Range", format!("bytes 1000-999/{total}")),
        ("beyond", "Content-Range", format!("bytes 1000-{total}/{total}")),
        ("no_range", "Content-Range", "pages 3-5".into()),
        ("short", "Content-Length", "17".into()),
        ("linked", "X-Linked-Size", "17".into()),
    ] {
        let folder = half_done(name, &bytes()[..1000]);
        let server =
            Server::start(move |_, request| Reply::honest(request, bytes()).with(header, &value));
        is_refused(fetch_from(&server, &folder), &folder, "gave up after 3 tries");
        assert_eq!(fs::read(folder.join("model.gguf.part")).unwrap(), &bytes()[..1000], "{name}");
    }
}

#[test]
fn a_lie_that_passes_does_no_harm() {
    let folder = half_done("passing", &bytes()[..1000]);
    let server = Server::start(|number, request| match number {
        0 => Reply::honest(request, bytes()).with("Content-Range", "bytes 5-6/7"),
        1 => Reply::status(416),
        _ => Reply::honest(request, bytes()),
    });
    assert_eq!(fetch_from(&server, &folder), Ok(Fetched::Now));
    is_whole(&folder);
}

#[test]
fn the_wrong_file_is_refused_before_it_is_fetched() {
    let folder = folder("wrong_file");
    let server = Server::start(|_, _| Reply::whole(b"<html>Welcome to this hotel's network"));
    is_refused(fetch_from(&server, &folder), &folder, "offers 37 bytes, the published file has");
    let server = Server::start(|_, request| {
        let hash = format!("\"{}\"", "ab".repeat(32));
        Reply::honest(request, bytes()).with("X-Linked-Etag", &hash)
    });
    is_refused(fetch_from(&server, &folder), &folder, "offers a file of SHA-256 abab");
    assert_eq!(fs::metadata(folder.join("model.gguf.part")).unwrap().len(), 0);
}

#[test]
fn wrong_bytes_never_get_the_name() {
    let folder = folder("wrong_bytes");
    let server = Server::start(|_, request| {
        let mut wrong = bytes().to_vec();
        wrong[2_000_000] ^= 1;
        Reply::honest(request, &wrong).with("X-Linked-Etag", &format!("\"{}\"", file().sha256))
    });
    is_refused(fetch_from(&server, &folder), &folder, "it was deleted");
    assert_eq!(fs::read_dir(&*folder).unwrap().count(), 0);
}

#[test]
fn a_size_that_is_only_about_known_is_settled_by_the_server() {
    let about = catalogue::File { size: Size::About(bytes().len() as u64 - 1000), ..file() };
    let server = Server::start(|_, request| Reply::honest(request, bytes()));
    let begun = half_done("about", &bytes()[..77]);
    assert_eq!(fetch_as(&about, &server.url(), &begun, ""), Ok(Fetched::Now));
    is_whole(&begun);
    let done = half_done("about_done", bytes());
    assert_eq!(fetch_as(&about, &server.url(), &done, ""), Ok(Fetched::Now));
    is_whole(&done);
    let far = catalogue::File { size: Size::About(1 << 40), ..file() };
    let folder = folder("about_far");
    is_refused(fetch_as(&far, &server.url(), &folder, ""), &folder, "the published file has");
}

#[test]
fn redirects_are_followed_and_other_hosts_get_no_token() {
    let folder = folder("redirect");
    let store = Server::start(|number, request| {
        let reply = Reply::honest(request, bytes());
        if number == 0 { reply.breaking_after(10) } else { reply }
    });
    let to = format!("{}/cdn/blob?signature=x", store.url());
    let hub = Server::start(move |number, request| match request.path.as_str() {
        "/moved/model.gguf" => Reply::redirect(&to)
            .with("X-Linked-Size", &bytes().len().to_string())
            .with("X-Linked-Etag", &format!("\"{}\"", file().sha256)),
        _ if number < 100 => Reply::redirect("/moved/model.gguf"),
        _ => Reply::status(500),
    });
    assert_eq!(fetch_as(&file(), &hub.url(), &folder, "hf_secret"), Ok(Fetched::Now));
    is_whole(&folder);
    let secret = |request: &Request| request.header("authorization").map(str::to_owned);
    let told: Vec<_> = hub.seen().iter().map(secret).collect();
    assert_eq!(told, vec![Some("Bearer hf_secret".to_owned()); 4]);
    assert_eq!(store.seen().iter().map(secret).collect::<Vec<_>>(), [None, None]);
    // Each try starts at the hub, as what it redirects to is good for a while only.
    assert_eq!(store.seen()[1].from(), Some(10));
}

#[test]
fn redirects_have_an_end() {
    let folder = folder("circle");
    let server = Server::start(|_, _| Reply::redirect("/again"));
    is_refused(fetch_from(&server, &folder), &folder, "redirects");
    let server = Server::start(|_, _| Reply::redirect("file:///etc/passwd"));
    is_refused(fetch_from(&server, &folder), &folder, "redirects to nowhere");
}

#[test]
fn refusals_say_what_to_do() {
    let folder = folder("refusals");
    for (status, token, part) in [
        (401, "", "wants a token; give one with --token or in HF_TOKEN (401)"),
        (403, "hf_x", "does not accept the token (403)"),
        (404, "", "no such file (404)"),
        (418, "", "(418)"),
    ] {
        let server = Server::start(move |_, _| Reply::status(status));
        is_refused(fetch_as(&file(), &server.url(), &folder, token), &folder, part);
        assert_eq!(server.seen().len(), 1, "{status}: asked again");
    }
}

#[test]
fn a_busy_server_is_asked_again() {
    let folder = folder("busy");
    let server = Server::start(|number, request| match number {
        0 => Reply::status(503).with("Retry-After", "0"),
        1 => Reply::status(429),
        _ => Reply::honest(request, bytes()),
    });
    assert_eq!(fetch_from(&server, &folder), Ok(Fetched::Now));
    is_whole(&folder);
    let server = Server::start(|_, _| Reply::status(503));
    let folder = self::folder("always_busy");
    is_refused(fetch_from(&server, &folder), &folder, "busy (503); gave up after 3 tries");
}

#[test]
fn pauses_grow_and_servers_cannot_make_them_endless() {
    let patience = Patience::USUAL;
    let pauses: Vec<_> = (1..=5).map(|n| patience.pause(n, None).as_secs()).collect();
    assert_eq!(pauses, [1, 2, 4, 8, 16]);
    assert_eq!(patience.pause(1, Some(Duration::from_secs(7))).as_secs(), 7);
    assert_eq!(patience.pause(1, Some(Duration::from_secs(1 << 40))), patience.longest_pause);
    assert_eq!(patience.pause(u32::MAX, None), patience.longest_pause);
}

#[test]
fn a_full_disk_is_noticed_before() {
    let folder = half_done("full", &bytes()[..1_000_000]);
    let server = Server::start(|_, request| Reply::honest(request, bytes()));
    let remote = Remote::new(&server.url(), None).unwrap();
    let mut job = Job {
        agent: &agent(Duration::from_secs(5)),
        url: remote.url("who/what", "model.gguf").unwrap_or_else(|stop| panic!("{stop:?}")),
        remote: &remote,
        file: &file(),
        folder: &folder,
        patience: QUICK,
        room: |_| Some(1_799_999),
        label: "test",
        term: TERM,
    };
    is_refused(fetch(&job), &folder, "1.72 MiB more are needed, 1.72 MiB are free; --dir");
    job.room = |_| Some(1_800_000);
    assert_eq!(fetch(&job), Ok(Fetched::Now));
    is_whole(&folder);
}

#[test]
fn other_peoples_files_are_left_alone() {
    let folder = folder("other");
    let server = Server::start(|_, request| Reply::honest(request, bytes()));
    fs::write(folder.join("model.gguf"), "something").unwrap();
    let refused = fetch_from(&server, &folder);
    assert!(
        matches!(&refused, Err(Fault::Failed(why)) if why.contains("move it away")),
        "{refused:?}"
    );
    assert_eq!(fs::read(folder.join("model.gguf")).unwrap(), b"something");
    // Another downloader gives a file its size at once and fills it later.
    fs::write(folder.join("model.gguf"), bytes()).unwrap();
    fs::write(folder.join("model.gguf.aria2"), "").unwrap();
    let refused = fetch_from(&server, &folder);
    assert!(matches!(&refused, Err(Fault::Failed(why)) if why.contains("aria2")), "{refused:?}");
    assert!(server.seen().is_empty());
}

#[test]
fn two_runs_do_not_write_one_file() {
    let folder = half_done("locked", b"");
    let held = Part::open(folder.join("model.gguf.part")).unwrap();
    let server = Server::start(|_, request| Reply::honest(request, bytes()));
    is_refused(fetch_from(&server, &folder), &folder, "another ds4");
    drop(held);
    assert_eq!(fetch_from(&server, &folder), Ok(Fetched::Now));
}

/// What the process does that the next test kills: the same as here, told by the environment.
#[test]
fn in_another_process() {
    if let (Some(url), Some(folder)) = (env::var_os("PULL_FROM"), env::var_os("PULL_TO")) {
        let _ = fetch_as(&file(), &url.into_string().unwrap(), Path::new(&folder), "");
    }
}

#[test]
fn a_killed_run_is_gone_on_with() {
    let folder = folder("killed");
    let server = Server::start(|number, request| {
        let reply = Reply::honest(request, bytes());
        if number == 0 { reply.hanging_after(1_700_000) } else { reply }
    });
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["in_another_process", "--test-threads=1"])
        .env("PULL_FROM", server.url())
        .env("PULL_TO", &*folder)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let part = folder.join("model.gguf.part");
    let written = || fs::metadata(&part).map_or(0, |facts| facts.len());
    let began = Instant::now();
    // One buffer at least; the server then waits, but the client's patience is short too.
    while written() < 1_000_000 && began.elapsed() < Duration::from_secs(20) {
        thread::sleep(Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let begun = written() as usize;
    assert!((1_000_000..bytes().len()).contains(&begun), "{begun} bytes before the end");
    assert_eq!(fetch_from(&server, &folder), Ok(Fetched::Now));
    is_whole(&folder);
    assert_eq!(server.seen().last().and_then(Request::from), Some(begun));
}
