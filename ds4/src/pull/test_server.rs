//! A web server for tests: it answers each request as it is told to, lies and broken connections included.

#![allow(dead_code, reason = "each test file uses its part")]

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

/// Nothing in a test waits longer.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a client asked for.
#[derive(Clone, Debug)]
pub struct Request {
    pub path: String,
    headers: Vec<(String, String)>,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name));
        found.next().map(|(_, value)| value.as_str())
    }

    /// The first byte that is wanted.
    pub fn from(&self) -> Option<usize> {
        self.header("range")?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
    }
}

/// What it gets.
pub struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    /// Send so many bytes of the body, then break the connection.
    break_after: Option<usize>,
    /// Send so many bytes of the body, then wait for the client to go.
    hang_after: Option<usize>,
}

impl Reply {
    pub fn status(status: u16) -> Reply {
        let body = Vec::new();
        Reply { status, headers: Vec::new(), body, break_after: None, hang_after: None }
            .with("Content-Length", "0")
    }

    /// All of a file, whatever part was asked for.
    pub fn whole(file: &[u8]) -> Reply {
        let reply = Reply { body: file.to_vec(), ..Reply::status(200) };
        reply.with("Content-Length", &file.len().to_string())
    }

    /// What was asked for, as an honest server gives it.
    pub fn honest(request: &Request, file: &[u8]) -> Reply {
        let Some(from) = request.from() else { return Reply::whole(file) };
        let total = file.len();
        if from >= total {
            return Reply::status(416).with("Content-Range", &format!("bytes */{total}"));
        }
        let range = format!("bytes {from}-{}/{total}", total - 1);
        Reply { status: 206, ..Reply::whole(&file[from..]) }.with("Content-Range", &range)
    }

    pub fn redirect(to: &str) -> Reply {
        Reply::status(302).with("Location", to)
    }

    /// Sets a header.
    pub fn with(mut self, name: &str, value: &str) -> Reply {
        self.headers.retain(|(key, _)| key != name);
        self.headers.push((name.into(), value.into()));
        self
    }

    pub fn breaking_after(self, bytes: usize) -> Reply {
        Reply { break_after: Some(bytes), ..self }
    }

    pub fn hanging_after(self, bytes: usize) -> Reply {
        Reply { hang_after: Some(bytes), ..self }
    }

    fn send(&self, mut to: TcpStream) -> io::Result<()> {
        let mut head = format!("HTTP/1.1 {} So\r\nConnection: close\r\n", self.status);
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        to.write_all(format!("{head}\r\n").as_bytes())?;
        let most = self.break_after.or(self.hang_after).unwrap_or(usize::MAX);
        to.write_all(&self.body[..most.min(self.body.len())])?;
        to.flush()?;
        if self.hang_after.is_some() {
            let _ = to.read(&mut [0]);
        }
        Ok(())
    }
}

/// A running server. It ends with its owner.
pub struct Server {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Request>>>,
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Starts one that answers with what `reply` makes of each request and its number, from 0.
    pub fn start(mut reply: impl FnMut(usize, &Request) -> Reply + Send + 'static) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let (seen, end) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (log, stop) = (Arc::clone(&seen), Arc::clone(&end));
        let thread = thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if stop.load(Ordering::SeqCst) {
                    break;
                }
                let Some(request) = read(&stream) else { continue };
                let number = {
                    let mut log = log.lock().expect("no panic");
                    log.push(request.clone());
                    log.len() - 1
                };
                let _ = reply(number, &request).send(stream);
            }
        });
        Server { address, seen, end, thread: Some(thread) }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// All requests so far.
    pub fn seen(&self) -> Vec<Request> {
        self.seen.lock().expect("no panic").clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn read(stream: &TcpStream) -> Option<Request> {
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    stream.set_write_timeout(Some(PATIENCE)).ok()?;
    let mut lines = BufReader::new(stream.try_clone().ok()?).lines().map_while(Result::ok);
    let path = lines.next()?.split(' ').nth(1)?.to_owned();
    let mut headers = Vec::new();
    for line in lines.take_while(|line| !line.is_empty()) {
        let (name, value) = line.split_once(':')?;
        headers.push((name.trim().to_owned(), value.trim().to_owned()));
    }
    Some(Request { path, headers })
}
