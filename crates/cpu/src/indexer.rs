//! The indexer of CSA layers: when a query sees more compressed rows than it may attend to, small
//! index rows and many small query heads decide which.

use ds4_model::{Compression, IndexerWeights};

use crate::{
    floats::dots,
    matmul::Product,
    operand::Operand,
    pool::{Pool, share},
    rope::rotate,
    round::{Pass, Span, fit},
    rows::RowFormat,
    scan::{Queries, ROWS, Tile, scan},
    segments::{SEGMENT, Segments},
    split::RowsMut,
};

/// Scores that are held at a time: a bound on memory where a million positions meet a long chunk.
const SCORES: usize = 1 << 22;

/// Working memory, and the choice.
#[derive(Default)]
pub struct Indexer {
    queries: Vec<f32>,
    /// The queries, where index rows are packed.
    packed: Vec<u8>,
    ready: Option<Queries>,
    weights: Vec<f32>,
    scores: Vec<f32>,
    /// `[n, top_k]`; only rows that see more than `top_k` have chosen.
    chosen: Vec<u32>,
}

/// The compressed rows that a query attends to, in order.
#[derive(Clone, Copy)]
pub enum Visible<'a> {
    /// The first so many.
    All(usize),
    /// These.
    Chosen(&'a [u32]),
}

/// Compressed rows that exist for the query at a position.
fn complete(position: usize, compression: Compression) -> usize {
    (position + 1).checked_div(compression.ratio()).unwrap_or(0)
}

impl Indexer {
    /// Whether any row of the round has to choose.
    pub fn needed(pass: &Pass<'_>) -> bool {
        let csa = Compression::Csa.ratio();
        pass.round.spans.iter().any(|span| span.end() / csa > pass.config.indexer.top_k)
    }

