//! In which order the kernels meet the columns of a row.
//!
//! A format stores codes so that one shift or mask unpacks many at once, and what it unpacks together
//! is not what lies side by side. The activations are put into that order once, so that no kernel
//! ever shuffles them.

/// An order of the 256 columns of each superblock, or twice one of 128.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// As in the row.
    Natural,
    /// MXFP4: the first halves of four blocks of 32, then their second halves.
    Halves,
    /// The checkpoint's FP4: the even columns of 128, then the odd.
    EvenOdd,
    /// Q2_K: the first 32 columns of each 128, then the second 32, and so on.
    Quarters,
    /// Q4_K and Q5_K: sub-blocks of 32 as 0, 2, 1, 3, 4, 6, 5, 7.
    Nibbles,
    /// IQ2_XXS: every fourth column from the first, every fourth from the second, and so on.
    Fours,
}

impl Order {
    /// The column that stands at each place.
    pub fn columns(self) -> &'static [u8; 256] {
        static TABLES: [[u8; 256]; 6] = [
            table(Order::Natural),
            table(Order::Halves),
            table(Order::EvenOdd),
            table(Order::Quarters),
            table(Order::Nibbles),
            table(Order::Fours),
        ];
        &TABLES[self as usize]
    }
}

const fn table(order: Order) -> [u8; 256] {
    let mut columns = [0; 256];
    let mut place = 0;
    while place < 256 {
        columns[place] = column(order, place) as u8;
        place += 1;
    }
    columns
}

const fn column(order: Order, place: usize) -> usize {
    let (half, vector, byte) = (place / 128 * 128, place / 64, place % 64);
    match order {
        Order::Natural => place,
        Order::Halves => half + byte / 16 * 32 + place % 128 / 64 * 16 + byte % 16,
        Order::EvenOdd => half + 2 * byte + place % 128 / 64,
        Order::Quarters => byte / 32 * 128 + vector * 32 + byte % 32,
        Order::Nibbles => half + vector % 2 * 32 + byte / 32 * 64 + byte % 32,
        Order::Fours => 4 * byte + vector,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_order_is_a_permutation() {
        for order in [
            Order::Natural,
            Order::Halves,
            Order::EvenOdd,
            Order::Quarters,
            Order::Nibbles,
            Order::Fours,
        ] {
            let mut seen = [false; 256];
            for &column in order.columns() {
                seen[usize::from(column)] = true;
            }
            assert_eq!(seen, [true; 256], "{order:?}");
        }
    }
}
