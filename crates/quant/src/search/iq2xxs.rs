//! IQ2_XXS: the nearest rows of the grid under the rule that signs are even in number.
//!
//! With `t` as the scale of a group, octet `x`, weights `w` and grid row `g`, the error is
//! `sum w x^2 - 2 t A + t^2 B`, where `A = sum w |x| g` and `B = sum w g^2` do not depend on `t`.
//! Where an odd number of values is negative, one sign must be wrong; wrong at `j` it takes
//! `2 w |x| g` of `j` off `A`, so the best place is where that is least. `A` and `B` of all 256 rows
//! are found once, and every scale is then tried against all of them: the choice is exact.

use super::{Block, Step, common_step, nearest};
use crate::iq2xxs_grid::GRID;

/// The largest magnitude of the grid.
const LARGEST: f32 = 43.0;
/// The scales tried first, as what the group's largest value would be on the grid: around the largest
/// magnitude, and the two others, for groups that reach no higher.
const REACHES: [f32; 14] =
    [34.0, 36.0, 38.0, 40.0, 41.5, LARGEST, 44.5, 46.0, 48.0, 50.0, 53.0, 56.0, 25.0, 8.0];
const ROUNDS: usize = 3;

/// Eight values against every row of the grid.
struct Octet {
    a: [f32; 256],
    b: [f32; 256],
    /// What each value would cost in `A` per unit of magnitude, if its sign were wrong.
    cost: [f32; 8],
    /// Bit set for minus.
    signs: u8,
}

impl Octet {
    fn new(x: &[f32; 8], w: &[f32; 8]) -> Octet {
        let cost: [f32; 8] = std::array::from_fn(|j| w[j] * x[j].abs());
        let minus = |signs: u8, j: usize| signs | u8::from(x[j] < 0.0) << j;
        let signs = (0..8).fold(0, minus);
        let odd = signs.count_ones() % 2 == 1;
        let (mut a, mut b) = ([0.0; 256], [0.0; 256]);
        for ((a, b), row) in a.iter_mut().zip(&mut b).zip(&GRID) {
            let g = row.map(f32::from);
            let mut least = f32::INFINITY;
            for j in 0..8 {
                let part = cost[j] * g[j];
                *a += part;
                *b += w[j] * g[j] * g[j];
                least = if part < least { part } else { least };
            }
            if odd {
                *a -= 2.0 * least;
            }
        }
        Octet { a, b, cost, signs }
    }

    /// The row with the least `t B - 2 A`.
    fn nearest_row(&self, t: f32) -> u8 {
        // Eight races at once, then one among their winners.
        let mut least = [f32::INFINITY; 8];
        let mut rows = [0u8; 8];
        let chunks = self.a.as_chunks::<8>().0.iter().zip(self.b.as_chunks::<8>().0);
        for (i, (a, b)) in chunks.enumerate() {
            for j in 0..8 {
                let error = t * b[j] - 2.0 * a[j];
                if error < least[j] {
                    least[j] = error;
                    rows[j] = (8 * i + j) as u8;
                }
            }
        }
        let winner = (1..8).fold(0, |best, j| if least[j] < least[best] { j } else { best });
        rows[winner]
    }

    /// Seven signs, with the parity put right where it costs least.
    fn stored_signs(&self, row: u8) -> u32 {
        let mut signs = self.signs;
        if signs.count_ones() % 2 == 1 {
            let g = GRID[usize::from(row)];
            let cost = |j: usize| self.cost[j] * f32::from(g[j]);
            let wrong = (1..8).fold(0, |best, j| if cost(j) < cost(best) { j } else { best });
            signs ^= 1 << wrong;
        }
        u32::from(signs & 127)
    }
}

/// 32 values under one scale.
struct Group([Octet; 4]);

/// The rows of a group with the sums of `A` and `B`.
#[derive(Clone, Copy, Default)]
struct Rows {
    rows: [u8; 4],
    a: f32,
    b: f32,
}

impl Rows {
    /// The scale that suits these rows best.
    fn scale(&self) -> f32 {
        if self.b > 0.0 { self.a / self.b } else { 0.0 }
    }

