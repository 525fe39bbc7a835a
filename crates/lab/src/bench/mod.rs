//! How fast a model runs: prompts and answers at growing contexts, alone and in company, beside what
//! the machine's memory allows.
//!
//! A run goes from one context length to the next, as a long conversation does: the prompt is
//! extended, some tokens are decoded on copies of the session, and the copies are dropped. Every other
//! run goes through the batch sizes backwards and reads the memory after instead of before, so that
//! nothing is always first. What is printed is the median, with the extremes beside it.

mod chart;
mod csv;
mod frontiers;
mod json;
mod limits;
mod measure;
mod report;
mod stages;
mod table;
mod traffic;

pub use chart::chart;
pub use csv::csv;
pub use frontiers::{Stride, frontiers};
pub use json::json;
pub use limits::{IntegerPeak, Limits};
pub use measure::{BenchOptions, Doing, bench};
pub use report::{Decode, Frontier, Report, Subject};
pub use stages::StageCost;
pub use table::{roofline, table};
pub use traffic::{Traffic, formats};

#[cfg(test)]
mod example;
