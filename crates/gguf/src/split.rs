//! Models split over several GGUF files, `NAME-00001-of-00003.gguf` and so on.
//!
//! The first part has the metadata; each has the `split.…` keys and tensors of its own. The files
//! are found by their names, and believed only when their keys agree.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use ds4_host::HostError;

use crate::{
    Error,
    directory::{ALIGNMENT_KEY, Part},
};

const NUMBER_KEY: &str = "split.no";
const COUNT_KEY: &str = "split.count";
const TENSORS_KEY: &str = "split.tensors.count";

/// The file name of part `number` (the first is 1) of `count`.
pub fn part_path(prefix: &str, number: u64, count: u64) -> PathBuf {
    PathBuf::from(format!("{prefix}-{number:05}-of-{count:05}.gguf"))
}

/// Which part of a split model a file says it is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// Counted from 1, as people and file names do.
    number: u64,
    count: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "part {} of {}", self.number, self.count)
    }
}

impl Place {
    /// `None` for a file that is a model of its own.
    pub(crate) fn of(part: &Part) -> Result<Option<Place>, Error> {
        let count = part.meta.get_u64(COUNT_KEY)?.unwrap_or(1);
        if count <= 1 {
            return Ok(None);
        }
        let number = part.meta.need_u64(NUMBER_KEY)?;
        if number >= count {
            let reason = format!("is {number}, but there are only {count} parts, counted from 0");
            return Err(Error::key(&part.path, NUMBER_KEY, reason));
        }
        Ok(Some(Place { number: number + 1, count }))
    }
}

/// Opens the parts of a model beside the one that was given: the first, then the others in order.
pub(crate) fn open_all(given: Part, place: Place) -> Result<(Part, Vec<Part>), Error> {
    let prefix = prefix(&given.path, place)?;
    let given_path = given.path.clone();
    let mut given = Some(given);
    let mut part = |number: u64| match given.take_if(|_| number == place.number) {
        Some(part) => Ok(part),
        None => open_sibling(&given_path, &prefix, Place { number, ..place }),
    };

    let first = part(1)?;
    let others = (2..=place.count).map(part).collect::<Result<Vec<Part>, Error>>()?;
    for other in &others {
        same_model(&first, other)?;
    }
    if let Some(expected) = first.meta.get_u64(TENSORS_KEY)? {
        let counts = others.iter().map(|part| part.tensors.len());
        let found = first.tensors.len() + counts.sum::<usize>();
        if found as u64 != expected {
            let reason = format!("is {expected}, but the {} parts have {found}", place.count);
            return Err(Error::key(&first.path, TENSORS_KEY, reason));
        }
    }
    Ok((first, others))
}

/// What the file names of all parts begin with.
fn prefix(path: &Path, place: Place) -> Result<String, Error> {
    let ending = part_path("", place.number, place.count);
    let name = path.file_name().and_then(|name| name.to_str());
    match name.and_then(|name| name.strip_suffix(ending.to_str()?)) {
        Some(prefix) => Ok(prefix.to_owned()),
        None => {
            let reason = format!("is {place}, so its name must end with {}", ending.display());
            Err(Error::parts(path, reason))
        }
    }
}

fn open_sibling(given: &Path, prefix: &str, place: Place) -> Result<Part, Error> {
    let path = given.with_file_name(part_path(prefix, place.number, place.count));
    let part = Part::open(&path).map_err(|error| match error {
        Error::Host(HostError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            Error::parts(given, format!("{place} is missing: {}", path.display()))
        }
        other => other,
    })?;
    match Place::of(&part)? {
        Some(found) if found == place => Ok(part),
        found => {
            let found = found.map_or("a whole model".to_owned(), |found| found.to_string());
            Err(Error::parts(&path, format!("is named as {place}, but its keys say {found}")))
        }
    }
}

/// Parts of one model agree on every key that both have, save those that are about the part.
fn same_model(first: &Part, other: &Part) -> Result<(), Error> {
    for (key, value) in other.meta.iter() {
        if matches!(key, NUMBER_KEY | ALIGNMENT_KEY) {
            continue;
        }
        if first.meta.get(key).is_some_and(|expected| expected != value) {
            let reason = format!("differs from that of {}: another model", first.path.display());
            return Err(Error::key(&other.path, key, reason));
        }
    }
    Ok(())
}
