//! The link that makes a fetched model the one that `ds4` runs when none is given.

use std::{fs, io, path::Path};

/// What became of it.
#[derive(Debug, PartialEq, Eq)]
pub enum Linked {
    Done,
    /// A file of this name is there, and it is no link: it may be somebody's only copy.
    FileInTheWay,
}

/// Makes `link` lead to `model`. An older link gives way, in one step. Not every system has links that
/// any user may make; there the error is [`io::ErrorKind::Unsupported`].
pub fn link(model: &Path, link: &Path) -> io::Result<Linked> {
    match fs::symlink_metadata(link) {
        Ok(facts) if !facts.file_type().is_symlink() => return Ok(Linked::FileInTheWay),
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    make(model, link)
}

#[cfg(unix)]
fn make(model: &Path, link: &Path) -> io::Result<Linked> {
    let new = link.with_extension("new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    std::os::unix::fs::symlink(model, &new)?;
    fs::rename(&new, link)?;
    Ok(Linked::Done)
}

#[cfg(not(unix))]
fn make(_: &Path, _: &Path) -> io::Result<Linked> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use crate::pull::tests::folder;

    #[test]
    fn a_link_gives_way_and_a_file_does_not() {
        let here = folder("link");
        let name = here.join("ds4flash.gguf");
        assert_eq!(link(Path::new("gguf/one.gguf"), &name).unwrap(), Linked::Done);
        assert_eq!(link(Path::new("gguf/two.gguf"), &name).unwrap(), Linked::Done);
        assert_eq!(fs::read_link(&name).unwrap(), Path::new("gguf/two.gguf"));
        assert_eq!(fs::read_dir(&*here).unwrap().count(), 1);
        fs::remove_file(&name).unwrap();
        fs::write(&name, "precious").unwrap();
        assert_eq!(link(Path::new("gguf/two.gguf"), &name).unwrap(), Linked::FileInTheWay);
        assert_eq!(fs::read(&name).unwrap(), b"precious");
    }
}
