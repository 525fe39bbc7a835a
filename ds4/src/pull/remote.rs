//! Asking a server for a file, from some byte on: redirects, the token, and whether the answer is what
//! was asked for. What the bytes are good for is not known here.

use std::{fmt, io::Read, net::IpAddr, time::Duration};

use ureq::{
    Agent, Body,
    http::{HeaderMap, Response, StatusCode, Uri, header},
};

const MAX_REDIRECTS: usize = 8;

/// A server, and what it is told about who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remote {
    base: Uri,
    token: Option<Token>,
}

/// Lets its owner in. It is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// `None` if it cannot be one.
    pub fn new(text: &str) -> Option<Token> {
        let text = text.trim();
        let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        plain.then(|| Token(text.to_owned()))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

impl Remote {
    /// The server at `base`, or what is wrong with that address.
    pub fn new(base: &str, token: Option<Token>) -> Result<Remote, String> {
        let wrong =
            || format!("`{base}` is no address of a server, as in https://example.org/mirror");
        let trimmed = base.trim_end_matches('/');
        let uri: Uri = trimmed.parse().map_err(|_| wrong())?;
        let known = matches!(uri.scheme_str(), Some("http" | "https"));
        let has_user = uri.authority().is_some_and(|authority| authority.as_str().contains('@'));
        if !known
            || has_user
            || uri.host().is_none_or(str::is_empty)
            || trimmed.contains(['?', '#'])
        {
            return Err(wrong());
        }
        Ok(Remote { base: uri, token })
    }

    /// Whether a token can be sent without everybody on the way reading it.
    pub fn keeps_secrets(&self) -> bool {
        let host = self.base.host().unwrap_or_default().trim_matches(['[', ']']);
        let is_this_machine =
            host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
        self.base.scheme_str() == Some("https") || is_this_machine
    }

    /// Where a file of a repository is.
    pub fn url(&self, repo: &str, file: &str) -> Result<Uri, Stop> {
        let base = self.base.to_string();
        let url = format!("{}/{repo}/resolve/main/{file}", base.trim_end_matches('/'));
        url.parse().map_err(|_| Stop::Never(format!("{url}: not an address")))
    }

    fn token_for(&self, uri: &Uri) -> Option<&Token> {
        self.token.as_ref().filter(|_| origin(uri) == origin(&self.base))
    }
}

/// Why there is nothing to read.
#[derive(Debug, PartialEq, Eq)]
pub enum Stop {
    /// It would be the same the next time.
    Never(String),
    /// It may pass. The server may have said when.
    Again { why: String, after: Option<Duration> },
}

impl Stop {
    pub fn again(why: impl Into<String>) -> Stop {
        Stop::Again { why: why.into(), after: None }
    }
}

/// An answer about to be read.
pub struct Opened {
    /// The byte of the file that comes first.
    pub start: u64,
    /// How many bytes come.
    pub length: u64,
    /// The bytes of the whole file.
    pub total: u64,
    /// The SHA-256 that the server states, if it does.
    pub sha256: Option<String>,
    pub body: Box<dyn Read>,
}

/// Asks `remote` for `url` from byte `from` on.
pub fn open(agent: &Agent, remote: &Remote, url: &Uri, from: u64) -> Result<Opened, Stop> {
    let mut uri = url.clone();
    let mut stated = Stated::default();
    for _ in 0..=MAX_REDIRECTS {
        let mut request = agent.get(&uri).header(header::ACCEPT_ENCODING, "identity");
        if from > 0 {
            request = request.header(header::RANGE, format!("bytes={from}-"));
        }
        let token = remote.token_for(&uri);
        if let Some(Token(token)) = token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let response = request.call().map_err(|error| unreachable(&uri, error))?;
        stated.read(response.headers());
        if response.status().is_redirection() {
            uri = next(&uri, response.headers())?;
            continue;
        }
        let asked = Asked { uri: &uri, from, with_token: token.is_some() };
        return asked.read(response, stated);
    }
    Err(Stop::Never(format!("{}: more than {MAX_REDIRECTS} redirects", shown(url))))
}

/// What Hugging Face says about a file before it redirects to where the bytes are.
#[derive(Default)]
struct Stated {
    size: Option<u64>,
    sha256: Option<String>,
}

impl Stated {
    fn read(&mut self, headers: &HeaderMap) {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        self.size = self.size.or_else(|| text("x-linked-size")?.trim().parse().ok());
        self.sha256 = self.sha256.take().or_else(|| {
            let tag = text("x-linked-etag")?.trim().trim_start_matches("W/").trim_matches('"');
            let is_hash = tag.len() == 64 && tag.bytes().all(|byte| byte.is_ascii_hexdigit());
            is_hash.then(|| tag.to_ascii_lowercase())
        });
    }
}

/// What was asked, for judging the answer.
struct Asked<'a> {
    uri: &'a Uri,
    from: u64,
    with_token: bool,
}

