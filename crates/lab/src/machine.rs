//! The machine that numbers are measured on. A number without it says nothing.

use std::env::consts;

use ds4_host::{Memory, physical_cores, processor_name};

/// What is known of this machine.
#[derive(Clone, Debug, PartialEq)]
pub struct Machine {
    /// What the processor calls itself.
    pub processor: String,
    /// Physical cores that this process may use.
    pub cores: usize,
    /// The instruction sets that matter here, of those it has.
    pub instruction_sets: Vec<&'static str>,
    /// Bytes of memory, where the system tells.
    pub memory: Option<u64>,
    /// Architecture and operating system.
    pub system: String,
}

impl Machine {
    /// The machine that this runs on.
    pub fn here() -> Machine {
        Machine {
            processor: processor_name().unwrap_or_else(|| "unknown processor".to_owned()),
            cores: physical_cores(),
            instruction_sets: instruction_sets(),
            memory: Memory::of_this_machine().map(|memory| memory.total),
            system: format!("{} {}", consts::ARCH, consts::OS),
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn instruction_sets() -> Vec<&'static str> {
    let sets = [
        ("avx2", is_x86_feature_detected!("avx2")),
        ("fma", is_x86_feature_detected!("fma")),
        ("avxvnni", is_x86_feature_detected!("avxvnni")),
        ("avx512f", is_x86_feature_detected!("avx512f")),
        ("avx512bw", is_x86_feature_detected!("avx512bw")),
        ("avx512vnni", is_x86_feature_detected!("avx512vnni")),
    ];
    sets.into_iter().filter_map(|(name, has)| has.then_some(name)).collect()
}

#[cfg(target_arch = "aarch64")]
fn instruction_sets() -> Vec<&'static str> {
    use std::arch::is_aarch64_feature_detected;
    let sets = [
        ("neon", is_aarch64_feature_detected!("neon")),
        ("dotprod", is_aarch64_feature_detected!("dotprod")),
        ("i8mm", is_aarch64_feature_detected!("i8mm")),
    ];
    sets.into_iter().filter_map(|(name, has)| has.then_some(name)).collect()
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn instruction_sets() -> Vec<&'static str> {
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn something_is_known() {
        let machine = Machine::here();
        assert!(machine.cores >= 1 && !machine.processor.is_empty() && !machine.system.is_empty());
    }
}
