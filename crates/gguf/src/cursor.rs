//! Reads little-endian fields one after another and never past the end.

use std::{fmt::Display, path::Path};

use crate::Error;

/// A place in a file's bytes. Every read says what it reads, so that a file cut short is reported
/// by the field that is missing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cursor<'a> {
    file: &'a Path,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    /// Reads `bytes` from `at` on. `bytes` begins where the file begins, so that offsets in
    /// messages are those of the file.
    pub(crate) fn new(file: &'a Path, bytes: &'a [u8], at: usize) -> Cursor<'a> {
        Cursor { file, bytes, at }
    }

    pub(crate) fn file(&self) -> &'a Path {
        self.file
    }

    pub(crate) fn at(&self) -> usize {
        self.at
    }

    /// A cursor over what was read since `start`.
    pub(crate) fn since(&self, start: usize) -> Cursor<'a> {
        Cursor { bytes: self.bytes.get(..self.at).unwrap_or_default(), at: start, ..*self }
    }

    /// Everything that is not read yet.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    pub(crate) fn left(&self) -> u64 {
        self.rest().len() as u64
    }

    /// An error about the byte that is `back` bytes before the cursor.
    pub(crate) fn error(&self, back: usize, reason: impl Into<String>) -> Error {
        Error::format(self.file, self.at.saturating_sub(back) as u64, reason)
    }

    pub(crate) fn take(&mut self, len: u64, what: &dyn Display) -> Result<&'a [u8], Error> {
        let end = usize::try_from(len).ok().and_then(|len| self.at.checked_add(len));
        match end.and_then(|end| Some((end, self.bytes.get(self.at..end)?))) {
            Some((end, taken)) => {
                self.at = end;
                Ok(taken)
            }
            None => {
                let left = self.left();
                Err(self.error(0, format!("{what} needs {len} bytes, but only {left} are left")))
            }
        }
    }

    pub(crate) fn array<const N: usize>(&mut self, what: &dyn Display) -> Result<[u8; N], Error> {
        let taken = self.take(N as u64, what)?;
        let mut array = [0; N];
        array.copy_from_slice(taken);
        Ok(array)
    }

    pub(crate) fn u32(&mut self, what: &dyn Display) -> Result<u32, Error> {
        self.array(what).map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self, what: &dyn Display) -> Result<u64, Error> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// A string: its length, then its bytes, of any encoding.
    pub(crate) fn string(&mut self, what: &dyn Display) -> Result<&'a [u8], Error> {
        let len = self.u64(what)?;
        self.take(len, what)
    }

    /// A string that names something: UTF-8, not empty.
    pub(crate) fn name(&mut self, what: &dyn Display) -> Result<&'a str, Error> {
        let bytes = self.string(what)?;
        match str::from_utf8(bytes) {
            Ok("") => Err(self.error(8, format!("{what} is empty"))),
            Ok(name) => Ok(name),
            Err(fault) => {
                let back = bytes.len() - fault.valid_up_to();
                Err(self.error(back, format!("{what} is not UTF-8")))
            }
        }
    }

    /// A count of things of at least `least` bytes each, refused when the file has no room for them.
    pub(crate) fn count(&mut self, least: u64, what: &dyn Display) -> Result<u64, Error> {
        let count = self.u64(what)?;
        let room = self.left() / least;
        if count > room {
            let reason = format!("{what} is {count}, but the file has room for {room} at most");
            return Err(self.error(8, reason));
        }
        Ok(count)
    }
}
