//! The operating system, behind safe types: file mappings, memory facts, cores.
//!
//! Only this crate and the executors may hold `unsafe`; everything above sees a [`Region`], which is
//! a cheap, clonable view of bytes that stay where they lie.

mod cores;
mod disk;
mod memory;
mod processor;
mod region;

pub use cores::{Core, cores, physical_cores, spread, stay_on};
pub use disk::free_disk_bytes;
pub use memory::{Memory, peak_resident_bytes};
pub use processor::processor_name;
pub use region::{HostError, Region};
