//! A view of bytes that does not care whether they are mapped, embedded in the binary or owned.

use std::{
    fmt, fs, io,
    ops::{Deref, Range},
    path::{Path, PathBuf},
    sync::Arc,
};

use memmap2::{Advice, Mmap};

/// Why a file could not be mapped.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The file could not be opened or read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The path names a directory, a socket or another thing that holds no bytes to map.
    #[error("{}: not a regular file", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
}

enum Source {
    Mapped(Mmap),
    Owned(Vec<u8>),
    Static(&'static [u8]),
}

impl Source {
    fn bytes(&self) -> &[u8] {
        match self {
            Source::Mapped(map) => map,
            Source::Owned(vec) => vec,
            Source::Static(bytes) => bytes,
        }
    }
}

/// A clonable, sliceable view of read-only bytes. Slices share the mapping and keep it alive.
#[derive(Clone)]
pub struct Region {
    source: Arc<Source>,
    range: Range<usize>,
}

impl Region {
    /// Maps a whole file read-only. Nothing is read until it is touched.
    pub fn map(path: &Path) -> Result<Region, HostError> {
        let io = |source| HostError::Io { path: path.to_owned(), source };
        let file = fs::File::open(path).map_err(io)?;
        if !file.metadata().map_err(io)?.is_file() {
            return Err(HostError::NotAFile { path: path.to_owned() });
        }
        // SAFETY: the mapping is private and read-only, and is only handed out as `&[u8]`. Another
        // process that rewrites the file could change bytes under us: every value read from them is
        // checked before use (invariant 4), and none is ever assumed to stay equal to an earlier
        // read. A file that shrinks while mapped raises SIGBUS, as in every program that maps files.
        let map = unsafe { Mmap::map(&file) }.map_err(io)?;
        Ok(Region::new(Source::Mapped(map)))
    }

    /// A view of bytes embedded in the program.
    pub fn from_static(bytes: &'static [u8]) -> Region {
        Region::new(Source::Static(bytes))
    }

    /// A view of bytes built at run time.
    pub fn from_vec(bytes: Vec<u8>) -> Region {
        Region::new(Source::Owned(bytes))
    }

    fn new(source: Source) -> Region {
        let range = 0..source.bytes().len();
        Region { source: Arc::new(source), range }
    }

    /// The part `range` of this view, or `None` when it does not lie inside.
    pub fn slice(&self, range: Range<usize>) -> Option<Region> {
        if range.start > range.end || range.end > self.len() {
            return None;
        }
        let start = self.range.start + range.start;
        Some(Region {
            source: Arc::clone(&self.source),
            range: start..start + (range.end - range.start),
        })
    }

    /// Asks the system to read this part ahead. A hint: failure is of no consequence.
    pub fn will_need(&self) {
        if let Source::Mapped(map) = &*self.source {
            let _ = map.advise_range(Advice::WillNeed, self.range.start, self.range.len());
        }
    }
}

impl Deref for Region {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.source.bytes()[self.range.clone()]
    }
}

impl fmt::Debug for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &*self.source {
            Source::Mapped(_) => "mapped",
            Source::Owned(_) => "owned",
            Source::Static(_) => "static",
        };
        write!(f, "Region({kind}, {} bytes at {})", self.len(), self.range.start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_stay_inside() {
        let region = Region::from_vec((0..10).collect());
        let part = region.slice(2..6).unwrap();
        assert_eq!(&*part, &[2, 3, 4, 5]);
        assert_eq!(&*part.slice(1..4).unwrap(), &[3, 4, 5]);
        assert!(part.slice(0..5).is_none());
        assert!(part.slice(usize::MAX - 1..usize::MAX).is_none());
        assert!(region.slice(10..10).unwrap().is_empty());
    }

    #[test]
    fn errors_name_the_path() {
        let err = Region::map(Path::new("/nowhere/at/all.gguf")).unwrap_err();
        assert!(err.to_string().contains("/nowhere/at/all.gguf"));
        assert!(matches!(Region::map(Path::new("/")), Err(HostError::NotAFile { .. })));
    }
}
