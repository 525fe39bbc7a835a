//! The mixture of experts: a router chooses a few experts for every token; one more is shared by all.
//!
//! Tokens are grouped by expert so that each weight is decoded once. What an expert gives a token is
//! kept apart and added in the order of the token's own choice, so company cannot change a sum.

use ds4_model::{Config, ExpertWeights, MoeWeights, Routing};

use crate::{
    floats::swiglu,
    matmul::{Product, multiply},
    operand::{Input, Quantiser},
    pool::Pool,
    round::{Pass, fit},
    split::RowsMut,
    stages::Part,
};

/// The smallest sum that expert weights are divided by.
const SMALLEST_SUM: f32 = 6.103_515_6e-5;

/// Working memory.
#[derive(Default)]
pub struct Moe {
    scores: Vec<f32>,
    gate: Vec<f32>,
    up: Vec<f32>,
    down: Vec<f32>,
    x_codes: Quantiser,
    routed_codes: Quantiser,
    shared_codes: Quantiser,
}

/// An expert that a token uses.
#[derive(Clone, Copy, Default)]
struct Pick {
    expert: usize,
    weight: f32,
}

/// Rows of the batch that one expert works on; in the buffers they follow those of the group before.
struct Group<'a> {
    expert: &'a ExpertWeights,
    limit: f32,
    /// Row of the batch, and the weight of the expert there.
    members: Vec<(usize, f32)>,
}

impl Moe {
    /// The experts of one layer: normalised inputs `x` `[n, hidden]` to `out` `[n, hidden]`.
    pub fn forward(
        &mut self,
        pool: &mut Pool,
        pass: &Pass<'_>,
        layer: usize,
        weights: &MoeWeights,
        x: &[f32],
        out: &mut Vec<f32>,
    ) {
        let (config, rows) = (pass.config, pass.round.rows());
        pool.meter.enter(Part::Route);
        let picks = self.route(pool, pass, weights, x);
        pool.meter.enter(Part::ExpertsIn);
        let (groups, places) = group(config, layer, weights, &picks, rows);

        let (inner, hidden) = (config.expert_hidden, config.hidden);
        let pairs = picks.len() + rows;
        let used = groups.iter().flat_map(|group| [&group.expert.gate, &group.expert.up]);
        let x = self.x_codes.quantise(pool, pass.activations, x, hidden, used);
        let gate = fit(&mut self.gate, pairs * inner);
        let up = fit(&mut self.up, pairs * inner);
        let mut products = Vec::with_capacity(2 * groups.len());
        let (mut gates, mut ups) = (gate.chunks_exact_mut(inner), up.chunks_exact_mut(inner));
        for group in &groups {
            let count = group.members.len();
            let inputs = group.members.iter().map(|&(row, _)| x.row(row));
            let rows = 0..inner;
            let (gate, up) = (&group.expert.gate, &group.expert.up);
            let gates = gates.by_ref().take(count);
            products.push(Product::of_rows(gate, rows.clone(), inputs.clone(), gates));
            let ups = ups.by_ref().take(count);
            products.push(Product::of_rows(up, rows, inputs, ups));
        }
        multiply(pool, products);

        let members: Vec<(f32, f32)> = groups
            .iter()
            .flat_map(|group| group.members.iter().map(|&(_, weight)| (weight, group.limit)))
            .collect();
        pool.rows(pairs, (RowsMut::new(gate, inner), RowsMut::new(up, inner)), |i, (g, u), _| {
            let (weight, limit) = members[i];
            swiglu(g, u, limit, weight);
        });

        pool.meter.enter(Part::ExpertsOut);
        let down = fit(&mut self.down, pairs * hidden);
        let (routed, shared) = gate.split_at(picks.len() * inner);
        let (of_routed, of_shared) = groups.split_at(groups.len() - 1);
        let used = of_routed.iter().map(|group| &group.expert.down);
        let routed = self.routed_codes.quantise(pool, pass.activations, routed, inner, used);
        let used = of_shared.iter().map(|group| &group.expert.down);
        let shared = self.shared_codes.quantise(pool, pass.activations, shared, inner, used);
        let middles: Vec<Input<'_>> = routed.rows().chain(shared.rows()).collect();
        let mut middles = middles.into_iter();
        let mut downs = down.chunks_exact_mut(hidden);
        let products = groups
            .iter()
            .map(|group| {
                let count = group.members.len();
                let inputs = middles.by_ref().take(count);
                let outputs = downs.by_ref().take(count);
                Product::of_rows(&group.expert.down, 0..hidden, inputs, outputs)
            })
            .collect();
        multiply(pool, products);

        let used = config.experts_used;
        let out = fit(out, rows * hidden);
        pool.rows(rows, RowsMut::new(out, hidden), |row, out, _| {
            let shared = picks.len() + row;
            out.copy_from_slice(&down[shared * hidden..][..hidden]);
            for place in &places[row * used..][..used] {
                let routed = &down[place * hidden..][..hidden];
                out.iter_mut().zip(routed).for_each(|(out, y)| *out += y);
            }
        });
    }

