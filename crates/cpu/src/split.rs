//! Rows of a buffer that can be cut in two, so that several workers may each change their own.

/// Rows, one for each token or head or pair, handed out one after another.
pub trait Rows: Send + Sized {
    /// What is handed out.
    type Row;

    /// The first `at` rows, and the others.
    fn split(self, at: usize) -> (Self, Self);

    /// The next row.
    fn next_row(&mut self) -> Option<Self::Row>;
}

/// The rows of a buffer, `width` values each.
pub struct RowsMut<'a, T> {
    data: &'a mut [T],
    width: usize,
}

impl<'a, T> RowsMut<'a, T> {
    /// The rows of `data`.
    pub fn new(data: &'a mut [T], width: usize) -> RowsMut<'a, T> {
        RowsMut { data, width }
    }
}

impl<'a, T: Send> Rows for RowsMut<'a, T> {
    type Row = &'a mut [T];

    fn split(self, at: usize) -> (Self, Self) {
        let (head, tail) = self.data.split_at_mut(at * self.width);
        (RowsMut::new(head, self.width), RowsMut::new(tail, self.width))
    }

    fn next_row(&mut self) -> Option<Self::Row> {
        let row;
        (row, self.data) = std::mem::take(&mut self.data).split_at_mut_checked(self.width)?;
        Some(row)
    }
}

impl<A: Rows, B: Rows> Rows for (A, B) {
    type Row = (A::Row, B::Row);

    fn split(self, at: usize) -> (Self, Self) {
        let (a, a_rest) = self.0.split(at);
        let (b, b_rest) = self.1.split(at);
        ((a, b), (a_rest, b_rest))
    }

    fn next_row(&mut self) -> Option<Self::Row> {
        Some((self.0.next_row()?, self.1.next_row()?))
    }
}
