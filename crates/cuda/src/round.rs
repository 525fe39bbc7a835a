//! The rows that go through the layers together: which they are, and what the kernels are told.

use ds4_engine::{Feed, Want};
use ds4_model::{Compression, Rope};

/// In place of a row of logits, or of a place for what is overwritten: there is none.
const NOWHERE: u32 = u32::MAX;
/// Bytes of the head of the upload: the place where a fault is reported.
pub const HEAD_BYTES: usize = 16;
/// Bytes of what the kernels are told of a row, but for its rotations.
pub const ROW_BYTES: usize = 48;
/// Rotations of a row.
const TURNS: usize = 4;

/// The rotation of a row in a window-only layer.
pub const TURN_WINDOW: u32 = 0;
/// The rotation of a row in a compressed layer.
pub const TURN_COMPRESSED: u32 = 1;
/// The rotation of a CSA row that the row completes.
pub const TURN_CSA: u32 = 2;
/// The rotation of an HCA row that the row completes.
pub const TURN_HCA: u32 = 3;

/// The frequencies of the two kinds of layer.
pub struct Frequencies {
    window_only: Vec<f64>,
    compressed: Vec<f64>,
}

impl Frequencies {
    /// Those of a model.
    pub fn new(rope: &Rope) -> Frequencies {
        Frequencies {
            window_only: rope.frequencies(Compression::None),
            compressed: rope.frequencies(Compression::Csa),
        }
    }

    /// Bytes of a row's rotations.
    pub fn turn_bytes(&self) -> usize {
        TURNS * self.window_only.len() * 2 * size_of::<f32>()
    }

    /// Writes cosine and sine of every pair, as `TURN_*` order them, but for compressed rows that the row
    /// does not complete: nobody reads those. Angles are `f64`: at a million positions an `f32` angle is
    /// off by hundredths.
    fn write(&self, position: usize, bytes: &mut [u8]) {
        let completed = |kind: Compression| {
            let length = position + 1;
            length.is_multiple_of(kind.ratio()).then(|| length - kind.ratio())
        };
        let tables = [
            (Some(position), &self.window_only),
            (Some(position), &self.compressed),
            (completed(Compression::Csa), &self.compressed),
            (completed(Compression::Hca), &self.compressed),
        ];
        let turns = bytes.chunks_exact_mut(8 * self.window_only.len().max(1));
        for ((position, frequencies), turns) in tables.into_iter().zip(turns) {
            let Some(position) = position else { continue };
            for (bytes, frequency) in turns.as_chunks_mut::<8>().0.iter_mut().zip(frequencies) {
                let (sin, cos) = (position as f64 * frequency).sin_cos();
                bytes[..4].copy_from_slice(&(cos as f32).to_le_bytes());
                bytes[4..].copy_from_slice(&(sin as f32).to_le_bytes());
            }
        }
    }
}

/// One row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Index of its feed in the batch.
    pub feed: usize,
    /// The token.
    pub token: u32,
    /// Its position.
    pub position: usize,
    /// Which row of the batch's logits it gives, or which of its shortlists.
    pub logits: Option<usize>,
    /// Where in its feed's share of the undo buffer, if it overwrites something worth saving.
    pub undo: Option<usize>,
    /// How many rows of the same feed stand before it in the round, one behind the other,
    pub before: usize,
    /// and how many behind it.
    pub after: usize,
}

/// Where a feed's slot lies on the card.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// Length before the step.
    pub len: usize,
    /// Its rings.
    pub arena: u64,
    /// Its table of pages.
    pub pages: u64,
    /// Where its share of the undo buffer begins, in rows.
    pub undo: usize,
}

/// What ends a round.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Rows of a round at most.
    pub rows: usize,
    /// Rows that give logits at most; at least one.
    pub wanted: usize,
    /// A slot pauses at multiples of this, if it is not 0.
    pub boundary: usize,
    /// The deepest ring: the places that later rows of a feed may be kept in belong to earlier ones.
    pub deepest: usize,
}

