//! The merge table, and byte-pair encoding of one piece with it.
//!
//! Of all neighbouring symbols the pair of lowest rank merges first, the leftmost on ties, one merge
//! at a time, until no pair is in the table. The pairs wait in a heap, because a piece may be a word
//! or a megabyte without a space.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    hash::{BuildHasher, Hasher, RandomState},
};

/// No pair of this rank is in any table.
const NEVER: u32 = u32::MAX;

/// Which two tokens become which third, and in what order of preference.
pub(crate) struct Merges {
    /// The token of each single byte.
    bytes: Box<[u32; 256]>,
    ranks: HashMap<u64, u32, PairHash>,
    /// What a pair merges into, by rank.
    products: Vec<u32>,
}

impl Merges {
    pub(crate) fn new(bytes: Box<[u32; 256]>) -> Merges {
        let ranks = HashMap::with_hasher(PairHash::new());
        Merges { bytes, ranks, products: Vec::new() }
    }

    /// Adds the merge of next lower preference. A pair named twice keeps its first rank.
    pub(crate) fn push(&mut self, left: u32, right: u32, product: u32) {
        let Ok(rank) = u32::try_from(self.products.len()) else { return };
        self.products.push(product);
        self.ranks.entry(pair(left, right)).or_insert(rank);
    }

    pub(crate) fn len(&self) -> usize {
        self.products.len()
    }

    pub(crate) fn reserve(&mut self, merges: usize) {
        self.ranks.reserve(merges);
        self.products.reserve(merges);
    }

    /// Appends the tokens of one piece to `ids`.
    pub(crate) fn encode(&self, piece: &[u8], row: &mut Row, ids: &mut Vec<u32>) {
        row.fill(self, piece);
        while let Some(Reverse((rank, at))) = row.heap.pop() {
            // Unless a merge beside this pair has overtaken it.
            if row.symbols[at].rank == rank {
                row.merge(self, at, rank);
            }
        }
        row.append_to(ids);
    }

    fn rank(&self, left: u32, right: u32) -> u32 {
        self.ranks.get(&pair(left, right)).copied().unwrap_or(NEVER)
    }
}

fn pair(left: u32, right: u32) -> u64 {
    u64::from(left) << 32 | u64::from(right)
}

/// One symbol of the piece, in a list linked both ways. Merging keeps the left one and drops the
/// right one, so the first symbol stays at 0. Links that lead out of the row end the list.
struct Symbol {
    id: u32,
    /// Rank of the pair of this symbol and the next; [`NEVER`] too for a symbol that is gone.
    rank: u32,
    previous: usize,
    next: usize,
}

/// The piece being merged: scratch memory that outlives the piece.
#[derive(Default)]
pub(crate) struct Row {
    symbols: Vec<Symbol>,
    /// Rank and place of the left symbol of every pair that could merge when it was put here.
    heap: BinaryHeap<Reverse<(u32, usize)>>,
}

impl Row {
    fn fill(&mut self, merges: &Merges, piece: &[u8]) {
        self.heap.clear();
        self.symbols.clear();
        self.symbols.extend(piece.iter().enumerate().map(|(at, &byte)| Symbol {
            id: merges.bytes[usize::from(byte)],
            rank: NEVER,
            previous: at.wrapping_sub(1),
            next: at + 1,
        }));
        for at in 0..self.symbols.len() {
            self.pair_up(merges, at);
        }
    }

    /// Merges the symbol at `at` with the next one.
    fn merge(&mut self, merges: &Merges, at: usize, rank: u32) {
        let gone = self.symbols[at].next;
        let next = self.symbols[gone].next;
        self.symbols[gone].rank = NEVER;
        if let Some(symbol) = self.symbols.get_mut(next) {
            symbol.previous = at;
        }
        self.symbols[at].id = merges.products[rank as usize];
        self.symbols[at].next = next;
        self.pair_up(merges, at);
        self.pair_up(merges, self.symbols[at].previous);
    }

    /// Ranks the symbol at `at` with what now follows it.
    fn pair_up(&mut self, merges: &Merges, at: usize) {
        let Some(symbol) = self.symbols.get(at) else { return };
        let next = self.symbols.get(symbol.next);
        let rank = next.map_or(NEVER, |next| merges.rank(symbol.id, next.id));
        self.symbols[at].rank = rank;
        if rank != NEVER {
            self.heap.push(Reverse((rank, at)));
        }
    }