impl Asked<'_> {
    fn read(&self, response: Response<Body>, stated: Stated) -> Result<Opened, Stop> {
        let headers = response.headers();
        let content: Option<u64> = number(headers, header::CONTENT_LENGTH.as_str());
        let (start, length, total) = match response.status() {
            StatusCode::OK => {
                let total = stated.size.or(content).ok_or_else(|| {
                    Stop::Never(format!("{}: the server does not say how long it is", self.shown()))
                })?;
                (0, total, total)
            }
            StatusCode::PARTIAL_CONTENT => {
                let range = text(headers, header::CONTENT_RANGE.as_str());
                let (first, last, total) =
                    range.and_then(part_of).ok_or_else(|| self.lie(range))?;
                if first != self.from {
                    return Err(self.lie(range));
                }
                (first, last - first + 1, total)
            }
            StatusCode::RANGE_NOT_SATISFIABLE => {
                let range = text(headers, header::CONTENT_RANGE.as_str());
                let total = range.and_then(|range| range.strip_prefix("bytes */")?.parse().ok());
                // There is nothing behind the end of a file.
                let total = total.filter(|total| *total == self.from);
                (self.from, 0, total.ok_or_else(|| self.lie(range))?)
            }
            status => return Err(self.refused(status, headers)),
        };
        let lengths_agree = length == 0 || content.is_none_or(|content| content == length);
        if !lengths_agree || stated.size.is_some_and(|size| size != total) {
            let content = content.unwrap_or(length);
            return Err(Stop::again(format!(
                "{}: the server sends {content} bytes from byte {start}, of a file of {}",
                self.shown(),
                stated.size.unwrap_or(total)
            )));
        }
        let body = Box::new(response.into_body().into_reader());
        Ok(Opened { start, length, total, sha256: stated.sha256, body })
    }

    fn shown(&self) -> String {
        shown(self.uri)
    }

    fn lie(&self, range: Option<&str>) -> Stop {
        let (from, range) = (self.from, range.unwrap_or("nothing"));
        let shown = self.shown();
        Stop::again(format!("{shown}: asked for bytes from {from} on, the server says `{range}`"))
    }

    fn refused(&self, status: StatusCode, headers: &HeaderMap) -> Stop {
        let (shown, code) = (self.shown(), status.as_u16());
        let after = number(headers, header::RETRY_AFTER.as_str()).map(Duration::from_secs);
        let why = match code {
            401 | 403 if self.with_token => "the server does not accept the token",
            401 | 403 => "the server wants a token; give one with --token or in HF_TOKEN",
            404 | 410 => "the server has no such file",
            408 | 425 | 429 | 500..=599 => {
                return Stop::Again { why: format!("{shown}: the server is busy ({code})"), after };
            }
            _ => "not an answer that this program understands",
        };
        Stop::Never(format!("{shown}: {why} ({code})"))
    }
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    text(headers, name)?.trim().parse().ok()
}

/// First byte, last byte and total of `bytes 5-9/10`, if they make sense.
fn part_of(range: &str) -> Option<(u64, u64, u64)> {
    let (bytes, total) = range.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = bytes.split_once('-')?;
    let (first, last, total) = (first.parse().ok()?, last.parse().ok()?, total.parse().ok()?);
    (first <= last && last < total).then_some((first, last, total))
}

/// Where a redirect leads.
fn next(from: &Uri, headers: &HeaderMap) -> Result<Uri, Stop> {
    let location = text(headers, header::LOCATION.as_str()).unwrap_or_default();
    let wrong = || Stop::Never(format!("{}: redirects to nowhere", shown(from)));
    let to: Uri = resolved(from, location).parse().map_err(|_| wrong())?;
    match (from.scheme_str(), to.scheme_str()) {
        (_, Some("https")) | (Some("http"), Some("http")) if to.host().is_some() => Ok(to),
        (Some("https"), Some("http")) => {
            Err(Stop::Never(format!("{}: redirects to an unencrypted address", shown(from))))
        }
        _ => Err(wrong()),
    }
}

/// A location may leave out what it shares with the address it was found at.
fn resolved(from: &Uri, location: &str) -> String {
    let scheme = from.scheme_str().unwrap_or("https");
    let host = from.authority().map_or("", |authority| authority.as_str());
    if let Some(rest) = location.strip_prefix("//") {
        return format!("{scheme}://{rest}");
    }
    if location.starts_with('/') {
        return format!("{scheme}://{host}{location}");
    }
    if location.split(['/', '?']).next().is_some_and(|start| start.ends_with(':')) {
        return location.to_owned();
    }
    let folder = from.path().rsplit_once('/').map_or("", |(folder, _)| folder);
    format!("{scheme}://{host}{folder}/{location}")
}