/// The next rows of a batch: as many as may go together, in the order of the feeds; a feed pauses
/// where its slot passes a boundary. Empty when everything is done.
pub fn next(batch: &[Feed<'_>], places: &[Place], done: &[usize], limits: Limits) -> Vec<Row> {
    let Limits { rows: most, wanted: most_wanted, boundary, deepest } = limits;
    let mut rows = Vec::new();
    let (mut logits_before, mut shortlists_before, mut wanted) = (0, 0, 0);
    for (feed, (fed, place)) in batch.iter().zip(places).enumerate() {
        let start = place.len + done[feed];
        let to_boundary = match boundary {
            0 => usize::MAX,
            distance => distance - start % distance,
        };
        let left = fed.tokens.len() - done[feed];
        let unwanted = match fed.want {
            Want::Nothing => left,
            Want::Last | Want::Shortlist { .. } => left.saturating_sub(1),
            Want::All => 0,
        };
        let count = left
            .min(most - rows.len())
            .min(to_boundary)
            .min(unwanted.saturating_add(most_wanted - wanted));
        wanted += count.saturating_sub(unwanted);
        for nth in 0..count {
            let i = done[feed] + nth;
            let is_last = i + 1 == fed.tokens.len();
            let logits = match fed.want {
                Want::Nothing => None,
                Want::Last => is_last.then_some(logits_before),
                Want::Shortlist { .. } => is_last.then_some(shortlists_before),
                Want::All => Some(logits_before + i),
            };
            rows.push(Row {
                feed,
                token: fed.tokens[i],
                position: place.len + i,
                logits,
                undo: (i < deepest).then_some(place.undo + i),
                before: nth,
                after: count - 1 - nth,
            });
        }
        match fed.want {
            Want::Shortlist { .. } => shortlists_before += 1,
            _ => logits_before += fed.want.rows(fed.tokens.len()),
        }
    }
    rows
}

/// The temperature at which the weights of a row are summed.
pub fn summed_at(want: Want) -> f32 {
    match want {
        Want::Shortlist { temperature } => temperature,
        _ => 1.0,
    }
}

/// Rows that give logits in a round whose rows are at most `rows`: logits are wide, and seldom is more
/// than one row of a round asked for them.
pub fn most_wanted(rows: usize) -> usize {
    rows.min(256)
}

/// Bytes of the upload for a round.
pub fn upload_bytes(rows: usize, frequencies: &Frequencies) -> usize {
    temperatures_at(rows, frequencies) + rows * size_of::<f32>()
}

/// Where in the upload the temperatures begin, one for each row that gives logits.
pub fn temperatures_at(rows: usize, frequencies: &Frequencies) -> usize {
    HEAD_BYTES + rows * (ROW_BYTES + frequencies.turn_bytes())
}

/// Writes what the kernels are told of a round: no fault yet, the rows, their rotations, temperatures.
pub fn write(
    rows: &[Row],
    batch: &[Feed<'_>],
    places: &[Place],
    frequencies: &Frequencies,
    bytes: &mut [u8],
) {
    let (bytes, temperatures) = bytes.split_at_mut(temperatures_at(rows.len(), frequencies));
    let (head, rest) = bytes.split_at_mut(HEAD_BYTES);
    head.fill(0xff);
    let (table, turns) = rest.split_at_mut(rows.len() * ROW_BYTES);
    let wants = rows.iter().filter(|row| row.logits.is_some()).map(|row| batch[row.feed].want);
    for (want, bytes) in wants.zip(temperatures.as_chunks_mut::<4>().0) {
        *bytes = summed_at(want).to_le_bytes();
    }
    let mut wanted = 0;
    let turns = turns.chunks_exact_mut(frequencies.turn_bytes());
    for ((row, bytes), turns) in rows.iter().zip(table.as_chunks_mut::<ROW_BYTES>().0).zip(turns) {
        let want = match row.logits {
            Some(_) => {
                wanted += 1;
                wanted - 1
            }
            None => NOWHERE,
        };
        let undo = row.undo.map_or(NOWHERE, |at| at as u32);
        let place = &places[row.feed];
        bytes[..8].copy_from_slice(&place.arena.to_le_bytes());
        bytes[8..16].copy_from_slice(&place.pages.to_le_bytes());
        let (before, after) = (row.before as u32, row.after as u32);
        let words = [row.token, row.position as u32, want, undo, before, after, 0, 0];
        for (bytes, word) in bytes[16..].as_chunks_mut::<4>().0.iter_mut().zip(words) {
            *bytes = word.to_le_bytes();
        }
        frequencies.write(row.position, turns);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ds4_engine::SlotId;

    fn rounds(batch: &[Feed<'_>], places: &[Place], limits: Limits) -> Vec<Vec<Row>> {
        let mut done = vec![0; batch.len()];
        let mut rounds = Vec::new();
        loop {
            let rows = next(batch, places, &done, limits);
            if rows.is_empty() {
                return rounds;
            }
            rows.iter().for_each(|row| done[row.feed] += 1);
            rounds.push(rows);
        }
    }

    #[test]
    fn feeds_fill_rounds_in_order_and_pause_at_boundaries() {
        let tokens: Vec<u32> = (0..10).collect();
        let feed = |slot, count, want| Feed { slot: SlotId(slot), tokens: &tokens[..count], want };
        let batch = [feed(0, 5, Want::Last), feed(1, 10, Want::All)];
        let place = |len, undo| Place { len, arena: 0, pages: 0, undo };
        let places = [place(0, 0), place(6, 5)];
        let limits = Limits { rows: 8, wanted: 8, boundary: 8, deepest: 4 };
        let rounds = rounds(&batch, &places, limits);
        let seen = |round: usize, row: usize| {
            let row = rounds[round][row];
            (row.feed, row.position, row.logits, row.undo)
        };
        assert_eq!(rounds[0].len(), 7, "the second feed pauses at position 8");
        assert_eq!(seen(0, 4), (0, 4, Some(0), None));
        assert_eq!(seen(0, 5), (1, 6, Some(1), Some(5)));
        assert_eq!(rounds[1].len(), 8);
        assert_eq!(seen(1, 7), (1, 15, Some(10), None));
        let beside = |row: usize| (rounds[0][row].before, rounds[0][row].after);
        assert_eq!([0, 4, 5, 6].map(beside), [(0, 4), (4, 0), (0, 1), (1, 0)]);
        assert_eq!(rounds.len(), 2);
    }

    #[test]
    fn a_row_turns_by_its_position_and_by_those_of_rows_that_it_completes() {
        let frequencies =
            Frequencies { window_only: vec![1.0, 0.01], compressed: vec![0.5, 0.001] };
        assert_eq!(frequencies.turn_bytes(), 64);
        for (position, csa, hca) in
            [(0, None, None), (3, Some(0), None), (255, Some(252), Some(128))]
        {
            let mut bytes = vec![0xff; 64];
            frequencies.write(position, &mut bytes);
            let tables = [
                (Some(position), [1.0, 0.01]),
                (Some(position), [0.5, 0.001]),
                (csa, [0.5, 0.001]),
                (hca, [0.5, 0.001]),
            ];
            let want = tables.iter().flat_map(|&(position, frequencies)| {
                let turn = |f: f64| {
                    position.map_or([0xff; 8], |position: usize| {
                        let (sin, cos) = (position as f64 * f).sin_cos();
                        let [sin, cos] = [sin, cos].map(|x| (x as f32).to_le_bytes());
                        let mut both = [0; 8];
                        both[..4].copy_from_slice(&cos);
                        both[4..].copy_from_slice(&sin);
                        both
                    })
                };
                frequencies.map(turn).concat()
            });
            assert_eq!(bytes, want.collect::<Vec<u8>>(), "at {position}");
        }
    }

    #[test]
    fn no_round_wants_more_logits_than_there_is_room_for() {
        let tokens: Vec<u32> = (0..20).collect();
        let feed = |slot, count, want| Feed { slot: SlotId(slot), tokens: &tokens[..count], want };
        let place = |len| Place { len, arena: 0, pages: 0, undo: 0 };
        let limits = Limits { rows: 16, wanted: 3, boundary: 0, deepest: 0 };
        let batch = [
            feed(0, 5, Want::All),
            feed(1, 4, Want::Last),
            feed(2, 1, Want::Last),
            feed(3, 20, Want::Nothing),
        ];
        let rounds = rounds(&batch, &[0, 7, 9, 100].map(place), limits);
        let count = |round: &[Row], feed| round.iter().filter(|row| row.feed == feed).count();
        let counts: Vec<[usize; 4]> =
            rounds.iter().map(|round| [0, 1, 2, 3].map(|feed| count(round, feed))).collect();
        assert_eq!(counts, [[3, 3, 0, 10], [2, 1, 0, 10], [0, 0, 1, 0]]);
        let wanted = rounds.iter().flatten().filter_map(|row| row.logits);
        assert_eq!(wanted.collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn rows_of_logits_and_shortlists_are_counted_apart_and_have_temperatures() {
        let tokens: Vec<u32> = (0..20).collect();
        let short = |temperature| Want::Shortlist { temperature };
        let feed = |slot, count, want| Feed { slot: SlotId(slot), tokens: &tokens[..count], want };
        let place = |len| Place { len, arena: 0, pages: 0, undo: 0 };
        let limits = Limits { rows: 64, wanted: 64, boundary: 8, deepest: 0 };
        let batch = [
            feed(0, 9, short(0.5)),
            feed(1, 2, Want::All),
            feed(2, 1, short(0.25)),
            feed(3, 1, Want::Nothing),
            feed(4, 3, Want::Last),
            feed(5, 1, short(2.0)),
        ];
        let places = [0, 7, 0, 0, 0, 0].map(place);
        let rounds = rounds(&batch, &places, limits);
        let given = |round: &[Row]| -> Vec<(usize, usize)> {
            round.iter().filter_map(|row| Some((row.feed, row.logits?))).collect()
        };
        assert_eq!(given(&rounds[0]), [(1, 0), (2, 1), (4, 2), (5, 2)]);
        assert_eq!(given(&rounds[1]), [(0, 0), (1, 1)]);

        let frequencies = Frequencies { window_only: vec![1.0], compressed: vec![0.5] };
        for (round, wanted) in rounds.iter().zip([&[1.0, 0.25, 1.0, 2.0][..], &[0.5, 1.0]]) {
            let mut bytes = vec![0; upload_bytes(round.len(), &frequencies)];
            write(round, &batch, &places, &frequencies, &mut bytes);
            let at = temperatures_at(round.len(), &frequencies);
            let told =
                bytes[at..].as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes));
            assert_eq!(told.take(wanted.len()).collect::<Vec<_>>(), wanted);
        }
    }

    /// What a failed step puts back: of each ring the first positions that the step took, as many as it
    /// holds. All of them must be saved, from before the step, however long its rounds are.
    #[test]
    fn every_place_of_a_ring_is_saved_before_a_step_takes_it() {
        let tokens: Vec<u32> = (0..100).collect();
        let batch = [Feed { slot: SlotId(0), tokens: &tokens, want: Want::Last }];
        let places = [Place { len: 33, arena: 0, pages: 0, undo: 5 }];
        let (depths, deepest) = ([7, 19, 23], 23);
        for rows in [1, 4, 8, 22, 23, 24, 64, 128] {
            let limits = Limits { rows, wanted: 1, boundary: 0, deepest };
            for (depth, at_once) in depths.into_iter().flat_map(|d| [(d, true), (d, false)]) {
                let (mut ring, mut saved) = (vec![None; depth], vec![None; 5 + deepest]);
                for round in rounds(&batch, &places, limits) {
                    for row in &round {
                        if let Some(undo) = row.undo {
                            saved[undo] = Some(ring[row.position % depth]);
                        }
                    }
                    for row in round.iter().filter(|row| at_once || row.after < depth) {
                        ring[row.position % depth] = Some(row.position);
                    }
                }
                assert_eq!(saved[5..5 + depth], vec![Some(None); depth], "{rows} rows, {depth}");
            }
        }
    }
}
