//! Activations on their way into products: rows of floats and, for matrices with an integer kernel,
//! the same rows as signed bytes.
//!
//! A row is quantised once for all matrices that it meets. How, depends on the row and the format of
//! the matrix alone, never on the other rows.

use ds4_model::Matrix;

use crate::{
    options::Activations,
    pool::Pool,
    simd::{Activations as Codes, Form, Token},
    split::RowsMut,
};

/// Memory for quantised rows, kept from step to step.
#[derive(Default)]
pub struct Quantiser {
    forms: Vec<Quantised>,
}

/// Rows in one form; each is an allocation of its own so that the workers can share them out.
struct Quantised {
    form: Form,
    rows: Vec<Codes>,
}

/// Rows that are ready to be multiplied.
#[derive(Clone, Copy)]
pub struct Operand<'a> {
    floats: &'a [f32],
    width: usize,
    forms: &'a [Quantised],
}

/// One row of an operand.
#[derive(Clone, Copy)]
pub struct Input<'a> {
    /// The row.
    pub floats: &'a [f32],
    forms: &'a [Quantised],
    row: usize,
}

impl Quantiser {
    /// Rows of `width` floats, quantised as the matrices that they will meet want them.
    pub fn quantise<'a, 'm>(
        &'a mut self,
        pool: &mut Pool,
        activations: Activations,
        floats: &'a [f32],
        width: usize,
        matrices: impl IntoIterator<Item = &'m Matrix>,
    ) -> Operand<'a> {
        let mut wanted: Vec<Form> = Vec::new();
        if activations == Activations::Int8 {
            for form in matrices.into_iter().filter_map(|matrix| Form::of(matrix.format())) {
                if !wanted.contains(&form) {
                    wanted.push(form);
                }
            }
        }
        self.forms.retain(|quantised| wanted.contains(&quantised.form));
        let count = floats.len() / width;
        for form in wanted {
            let known = self.forms.iter().position(|quantised| quantised.form == form);
            let known = known.unwrap_or_else(|| {
                self.forms.push(Quantised { form, rows: Vec::new() });
                self.forms.len() - 1
            });
            let rows = &mut self.forms[known].rows;
            if rows.len() < count {
                rows.resize_with(count, || Codes::new(form));
            }
            pool.rows(count, RowsMut::new(rows, 1), |i, row, _| {
                row[0].quantise(&floats[i * width..][..width], width);
            });
        }
        Operand { floats, width, forms: &self.forms }
    }
}

impl<'a> Operand<'a> {
    /// One row.
    pub fn row(&self, row: usize) -> Input<'a> {
        let floats = &self.floats[row * self.width..][..self.width];
        Input { floats, forms: self.forms, row }
    }

    /// All rows.
    pub fn rows(self) -> impl Iterator<Item = Input<'a>> + Clone {
        (0..self.floats.len() / self.width).map(move |row| self.row(row))
    }
}

impl<'a> Input<'a> {
    /// A row that only float kernels will meet.
    pub fn floats(floats: &'a [f32]) -> Input<'a> {
        Input { floats, forms: &[], row: 0 }
    }

    /// The row in a form, if it was quantised so.
    pub fn token(&self, form: Form) -> Option<Token<'a>> {
        let quantised = self.forms.iter().find(|quantised| quantised.form == form)?;
        Some(quantised.rows[self.row].token(0))
    }
}
