//! Rows that are only ever appended: compressed rows and index rows.
//!
//! They lie in segments of 64 rows that grow with use. A copy shares all segments; the one that both
//! go on writing to is copied by whoever writes first. How many rows are alive is the slot's length to
//! say: rows beyond are dead, and written again before they are read.

use std::{iter, sync::Arc};

/// Rows of a segment.
pub const SEGMENT: usize = 64;

/// Append-only rows.
#[derive(Clone)]
pub struct Segments {
    row_bytes: usize,
    segments: Vec<Arc<[u8]>>,
}

impl Segments {
    /// No rows yet.
    pub fn new(row_bytes: usize) -> Segments {
        Segments { row_bytes, segments: Vec::new() }
    }

    /// A row that was written.
    pub fn row(&self, index: usize) -> &[u8] {
        &self.segments[index / SEGMENT][index % SEGMENT * self.row_bytes..][..self.row_bytes]
    }

    /// Writes a row, at most one past the last.
    pub fn write(&mut self, index: usize, row: &[u8]) {
        if index / SEGMENT == self.segments.len() {
            self.segments.push(iter::repeat_n(0, SEGMENT * self.row_bytes).collect());
        }
        let segment = Arc::make_mut(&mut self.segments[index / SEGMENT]);
        segment[index % SEGMENT * self.row_bytes..][..self.row_bytes].copy_from_slice(row);
    }

    /// Frees what lies beyond the first `rows` rows.
    pub fn truncate(&mut self, rows: usize) {
        self.segments.truncate(rows.div_ceil(SEGMENT));
    }

    /// The bytes of the first `rows` rows.
    pub fn to_bytes(&self, rows: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(rows * self.row_bytes);
        for segment in &self.segments {
            let left = rows * self.row_bytes - bytes.len();
            bytes.extend_from_slice(&segment[..left.min(segment.len())]);
        }
        bytes
    }

    /// The rows of `bytes`.
    pub fn from_bytes(row_bytes: usize, bytes: &[u8]) -> Segments {
        let mut rows = Segments::new(row_bytes);
        for (index, row) in bytes.chunks_exact(row_bytes).enumerate() {
            rows.write(index, row);
        }
        rows
    }

    /// The segments, for counting: a shared one has one address.
    pub fn allocations(&self) -> impl Iterator<Item = &Arc<[u8]>> {
        self.segments.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_share_full_segments_and_part_where_one_is_written() {
        let mut a = Segments::new(2);
        for i in 0..100u8 {
            a.write(usize::from(i), &[i, i]);
        }
        let mut b = a.clone();
        b.write(99, &[7, 7]);
        b.write(100, &[8, 8]);
        assert_eq!((a.row(99), b.row(99), b.row(100)), (&[99, 99][..], &[7, 7][..], &[8, 8][..]));
        assert!(Arc::ptr_eq(&a.segments[0], &b.segments[0]));
        assert!(!Arc::ptr_eq(&a.segments[1], &b.segments[1]));
        assert_eq!(a.to_bytes(70), (0..70).flat_map(|i| [i, i]).collect::<Vec<u8>>());
        assert_eq!(Segments::from_bytes(2, &a.to_bytes(100)).row(64), &[64, 64]);
    }
}
