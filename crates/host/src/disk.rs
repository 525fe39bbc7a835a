//! How much room a file system has.

use std::path::Path;

/// The bytes that this user may still write where `path` lies; `None` where the system does not tell.
#[cfg(unix)]
pub fn free_disk_bytes(path: &Path) -> Option<u64> {
    let facts = rustix::fs::statvfs(path).ok()?;
    facts.f_bavail.checked_mul(facts.f_frsize)
}

/// The bytes that this user may still write where `path` lies; `None` where the system does not tell.
#[cfg(not(unix))]
pub fn free_disk_bytes(_: &Path) -> Option<u64> {
    None
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_room_and_what_is_not_there_has_none() {
        assert!(free_disk_bytes(Path::new(".")).is_some());
        assert_eq!(free_disk_bytes(Path::new("./no/such/folder")), None);
    }
}
