//! Which models the kernels know.

use ds4_model::{Compression, ExpertWeights, Matrix, Model, Routing};

use crate::{attend, experts, hyper, indexer, options::CudaError};

/// The kernels' limits. A real model is far from them; a file may say anything.
pub fn check_shape(model: &Model) -> Result<(), CudaError> {
    let c = &model.config;
    let refuse = |what: String| Err(CudaError::Shape { model: c.name.clone(), what });
    if ![1, 2, 4].contains(&c.streams) || c.streams > hyper::MOST_STREAMS {
        return refuse(format!("{} residual streams; the kernels know 1, 2 and 4", c.streams));
    }
    if !c.hidden.is_multiple_of(8) || c.hidden > hyper::WIDEST {
        let widest = hyper::WIDEST;
        return refuse(format!(
            "hidden width {}; multiples of 8 up to {widest} are known",
            c.hidden
        ));
    }
    if c.head_dim > attend::WIDEST
        || !c.head_dim.is_multiple_of(4)
        || !c.rope.dims.is_multiple_of(4)
    {
        let widest = attend::WIDEST;
        return refuse(format!(
            "heads of {} with {} rotary; multiples of 4 up to {widest} are known",
            c.head_dim, c.rope.dims
        ));
    }
    let dim = c.indexer.dim;
    let indexed = c.layers.contains(&Compression::Csa);
    if indexed && (dim > indexer::WIDEST || !dim.is_multiple_of(indexer::GROUP)) {
        return refuse(format!("index rows of {dim}; multiples of 32 up to 128 are known"));
    }
    if c.window == 0 || c.experts_used > c.experts || c.experts > experts::MOST {
        return refuse(format!(
            "a window of {}, {} of {} experts",
            c.window, c.experts_used, c.experts
        ));
    }
    if let Some(matrix) = model.weights.matrices().find(|m| !m.cols().is_multiple_of(4)) {
        return refuse(format!(
            "tensor {} has {} columns, no multiple of 4",
            matrix.name(),
            matrix.cols()
        ));
    }
    let part: [fn(&ExpertWeights) -> &Matrix; 3] = [|e| &e.gate, |e| &e.up, |e| &e.down];
    for layer in &model.weights.layers {
        for of in part {
            let mut formats = layer.moe.experts.iter().map(|e| of(e).format());
            let first = formats.next();
            if formats.any(|format| Some(format) != first) {
                return refuse("experts of one layer in several formats".to_owned());
            }
        }
        if let Routing::Hash(table) = &layer.moe.routing
            && table.iter().any(|&expert| expert as usize >= c.experts)
        {
            return refuse(format!("a token is routed beyond its {} experts", c.experts));
        }
    }
    Ok(())
}