    /// What these rows take off the error at a scale, negated.
    fn error(&self, t: f32) -> f32 {
        t * (t * self.b - 2.0 * self.a)
    }
}

impl Group {
    fn new(x: &[f32], w: &[f32]) -> Group {
        let (x, w) = (x.as_chunks::<8>().0, w.as_chunks::<8>().0);
        Group(std::array::from_fn(|i| Octet::new(&x[i], &w[i])))
    }

    fn nearest_rows(&self, t: f32) -> Rows {
        let mut found = Rows::default();
        for (row, octet) in found.rows.iter_mut().zip(&self.0) {
            *row = octet.nearest_row(t);
            found.a += octet.a[usize::from(*row)];
            found.b += octet.b[usize::from(*row)];
        }
        found
    }

    /// The best rows when the scale is free.
    fn fit(&self, largest: f32) -> Rows {
        let mut best = Rows::default();
        for reach in REACHES {
            let rows = self.nearest_rows(largest / reach);
            if rows.error(rows.scale()) < best.error(best.scale()) {
                best = rows;
            }
        }
        for _ in 0..ROUNDS {
            let rows = self.nearest_rows(best.scale());
            if rows.error(rows.scale()) < best.error(best.scale()) {
                best = rows;
            } else {
                break;
            }
        }
        best
    }
}

/// What a stored scale is in units of `d`.
fn times(code: u8) -> f32 {
    (f32::from(code) + 0.5) * 0.25
}

/// The stored scale nearest to so many `d`.
fn code(times: f32) -> u8 {
    nearest(times * 4.0 - 0.5, 15.0) as u8
}

pub(super) fn encode(block: &Block, out: &mut [u8; 66]) {
    let parts = block.values.chunks_exact(32).zip(block.weights.chunks_exact(32));
    let groups: Vec<Group> = parts.map(|(x, w)| Group::new(x, w)).collect();
    let fits = groups.iter().zip(block.values.chunks_exact(32)).map(|(group, x)| {
        let rows = group.fit(x.iter().fold(0f32, |largest, x| largest.max(x.abs())));
        (rows.scale(), rows.b)
    });
    let fits: Vec<(f32, f32)> = fits.collect();

    let choose = |d: Step| {
        let mut chosen = [(0, Rows::default()); 8];
        let mut total = 0.0;
        for ((chosen, group), (scale, _)) in chosen.iter_mut().zip(&groups).zip(&fits) {
            let near = if d.value > 0.0 { code(scale / d.value) } else { 0 };
            let mut least = f32::INFINITY;
            for code in near.saturating_sub(1)..=(near + 1).min(15) {
                let t = d.value * times(code);
                let rows = group.nearest_rows(t);
                let error = rows.error(t);
                if error < least {
                    least = error;
                    *chosen = (code, rows);
                }
            }
            total += least;
        }
        (total, d, chosen)
    };
    // From the top down: of equals, the finest.
    let first = common_step(block, &fits, (0..16).rev().map(times), |x| times(code(x)));
    let mut best = choose(first);
    for _ in 0..ROUNDS {
        let (mut a, mut b) = (0.0, 0.0);
        for (code, rows) in best.2 {
            a += f64::from(times(code) * rows.a);
            b += f64::from(times(code).powi(2) * rows.b);
        }
        let next = choose(block.stored(a / b));
        if next.0 < best.0 {
            best = next;
        } else {
            break;
        }
    }

    let (_, d, chosen) = best;
    out[..2].copy_from_slice(&d.half.to_le_bytes());
    let places = out[2..].as_chunks_mut::<8>().0.iter_mut();
    for ((place, group), (code, rows)) in places.zip(&groups).zip(chosen) {
        let mut word = u32::from(code) << 28;
        for (l, (octet, row)) in group.0.iter().zip(rows.rows).enumerate() {
            place[l] = row;
            word |= octet.stored_signs(row) << (7 * l);
        }
        place[4..].copy_from_slice(&word.to_le_bytes());
    }
}