    /// The experts of every row, `[n, experts_used]`.
    fn route(
        &mut self,
        pool: &mut Pool,
        pass: &Pass<'_>,
        weights: &MoeWeights,
        x: &[f32],
    ) -> Vec<Pick> {
        let (config, round) = (pass.config, pass.round);
        let scores = fit(&mut self.scores, round.rows() * config.experts);
        let inputs = x.chunks_exact(config.hidden).map(Input::floats);
        let outputs = scores.chunks_exact_mut(config.experts);
        let router = &weights.router;
        multiply(pool, vec![Product::of_rows(router, 0..config.experts, inputs, outputs)]);
        let used = config.experts_used;
        let mut picks = vec![Pick::default(); round.rows() * used];
        let rows = (RowsMut::new(scores, config.experts), RowsMut::new(&mut picks, used));
        pool.rows(round.rows(), rows, |row, (scores, picks), _| {
            scores.iter_mut().for_each(|s| *s = softplus(*s).sqrt());
            match &weights.routing {
                Routing::Hash(table) => {
                    let ids = &table[round.tokens[row] as usize * used..][..used];
                    for (pick, &id) in picks.iter_mut().zip(ids) {
                        pick.expert = id as usize;
                    }
                }
                Routing::Scores(bias) => choose(scores, bias, picks),
            }
            // The bias took part in the choice; the weights are without it.
            let sum: f32 = picks.iter().map(|pick| scores[pick.expert]).sum();
            let sum = if sum < SMALLEST_SUM { SMALLEST_SUM } else { sum };
            for pick in picks {
                pick.weight = scores[pick.expert] / sum * config.routed_scale;
            }
        });
        picks
    }
}

/// Sorts the picks by expert, the shared one last. Also gives, for every pick, its place in the
/// groups laid one after another.
fn group<'a>(
    config: &Config,
    layer: usize,
    weights: &'a MoeWeights,
    picks: &[Pick],
    rows: usize,
) -> (Vec<Group<'a>>, Vec<usize>) {
    let mut order: Vec<usize> = (0..picks.len()).collect();
    order.sort_by_key(|&i| picks[i].expert);
    let mut places = vec![0; picks.len()];
    for (place, &pick) in order.iter().enumerate() {
        places[pick] = place;
    }
    let mut groups: Vec<Group<'_>> = order
        .chunk_by(|&a, &b| picks[a].expert == picks[b].expert)
        .map(|same| Group {
            expert: &weights.experts[picks[same[0]].expert],
            limit: config.swiglu_limit[layer],
            members: same.iter().map(|&i| (i / config.experts_used, picks[i].weight)).collect(),
        })
        .collect();
    groups.push(Group {
        expert: &weights.shared,
        limit: config.swiglu_limit_shared[layer],
        members: (0..rows).map(|row| (row, 1.0)).collect(),
    });
    (groups, places)
}

/// The experts with the largest biased scores, largest first; of equal ones the lower index.
fn choose(scores: &[f32], bias: &[f32], picks: &mut [Pick]) {
    let biased = |i: usize| scores[i] + bias[i];
    let better = |&a: &usize, &b: &usize| biased(b).total_cmp(&biased(a)).then(a.cmp(&b));
    let mut order: Vec<usize> = (0..scores.len()).collect();
    // Only the chosen ones have to be in order.
    if (1..order.len()).contains(&picks.len()) {
        order.select_nth_unstable_by(picks.len() - 1, better);
        order.truncate(picks.len());
    }
    order.sort_unstable_by(better);
    for (pick, expert) in picks.iter_mut().zip(order) {
        pick.expert = expert;
    }
}

fn softplus(x: f32) -> f32 {
    match x {
        _ if x > 20.0 => x,
        _ if x < -20.0 => x.exp(),
        _ => x.exp().ln_1p(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_scores_go_to_the_lower_index() {
        let mut picks = [Pick::default(); 2];
        choose(&[0.5, 0.25, 1.0, 0.5], &[0.0, 0.75, 0.0, 0.5], &mut picks);
        assert_eq!(picks.map(|pick| pick.expert), [1, 2]);
    }
}
