//! RMS normalisation, with weights and without.

use crate::floats::dot;

/// One over the root mean square.
pub fn inverse_rms(x: &[f32], eps: f32) -> f32 {
    1.0 / (dot(x, x) / x.len() as f32 + eps).sqrt()
}

/// Divides by the root mean square.
pub fn unit_rms(x: &mut [f32], eps: f32) {
    let scale = inverse_rms(x, eps);
    x.iter_mut().for_each(|x| *x *= scale);
}

/// Divides by the root mean square and multiplies with the weights.
pub fn rms_norm(x: &mut [f32], weight: &[f32], eps: f32) {
    let scale = inverse_rms(x, eps);
    x.iter_mut().zip(weight).for_each(|(x, w)| *x = *x * scale * w);
}
