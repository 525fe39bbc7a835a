//! Which cores this process may run on, and on which of them a thread should stay.

use std::{collections::BTreeSet, fs, path::Path, thread};

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
    cores_in(Path::new("/sys/devices/system"), &allowed())
}

/// As [`cores`], from a tree that looks like the system's.
fn cores_in(system: &Path, allowed: &[usize]) -> Vec<Core> {
    let nodes = nodes_in(system);
    let node_of =
        |cpu: usize| nodes.iter().find(|(_, cpus)| cpus.contains(&cpu)).map_or(0, |n| n.0);
    let mut seen = BTreeSet::new();
    let mut cores: Vec<Core> = allowed
        .iter()
        .filter(|cpu| {
            let path = system.join(format!("cpu/cpu{cpu}/topology/thread_siblings_list"));
            // Where siblings are unknown, every hardware thread counts.
            seen.insert(fs::read_to_string(path).unwrap_or_else(|_| cpu.to_string()))
        })
        .map(|&cpu| Core { node: node_of(cpu), cpu })
        .collect();
    cores.sort_unstable();
    cores
}

/// So many of the cores, as evenly from all nodes as they go, those of one node together. All of them
/// if there are not more.
pub fn spread(cores: &[Core], count: usize) -> Vec<Core> {
    let mut left = cores.to_vec();
    left.sort_unstable();
    let mut nodes: Vec<_> =
        left.chunk_by(|a, b| a.node == b.node).map(|node| node.iter()).collect();
    let mut chosen = Vec::new();
    while chosen.len() < count.min(left.len()) {
        let room = count - chosen.len();
        chosen.extend(nodes.iter_mut().filter_map(Iterator::next).take(room).copied());
    }
    chosen.sort_unstable();
    chosen
}

/// How many physical cores this process may use.
pub fn physical_cores() -> usize {
    match cores().len() {
        0 => thread::available_parallelism().map_or(1, |n| n.get()),
        known => known,
    }
}

/// The number of each memory node, and its hardware threads. Numbers may be left out, and a node may
/// have memory alone.
fn nodes_in(system: &Path) -> Vec<(usize, Vec<usize>)> {
    let entries = fs::read_dir(system.join("node")).into_iter().flatten().flatten();
    let mut nodes: Vec<(usize, Vec<usize>)> = entries
        .filter_map(|entry| {
            let number = entry.file_name().to_str()?.strip_prefix("node")?.parse().ok()?;
            let cpus = fs::read_to_string(entry.path().join("cpulist")).ok()?;
            Some((number, parse_list(&cpus)))
        })
        .collect();
    nodes.sort_unstable();
    nodes
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

    /// A tree of two nodes with a gap in their numbers and a third that has only memory; eight
    /// hardware threads, of which 0 and 4, 1 and 5, and so on share a core.
    fn two_nodes() -> std::path::PathBuf {
        let system = std::env::temp_dir().join(format!("ds4-cores-{}", std::process::id()));
        let write = |path: String, text: &str| {
            let path = system.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("node/node0/cpulist".into(), "0-1,4-5\n");
        write("node/node2/cpulist".into(), "2-3,6-7\n");
        write("node/node3/cpulist".into(), "\n");
        write("node/possible".into(), "0-3\n");
        for cpu in 0..8 {
            let siblings = format!("{},{}\n", cpu % 4, cpu % 4 + 4);
            write(format!("cpu/cpu{cpu}/topology/thread_siblings_list"), &siblings);
        }
        system
    }

    #[test]
    fn cores_are_found_node_by_node_and_siblings_count_once() {
        let system = two_nodes();
        let found = |allowed: &[usize]| -> Vec<(usize, usize)> {
            cores_in(&system, allowed).iter().map(|core| (core.node, core.cpu)).collect()
        };
        assert_eq!(found(&[0, 1, 2, 3, 4, 5, 6, 7]), [(0, 0), (0, 1), (2, 2), (2, 3)]);
        assert_eq!(found(&[3, 4, 5, 7]), [(0, 4), (0, 5), (2, 3)]);
        assert_eq!(found(&[]), []);
        fs::remove_dir_all(&system).unwrap();
        // Nothing is known: every hardware thread is a core of one node.
        assert_eq!(found(&[1, 4, 5]), [(0, 1), (0, 4), (0, 5)]);
    }

    #[test]
    fn fewer_threads_than_cores_go_to_all_nodes_alike() {
        let core = |(node, cpu)| Core { node, cpu };
        let cores = [(0, 0), (0, 1), (0, 2), (1, 3), (4, 4), (4, 5)].map(core);
        for (count, want) in [
            (0, &[][..]),
            (1, &[0]),
            (3, &[0, 3, 4]),
            (4, &[0, 1, 3, 4]),
            (5, &[0, 1, 3, 4, 5]),
            (9, &[0, 1, 2, 3, 4, 5]),
        ] {
            let cpus: Vec<usize> = spread(&cores, count).iter().map(|core| core.cpu).collect();
            assert_eq!(cpus, want, "{count}");
        }
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
