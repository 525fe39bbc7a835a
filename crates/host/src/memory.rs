//! How much memory there is, and how much this process has used.

use std::fs;

/// Memory of the machine, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// All of it.
    pub total: u64,
    /// What can be taken without swapping, as the system estimates it.
    pub available: u64,
}

impl Memory {
    /// Reads the facts of this machine; `None` where the system does not tell.
    pub fn of_this_machine() -> Option<Memory> {
        let text = fs::read_to_string("/proc/meminfo").ok()?;
        Some(Memory {
            total: field_kib(&text, "MemTotal:")? << 10,
            available: field_kib(&text, "MemAvailable:")? << 10,
        })
    }
}

/// The largest resident set this process has had, in bytes; `None` where the system does not tell.
pub fn peak_resident_bytes() -> Option<u64> {
    let text = fs::read_to_string("/proc/self/status").ok()?;
    Some(field_kib(&text, "VmHWM:")? << 10)
}

fn field_kib(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.starts_with(key))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_name() {
        let text = "MemTotal:       1024 kB\nMemAvailable:    512 kB\n";
        assert_eq!(field_kib(text, "MemAvailable:"), Some(512));
        assert_eq!(field_kib(text, "SwapTotal:"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_machine_tells() {
        let memory = Memory::of_this_machine().unwrap();
        assert!(memory.available <= memory.total);
        assert!(peak_resident_bytes().unwrap() > 0);
    }
}
