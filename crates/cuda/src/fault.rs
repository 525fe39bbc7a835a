//! Where a forward pass first went wrong, and which tensor is to blame.

use ds4_engine::ExecError;
use ds4_model::{Matrix, Model};

/// A stage of the pass, by the number that kernels report it under: 0 is the embedding, then two for
/// each layer, attention and experts; one more is the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stage(pub usize);

impl Stage {
    /// What a word on the card says: nothing, or the first stage and its lowest row.
    pub fn reported(word: u32) -> Option<(Stage, usize)> {
        (word != u32::MAX).then_some((Stage((word >> 16) as usize), (word & 0xffff) as usize))
    }

    /// The error for people. It reads every weight of the place, which takes a while, but nothing can
    /// be computed with this model any more.
    pub fn explain(self, model: &Model, token: u32, position: usize) -> ExecError {
        let weights = &model.weights;
        let layer = (self.0.saturating_sub(1)) / 2;
        let (part, damage) = match weights.layers.get(layer) {
            _ if self.0 == 0 => ("in the embedding".to_owned(), weights.embedding.damage()),
            Some(of_layer) => {
                let part = if self.0 % 2 == 1 { "attention" } else { "experts" };
                let damage = of_layer.matrices().find_map(Matrix::damage);
                (format!("in the {part} of layer {layer}"), damage)
            }
            None => {
                let damage = weights.head_hc.function.damage();
                ("in the output".to_owned(), damage.or_else(|| weights.output.damage()))
            }
        };
        ExecError::NotFinite {
            place: format!("{part}, for token {token} at position {position}"),
            cause: match damage {
                Some(found) => {
                    let offset = found.offset;
                    format!("tensor {} has a damaged block at its byte {offset}", found.tensor)
                }
                None => "all its weights are finite, so the numbers must have grown out of range"
                    .to_owned(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Stage;

    #[test]
    fn a_word_is_a_stage_and_a_row() {
        assert_eq!(Stage::reported(u32::MAX), None);
        assert_eq!(Stage::reported(3 << 16 | 7), Some((Stage(3), 7)));
    }
}
