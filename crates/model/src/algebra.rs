//! The arithmetic of the reference pass, for `f32` and `f64` alike: numbers, vectors, matrices.

use std::{
    fmt::Debug,
    ops::{AddAssign, Div, Neg},
};

use crate::Matrix;

/// A number that the reference pass computes with.
pub trait Real:
    ds4_quant::Real
    + Debug
    + PartialOrd
    + AddAssign
    + Div<Output = Self>
    + Neg<Output = Self>
    + Send
    + Sync
{
    /// e to this power.
    fn exp(self) -> Self;
    /// Logarithm of one plus this.
    fn ln_1p(self) -> Self;
    /// Square root.
    fn sqrt(self) -> Self;
}

macro_rules! real {
    ($t:ty) => {
        impl Real for $t {
            fn exp(self) -> Self {
                self.exp()
            }
            fn ln_1p(self) -> Self {
                self.ln_1p()
            }
            fn sqrt(self) -> Self {
                self.sqrt()
            }
        }
    };
}

real!(f32);
real!(f64);

/// A matrix, decoded.
pub(crate) struct Dense<T> {
    pub rows: usize,
    cols: usize,
    values: Vec<T>,
}

impl<T: Real> Dense<T> {
    pub fn new(matrix: &Matrix) -> Dense<T> {
        let mut row = vec![0.0; matrix.cols()];
        let mut values = Vec::with_capacity(matrix.rows() * matrix.cols());
        for r in 0..matrix.rows() {
            matrix.decode_row(r, &mut row);
            values.extend(row.iter().map(|&x| T::from_f64(x.into())));
        }
        Dense { rows: matrix.rows(), cols: matrix.cols(), values }
    }

    pub fn row(&self, r: usize) -> &[T] {
        &self.values[r * self.cols..][..self.cols]
    }

    pub fn times(&self, x: &[T]) -> Vec<T> {
        (0..self.rows).map(|r| dot(self.row(r), x)).collect()
    }
}

pub(crate) fn numbers<T: Real>(values: &[f32]) -> Vec<T> {
    values.iter().map(|&x| T::from_f64(x.into())).collect()
}

pub(crate) fn sum<T: Real>(values: impl IntoIterator<Item = T>) -> T {
    values.into_iter().fold(T::from_f64(0.0), |total, x| total + x)
}

pub(crate) fn dot<T: Real>(a: &[T], b: &[T]) -> T {
    sum(a.iter().zip(b).map(|(&a, &b)| a * b))
}

pub(crate) fn weighted_sum<T: Real, R: AsRef<[T]>>(weights: &[T], rows: &[R]) -> Vec<T> {
    let mut total = vec![T::from_f64(0.0); rows.first().map_or(0, |row| row.as_ref().len())];
    for (&w, row) in weights.iter().zip(rows) {
        total.iter_mut().zip(row.as_ref()).for_each(|(total, &x)| *total += w * x);
    }
    total
}

pub(crate) fn unit_rms<T: Real>(x: &[T], eps: f32) -> Vec<T> {
    let mean = dot(x, x) / T::from_f64(x.len() as f64);
    let scale = T::from_f64(1.0) / (mean + T::from_f64(eps.into())).sqrt();
    x.iter().map(|&x| x * scale).collect()
}

pub(crate) fn rms_norm<T: Real>(x: &[T], weight: &[T], eps: f32) -> Vec<T> {
    unit_rms(x, eps).iter().zip(weight).map(|(&x, &w)| x * w).collect()
}

pub(crate) fn softmax<T: Real>(logits: &[T]) -> Vec<T> {
    let max = logits.iter().copied().fold(logits[0], |a, b| if b > a { b } else { a });
    let powers: Vec<T> = logits.iter().map(|&x| (x - max).exp()).collect();
    let total = sum(powers.iter().copied());
    powers.into_iter().map(|p| p / total).collect()
}

pub(crate) fn sigmoid<T: Real>(x: T) -> T {
    T::from_f64(1.0) / (T::from_f64(1.0) + (-x).exp())
}

pub(crate) fn relu<T: Real>(x: T) -> T {
    if x > T::from_f64(0.0) { x } else { T::from_f64(0.0) }
}

pub(crate) fn softplus<T: Real>(x: T) -> T {
    match x.into() {
        big if big > 20.0 => x,
        small if small < -20.0 => x.exp(),
        _ => x.exp().ln_1p(),
    }
}

/// The indices of the `k` largest values, largest first; of equal ones the lower index is first.
pub(crate) fn largest<T: Real>(values: &[T], k: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[b].into().total_cmp(&values[a].into()).then(a.cmp(&b)));
    order.truncate(k);
    order
}
