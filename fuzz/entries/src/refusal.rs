//! The promise about every refusal: one line that a terminal can show.

use std::fmt::Display;

/// Some refusals quote a path and two names; none quotes without bound.
const LONGEST: usize = 2000;

/// The value, or nothing if it was refused as a refusal should be.
pub fn accepted<T, E: Display>(result: Result<T, E>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(error) => {
            let line = error.to_string();
            assert!(line.len() <= LONGEST, "a refusal of {} bytes", line.len());
            assert!(!line.chars().any(char::is_control), "control characters in {line:?}");
            None
        }
    }
}
