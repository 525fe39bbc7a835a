//! Which cores this process may run on.

use std::{collections::BTreeSet, fs, thread};

/// How many physical cores this process may use: hardware threads that share a core count once,
/// because two of them do not read memory faster than one.
pub fn physical_cores() -> usize {
    let usable = thread::available_parallelism().map_or(1, |n| n.get());
    let siblings: BTreeSet<String> = (0..usable)
        .map_while(|cpu| {
            let path = format!("/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list");
            fs::read_to_string(path).ok()
        })
        .collect();
    if siblings.is_empty() { usable } else { siblings.len().min(usable) }
}

#[cfg(test)]
mod tests {
    #[test]
    fn there_is_at_least_one() {
        assert!(super::physical_cores() >= 1);
    }
}