    /// The projections from which queries and head weights come; `x` is the normalised input and
    /// `qr` the normalised low-rank query.
    pub fn project<'p>(
        &'p mut self,
        weights: &'p IndexerWeights,
        x: Operand<'p>,
        qr: Operand<'p>,
        rows: usize,
    ) -> [Product<'p>; 2] {
        let queries = fit(&mut self.queries, rows * weights.q_b.rows());
        let head_weights = fit(&mut self.weights, rows * weights.proj.rows());
        [Product::new(&weights.q_b, qr, queries), Product::new(&weights.proj, x, head_weights)]
    }

    /// Rotates and rounds the queries and scales the weights of their heads.
    pub fn prepare(&mut self, pool: &mut Pool, pass: &Pass<'_>) {
        let (heads, dim) = (pass.config.indexer.heads, pass.config.indexer.dim);
        let scale = 1.0 / ((heads * dim) as f32).sqrt();
        self.weights.iter_mut().for_each(|w| *w *= scale);
        let format = pass.formats.index;
        self.packed.resize(pass.round.rows() * heads * format.bytes(), 0);
        let both =
            (RowsMut::new(&mut self.queries, dim), RowsMut::new(&mut self.packed, format.bytes()));
        // A query is rounded as the rows that it is held against.
        pool.rows(pass.round.rows() * heads, both, |i, (query, packed), _| {
            rotate(query, pass.round.turns(Compression::Csa, i / heads));
            format.pack(query, packed);
            format.unpack(packed, query);
        });
        self.ready = match format {
            RowFormat::Index(_) => Queries::new(dim),
            RowFormat::Attention(_) | RowFormat::Plain(_) => None,
        };
        if let Some(queries) = &mut self.ready {
            queries.replace(self.packed.chunks_exact(format.bytes()));
        }
        let top_k = pass.config.indexer.top_k;
        self.chosen.resize(pass.round.rows() * top_k, 0);
    }

    /// Chooses for every row of the span that sees more rows than it may attend to.
    pub fn choose(
        &mut self,
        pool: &mut Pool,
        pass: &Pass<'_>,
        span: &Span,
        format: RowFormat,
        rows: &Segments,
    ) {
        let top_k = pass.config.indexer.top_k;
        let sees = |row: usize| complete(pass.round.positions[row], Compression::Csa);
        let Some(mut first) = span.rows.clone().find(|&row| sees(row) > top_k) else { return };
        while first < span.rows.end {
            let count = (SCORES / sees(span.rows.end - 1)).clamp(1, span.rows.end - first);
            let width = sees(first + count - 1);
            self.score(pool, pass, first, count, format, rows, width);
            let scores = &self.scores;
            let chosen = &mut self.chosen[first * top_k..(first + count) * top_k];
            pool.rows(count, RowsMut::new(chosen, top_k), |i, chosen, _| {
                let scores = &scores[i * width..][..sees(first + i)];
                best(scores, chosen);
            });
            first += count;
        }
    }

    /// Scores index rows `0 .. width` for `count` rows of the round: the sum over the heads of their
    /// weight times what is positive of the product of query and row.
    #[expect(clippy::too_many_arguments, reason = "one inner step of `choose`")]
    fn score(
        &mut self,
        pool: &mut Pool,
        pass: &Pass<'_>,
        first: usize,
        count: usize,
        format: RowFormat,
        rows: &Segments,
        width: usize,
    ) {
        let (heads, dim) = (pass.config.indexer.heads, pass.config.indexer.dim);
        let queries = &self.queries[first * heads * dim..][..count * heads * dim];
        let weights = &self.weights[first * heads..][..count * heads];
        let mut rest: Vec<&mut [f32]> =
            fit(&mut self.scores, count * width).chunks_exact_mut(width).collect();
        let workers = pool.workers();
        let mut parts = Vec::with_capacity(workers);
        for worker in 0..workers {
            let (start, end) = (share(width, worker, workers), share(width, worker + 1, workers));
            let mine: Vec<&mut [f32]> = rest
                .iter_mut()
                .map(|rest| {
                    let (mine, others) = std::mem::take(rest).split_at_mut(end - start);
                    *rest = others;
                    mine
                })
                .collect();
            parts.push((start, end, mine));
        }
        let ready = self.ready.as_ref();
        pool.meter.count(width * format.bytes(), 2 * count * heads * width * dim);
        pool.each(parts, |(start, end, mut scores), scratch| match ready {
            Some(ready) => {
                let mut tile = Tile::new(ready);
                for from in (start..end).step_by(ROWS) {
                    let count = ROWS.min(end - from);
                    tile.unpack((from..from + count).map(|row| rows.row(row)));
                    for (i, scores) in scores.iter_mut().enumerate() {
                        let weights = &weights[i * heads..][..heads];
                        let found = scan(ready, (first + i) * heads, weights, &tile);
                        scores[from - start..][..count].copy_from_slice(&found[..count]);
                    }
                }
            }
            None => {
                let memory = scratch.floats(SEGMENT * (dim + 1));
                let (tile, products) = memory.split_at_mut(SEGMENT * dim);
                for from in (start..end).step_by(SEGMENT) {
                    let count = SEGMENT.min(end - from);
                    let (tile, products) = (&mut tile[..count * dim], &mut products[..count]);
                    for (i, values) in tile.chunks_exact_mut(dim).enumerate() {
                        format.unpack(rows.row(from + i), values);
                    }
                    for (i, scores) in scores.iter_mut().enumerate() {
                        let scores = &mut scores[from - start..][..count];
                        scores.fill(0.0);
                        let queries = queries[i * heads * dim..][..heads * dim].chunks_exact(dim);
                        for (query, w) in queries.zip(&weights[i * heads..]) {
                            dots(tile, query, products);
                            for (score, &product) in scores.iter_mut().zip(&*products) {
                                *score += product.max(0.0) * w;
                            }
                        }
                    }
                }
            }
        });
    }

    /// What a row of the round attends to in a layer of this kind.
    pub fn visible(&self, pass: &Pass<'_>, compression: Compression, row: usize) -> Visible<'_> {
        let top_k = pass.config.indexer.top_k;
        let count = complete(pass.round.positions[row], compression);
        if compression == Compression::Csa && count > top_k {
            Visible::Chosen(&self.chosen[row * top_k..][..top_k])
        } else {
            Visible::All(count)
        }
    }
}

/// The indices of the largest scores, as many as `chosen` has room for, in ascending order. Of equal
/// scores the lower index is chosen.
fn best(scores: &[f32], chosen: &mut [u32]) {
    let k = chosen.len();
    if k == 0 {
        return;
    }
    let mut order: Vec<u32> = (0..scores.len() as u32).collect();
    let score = |i: u32| scores[i as usize];
    order.select_nth_unstable_by(k - 1, |&a, &b| score(b).total_cmp(&score(a)).then(a.cmp(&b)));
    chosen.copy_from_slice(&order[..k]);
    chosen.sort_unstable();
}

#[cfg(test)]
mod tests {
    use super::best;

    #[test]
    fn the_largest_win_and_the_lower_index_breaks_ties() {
        let check = |scores: &[f32], want: &[u32]| {
            let mut chosen = vec![0; want.len()];
            best(scores, &mut chosen);
            assert_eq!(chosen, want, "{scores:?}");
        };
        check(&[1.0, 3.0, 2.0, 3.0], &[1, 3]);
        check(&[0.0, 5.0, 0.0, 0.0, 0.0], &[0, 1, 2]);
        check(&[-1.0, -2.0, -1.0], &[0]);
        check(&[f32::NAN, 1.0, f32::INFINITY], &[0, 2]);
    }
}
