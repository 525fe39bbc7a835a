//! A piece of a file by 64-bit numbers, which are what files hold and need not fit this machine.

use ds4_host::Region;

/// The `bytes` bytes at `offset`, or `None` when they do not all lie in the region.
pub(crate) fn span(region: &Region, offset: u64, bytes: u64) -> Option<Region> {
    let start = usize::try_from(offset).ok()?;
    let end = usize::try_from(offset.checked_add(bytes)?).ok()?;
    region.slice(start..end)
}
