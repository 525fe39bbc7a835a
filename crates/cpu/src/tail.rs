//! The last positions of a timeline: rows in a ring, found by position.
//!
//! What is found by position needs no moving when a timeline is shortened: going back is a change of
//! length, as long as the ring is deep enough. The rows of a running step are kept apart until it
//! has succeeded, because each of them takes the place of one that a failed step must leave alone.

use std::ops::Range;

#[derive(Clone)]
struct Ring<T> {
    width: usize,
    rows: Vec<T>,
}

impl<T: Copy + Default> Ring<T> {
    fn new(width: usize, depth: usize) -> Ring<T> {
        Ring { width, rows: vec![T::default(); width * depth] }
    }

    fn at(&self, position: usize) -> Range<usize> {
        let start = position * self.width % self.rows.len();
        start..start + self.width
    }

    fn row(&self, position: usize) -> &[T] {
        &self.rows[self.at(position)]
    }

    fn write(&mut self, position: usize, row: &[T]) {
        let at = self.at(position);
        self.rows[at].copy_from_slice(row);
    }
}

/// The rows of the last positions.
#[derive(Clone)]
pub struct Tail<T> {
    depth: usize,
    kept: Ring<T>,
    /// Rows of the running step, from this position on.
    fresh: Option<(usize, Ring<T>)>,
}

impl<T: Copy + Default> Tail<T> {
    /// A tail that holds the last `depth` positions, each with a row of `width` values.
    pub fn new(width: usize, depth: usize) -> Tail<T> {
        Tail { depth, kept: Ring::new(width, depth), fresh: None }
    }

    /// Values of a row.
    pub fn width(&self) -> usize {
        self.kept.width
    }

    /// Starts a step that writes positions `from .. from + count`.
    pub fn begin(&mut self, from: usize, count: usize) {
        self.fresh = Some((from, Ring::new(self.kept.width, count.min(self.depth))));
    }

    /// Writes the row of a position of this step, after those of all positions before it.
    pub fn write(&mut self, position: usize, row: &[T]) {
        match &mut self.fresh {
            Some((_, fresh)) => fresh.write(position, row),
            None => self.kept.write(position, row),
        }
    }

    /// The row of a position, one of the last `depth`.
    pub fn row(&self, position: usize) -> &[T] {
        match &self.fresh {
            Some((from, fresh)) if position >= *from => fresh.row(position),
            _ => self.kept.row(position),
        }
    }

    /// Ends a step that has succeeded and reached length `len`.
    pub fn commit(&mut self, len: usize) {
        if let Some((from, fresh)) = self.fresh.take() {
            for position in from.max(len.saturating_sub(self.depth))..len {
                self.kept.write(position, fresh.row(position));
            }
        }
    }

    /// Ends a step that has failed.
    pub fn abandon(&mut self) {
        self.fresh = None;
    }

    /// The rows of some positions, one after another.
    pub fn copy(&self, positions: Range<usize>) -> Vec<T> {
        positions.flat_map(|position| self.row(position)).copied().collect()
    }

    /// Puts back the rows of the positions before `end`; of more than it can hold, the last ones.
    pub fn restore(&mut self, rows: &[T], end: usize) {
        let count = rows.len() / self.width();
        let skip = count.saturating_sub(self.depth);
        for (i, row) in rows.chunks_exact(self.width()).enumerate().skip(skip) {
            self.kept.write(end - count + i, row);
        }
    }

    /// Bytes that it takes.
    pub fn bytes(&self) -> usize {
        let fresh = self.fresh.as_ref().map_or(0, |(_, fresh)| fresh.rows.len());
        (self.kept.rows.len() + fresh) * size_of::<T>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(depth: usize, len: usize) -> Tail<usize> {
        let mut tail = Tail::new(1, depth);
        tail.begin(0, len);
        (0..len).for_each(|position| tail.write(position, &[position]));
        tail.commit(len);
        tail
    }

    #[test]
    fn a_failed_step_leaves_every_row_and_a_good_one_the_last() {
        for count in [1, 3, 5, 12] {
            let mut tail = filled(5, 7);
            tail.begin(7, count);
            (7..7 + count).for_each(|position| tail.write(position, &[100 + position]));
            assert_eq!(tail.row(6 + count), &[106 + count]);
            assert_eq!(tail.row(6), &[6]);
            let mut failed = tail.clone();
            failed.abandon();
            assert_eq!(failed.copy(2..7), [2, 3, 4, 5, 6]);
            tail.commit(7 + count);
            for position in 2 + count..7 + count {
                let want = if position < 7 { position } else { 100 + position };
                assert_eq!(tail.row(position), &[want]);
            }
        }
    }

    #[test]
    fn rows_come_back_where_they_were() {
        let tail = filled(5, 13);
        let mut other = Tail::new(1, 4);
        other.restore(&tail.copy(8..13), 13);
        assert_eq!(other.copy(9..13), [9, 10, 11, 12]);
    }
}
