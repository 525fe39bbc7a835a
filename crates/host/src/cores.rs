//! Which cores this process may run on, and on which of them a thread should stay.

use std::{collections::BTreeSet, fs, thread};

/// A physical core, by the hardware thread of it that we would use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Core {
    /// Which memory is near to it.
    pub node: usize,
    /// The system's number of the hardware thread.
    pub cpu: usize,
}

/// The physical cores that this process may use, those of one memory node together. Hardware threads
/// that share a core count once, because two of them do not read memory faster than one. Empty where
/// the system does not tell.
pub fn cores() -> Vec<Core> {
    let nodes = nodes();
    let node_of = |cpu| nodes.iter().position(|cpus| cpus.contains(&cpu)).unwrap_or(0);
    let mut seen = BTreeSet::new();
    let mut cores: Vec<Core> = allowed()
        .into_iter()
        .filter(|cpu| {
            let path = format!("/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list");
            // Where siblings are unknown, every hardware thread counts.
            seen.insert(fs::read_to_string(path).unwrap_or_else(|_| cpu.to_string()))
        })
        .map(|cpu| Core { node: node_of(cpu), cpu })
        .collect();
    cores.sort_unstable();
    cores
}

/// How many physical cores this process may use.
pub fn physical_cores() -> usize {
    match cores().len() {
        0 => thread::available_parallelism().map_or(1, |n| n.get()),
        known => known,
    }
}

/// The hardware threads of each memory node.
fn nodes() -> Vec<Vec<usize>> {
    (0..)
        .map_while(|node| {
            let path = format!("/sys/devices/system/node/node{node}/cpulist");
            fs::read_to_string(path).ok()
        })
        .map(|list| parse_list(&list))
        .collect()
}

/// A list as the system writes it: `0-3,8`.
fn parse_list(list: &str) -> Vec<usize> {
    let mut numbers = Vec::new();
    for part in list.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.parse::<u16>(), last.parse::<u16>()) {
            numbers.extend((first..=last).map(usize::from));
        }
    }
    numbers
}

#[cfg(target_os = "linux")]
fn allowed() -> Vec<usize> {
    use rustix::thread::{CpuSet, sched_getaffinity};
    match sched_getaffinity(None) {
        Ok(set) => (0..CpuSet::MAX_CPU).filter(|&cpu| set.is_set(cpu)).collect(),
        Err(_) => Vec::new(),
    }
}

#[cfg(not(target_os = "linux"))]
fn allowed() -> Vec<usize> {
    Vec::new()
}

/// Keeps the calling thread on one hardware thread. `false` if the system would not.
#[cfg(target_os = "linux")]
pub fn stay_on(core: Core) -> bool {
    use rustix::thread::{CpuSet, sched_setaffinity};
    let mut set = CpuSet::new();
    if core.cpu < CpuSet::MAX_CPU {
        set.set(core.cpu);
    }
    sched_setaffinity(None, &set).is_ok()
}

/// Keeps the calling thread on one hardware thread. `false` if the system would not.
#[cfg(not(target_os = "linux"))]
pub fn stay_on(_: Core) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_as_the_system_writes_them() {
        assert_eq!(parse_list("0-3,8\n"), [0, 1, 2, 3, 8]);
        assert_eq!(parse_list("5"), [5]);
        assert!(parse_list("\n").is_empty());
        assert!(parse_list("x-3,-,99999999999").is_empty());
    }

    #[test]
    fn there_is_at_least_one() {
        assert!(physical_cores() >= 1);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_thread_stays_where_it_is_told_to() {
        let cores = cores();
        assert!(cores.is_sorted());
        let last = *cores.last().unwrap();
        let stayed = thread::spawn(move || stay_on(last).then(allowed)).join().unwrap();
        assert_eq!(stayed, Some(vec![last.cpu]));
        assert!(!stay_on(Core { node: 0, cpu: usize::MAX }));
    }
}