/// Who answers at an address: scheme, host and port.
fn origin(uri: &Uri) -> (Option<&str>, Option<String>, Option<u16>) {
    let port = uri.port_u16().or(match uri.scheme_str() {
        Some("https") => Some(443),
        Some("http") => Some(80),
        _ => None,
    });
    (uri.scheme_str(), uri.host().map(str::to_ascii_lowercase), port)
}

/// An address for people. What is behind its path may be a signature, and is long.
pub fn shown(uri: &Uri) -> String {
    let host = uri.authority().map_or("", |authority| authority.as_str());
    format!("{}://{host}{}", uri.scheme_str().unwrap_or_default(), uri.path())
}

fn unreachable(uri: &Uri, error: ureq::Error) -> Stop {
    let host = uri.host().unwrap_or_default();
    match error {
        ureq::Error::Io(error) => Stop::again(format!("{host}: {error}")),
        ureq::Error::Timeout(_) => Stop::again(format!("{host}: no answer")),
        ureq::Error::HostNotFound => Stop::again(format!("{host}: no such host, or no network")),
        ureq::Error::ConnectionFailed => Stop::again(format!("{host}: cannot connect")),
        ureq::Error::Protocol(error) => Stop::again(format!("{host}: {error}")),
        error => Stop::Never(format!("{host}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uri(text: &str) -> Uri {
        text.parse().unwrap()
    }

    #[test]
    fn addresses_are_checked() {
        for base in ["https://example.org", "http://127.0.0.1:80/a/b/", "https://[::1]:8443"] {
            let remote = Remote::new(base, None).unwrap();
            let url = remote.url("who/what", "file.gguf").unwrap().to_string();
            let base = base.trim_end_matches('/');
            assert_eq!(url, format!("{base}/who/what/resolve/main/file.gguf"));
        }
        for base in [
            "",
            "example.org",
            "ftp://example.org",
            "https://",
            "https://a@b.org",
            "https://a.org/?b",
            "a b",
        ] {
            assert!(Remote::new(base, None).is_err(), "{base}");
        }
    }

    #[test]
    fn secrets_need_encryption_or_no_network() {
        for (base, keeps) in [
            ("https://example.org", true),
            ("http://localhost:8080", true),
            ("http://127.1.2.3", true),
            ("http://[::1]", true),
            ("http://example.org", false),
            ("http://localhost.example.org", false),
        ] {
            assert_eq!(Remote::new(base, None).unwrap().keeps_secrets(), keeps, "{base}");
        }
    }

    #[test]
    fn a_token_is_for_one_origin_and_not_for_eyes() {
        let remote = Remote::new("https://Example.org/x", Token::new(" hf_secret\n")).unwrap();
        for (to, gets) in [
            ("https://example.org/y", true),
            ("https://example.org:443/", true),
            ("http://example.org/", false),
            ("https://example.org:444/", false),
            ("https://cdn.example.org/", false),
        ] {
            assert_eq!(remote.token_for(&uri(to)).is_some(), gets, "{to}");
        }
        assert!(!format!("{remote:?}").contains("secret"));
        assert_eq!(Token::new("two words"), None);
        assert_eq!(Token::new(" "), None);
    }

    #[test]
    fn redirects_lead_where_they_say() {
        for (from, location, to) in [
            ("https://a.org/b/c", "https://d.org/e?f=g", Some("https://d.org/e?f=g")),
            ("https://a.org/b/c", "/d", Some("https://a.org/d")),
            ("https://a.org/b/c", "d", Some("https://a.org/b/d")),
            ("https://a.org/b/c", "//d.org/e", Some("https://d.org/e")),
            ("https://a.org/b/c", "d?e=http://f", Some("https://a.org/b/d?e=http://f")),
            ("https://a.org/b", "http://a.org/b", None),
            ("https://a.org/b", "ftp://a.org/b", None),
            ("https://a.org/b", "https://", None),
        ] {
            let headers = HeaderMap::from_iter([(header::LOCATION, location.parse().unwrap())]);
            let led = next(&uri(from), &headers).ok().map(|uri| uri.to_string());
            assert_eq!(led.as_deref(), to, "{from} {location}");
        }
        assert!(next(&uri("https://a.org"), &HeaderMap::new()).is_ok(), "an empty path is a path");
    }

    #[test]
    fn ranges_make_sense_or_are_none() {
        assert_eq!(part_of("bytes 5-9/10"), Some((5, 9, 10)));
        for range in ["", "bytes 5-10/10", "bytes 6-5/10", "bytes 5-9/*", "5-9/10", "bytes -1-2/3"]
        {
            assert_eq!(part_of(range), None, "{range}");
        }
    }
}