    fn append_to(&self, ids: &mut Vec<u32>) {
        let mut at = 0;
        while let Some(symbol) = self.symbols.get(at) {
            ids.push(symbol.id);
            at = symbol.next;
        }
    }
}

/// Hashes one pair of tokens with one multiplication: the table is asked several times a character.
/// The seed differs from run to run, so that no file can hold pairs that all meet in one place.
#[derive(Clone)]
struct PairHash {
    seed: u64,
}

impl PairHash {
    fn new() -> PairHash {
        PairHash { seed: RandomState::new().hash_one(0) }
    }
}

impl BuildHasher for PairHash {
    type Hasher = PairHasher;

    fn build_hasher(&self) -> PairHasher {
        PairHasher { state: self.seed }
    }
}

struct PairHasher {
    state: u64,
}

impl Hasher for PairHasher {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }

    fn write_u64(&mut self, value: u64) {
        // 2^64 divided by the golden ratio; both halves of the product carry all of the input.
        let product = u128::from(self.state ^ value) * 0x9E37_79B9_7F4A_7C15;
        self.state = (product >> 64) as u64 ^ product as u64;
    }

    fn finish(&self) -> u64 {
        self.state
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Bytes are their own tokens; `merges` are (left, right) and make 256, 257, ...
    fn table(merges: &[(u32, u32)]) -> Merges {
        let mut bytes = Box::new([0; 256]);
        for (id, byte) in bytes.iter_mut().enumerate() {
            *byte = id as u32;
        }
        let mut table = Merges::new(bytes);
        for (product, &(left, right)) in (256..).zip(merges) {
            table.push(left, right, product);
        }
        table
    }

    fn check(merges: &[(u32, u32)], piece: &str, expected: &[u32]) {
        let (mut row, mut ids) = (Row::default(), Vec::new());
        table(merges).encode(piece.as_bytes(), &mut row, &mut ids);
        assert_eq!(ids, expected, "{piece:?}");
    }

    const A: u32 = b'a' as u32;
    const B: u32 = b'b' as u32;
    const C: u32 = b'c' as u32;

    #[test]
    fn lowest_rank_first_then_leftmost() {
        check(&[(B, C), (A, B)], "abc", &[A, 256]);
        check(&[(A, B), (B, C)], "abc", &[256, C]);
        check(&[(A, A)], "aaaaa", &[256, 256, A]);
        check(&[(A, A), (256, 256)], "aaaaa", &[257, A]);
        check(&[], "abc", &[A, B, C]);
        check(&[(A, B)], "", &[]);
    }

    #[test]
    fn a_pair_named_twice_keeps_its_first_rank() {
        check(&[(A, B), (B, C), (A, B)], "ab", &[256]);
    }

    /// The rule, word for word.
    fn merge_plainly(merges: &Merges, piece: &str) -> Vec<u32> {
        let mut ids: Vec<u32> = piece.bytes().map(u32::from).collect();
        loop {
            let ranks = ids.windows(2).map(|pair| merges.rank(pair[0], pair[1])).enumerate();
            let Some((at, rank)) = ranks.min_by_key(|&(_, rank)| rank) else { return ids };
            let Some(&product) = merges.products.get(rank as usize) else { return ids };
            ids.splice(at..at + 2, [product]);
        }
    }

    proptest! {
        #[test]
        fn the_heap_merges_as_the_rule_says(
            merges in prop::collection::vec((97..101u32, 97..101u32), 0..6),
            more in prop::collection::vec((97..110u32, 97..110u32), 0..12),
            piece in "[a-d]{0,90}",
        ) {
            // The second group merges what the first one made.
            let made = |id: u32| if id < 101 { id } else { id - 101 + 256 };
            let more = more.into_iter().map(|(left, right)| (made(left), made(right)));
            let table = table(&merges.into_iter().chain(more).collect::<Vec<_>>());
            let (mut row, mut ids) = (Row::default(), Vec::new());
            table.encode(piece.as_bytes(), &mut row, &mut ids);
            prop_assert_eq!(ids, merge_plainly(&table, &piece));
        }
    }
}
