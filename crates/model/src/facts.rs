//! The keys of a model's description, whichever family of files it comes from.
//!
//! A GGUF and a checkpoint's `config.json` say the same things under different names. [`Key`] pairs
//! the names, [`Facts`] looks them up, and every error names the key as it stands in the file.

use std::path::{Path, PathBuf};

use ds4_gguf::{Gguf, Meta, shown};
use serde_json::Value;

use crate::ModelError;

/// One fact's name in either family. An empty name means that the family does not state it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Key {
    /// Without the `deepseek4.` prefix.
    pub gguf: &'static str,
    /// A JSON pointer without its leading slash.
    pub json: &'static str,
}

/// A description to look facts up in.
pub(crate) enum Facts<'a> {
    Gguf(&'a Gguf),
    Json { path: PathBuf, value: &'a Value },
}

const PREFIX: &str = "deepseek4.";

impl Facts<'_> {
    fn path(&self) -> &Path {
        match self {
            Facts::Gguf(gguf) => gguf.path(),
            Facts::Json { path, .. } => path,
        }
    }

    fn name(&self, key: Key) -> String {
        match self {
            Facts::Gguf(_) => format!("{PREFIX}{}", key.gguf),
            Facts::Json { .. } => key.json.replace('/', "."),
        }
    }

    /// An error about this key.
    pub fn wrong(&self, key: Key, reason: impl Into<String>) -> ModelError {
        ModelError::Key { path: self.path().to_owned(), key: self.name(key), reason: reason.into() }
    }

    fn mistyped(&self, key: Key, value: &Value, wanted: &str) -> ModelError {
        self.wrong(key, format!("{} is not {wanted}", shown(value)))
    }

    fn json(&self, key: Key) -> Option<&Value> {
        match self {
            Facts::Json { value, .. } if !key.json.is_empty() => {
                value.pointer(&format!("/{}", key.json)).filter(|v| !v.is_null())
            }
            _ => None,
        }
    }

    fn gguf(&self, key: Key) -> Option<(&Meta, String)> {
        match self {
            Facts::Gguf(gguf) if !key.gguf.is_empty() => Some((gguf.meta(), self.name(key))),
            _ => None,
        }
    }

    fn required<T>(&self, key: Key, found: Option<T>) -> Result<T, ModelError> {
        found.ok_or_else(|| self.wrong(key, "missing"))
    }

    /// A whole number, where it is stated.
    pub fn maybe_count(&self, key: Key) -> Result<Option<u64>, ModelError> {
        if let Some((meta, name)) = self.gguf(key) {
            return Ok(meta.get_u64(&name)?);
        }
        let Some(value) = self.json(key) else { return Ok(None) };
        match value.as_u64() {
            Some(count) => Ok(Some(count)),
            None => Err(self.mistyped(key, value, "a whole number")),
        }
    }

    /// A whole number between `least` and `most`.
    pub fn count(&self, key: Key, least: u64, most: u64) -> Result<usize, ModelError> {
        let count = self.required(key, self.maybe_count(key)?)?;
        self.within(key, count, least, most)
    }

    /// Checks a whole number.
    pub fn within(&self, key: Key, count: u64, least: u64, most: u64) -> Result<usize, ModelError> {
        if !(least..=most).contains(&count) {
            return Err(self.wrong(key, format!("{count} is outside {least} to {most}")));
        }
        usize::try_from(count).map_err(|_| self.wrong(key, "too large for this machine"))
    }

    /// A finite number, where it is stated.
    pub fn maybe_number(&self, key: Key) -> Result<Option<f64>, ModelError> {
        let number = if let Some((meta, name)) = self.gguf(key) {
            meta.get_f64(&name)?
        } else if let Some(value) = self.json(key) {
            let number = value.as_f64();
            Some(number.ok_or_else(|| self.mistyped(key, value, "a number"))?)
        } else {
            None
        };
        match number {
            Some(number) if !number.is_finite() => {
                Err(self.wrong(key, format!("{number} is not finite")))
            }
            number => Ok(number),
        }
    }

    /// A finite number.
    pub fn number(&self, key: Key) -> Result<f64, ModelError> {
        let number = self.maybe_number(key)?;
        self.required(key, number)
    }

    /// A finite number above zero.
    pub fn positive(&self, key: Key) -> Result<f64, ModelError> {
        let number = self.number(key)?;
        self.above_zero(key, number)
    }

    /// Checks that a number is above zero.
    pub fn above_zero(&self, key: Key, number: f64) -> Result<f64, ModelError> {
        if number > 0.0 {
            Ok(number)
        } else {
            Err(self.wrong(key, format!("{number} is not above zero")))
        }
    }

    /// Yes or no, where it is stated.
    pub fn maybe_bool(&self, key: Key) -> Result<Option<bool>, ModelError> {
        if let Some((meta, name)) = self.gguf(key) {
            return Ok(meta.get_bool(&name)?);
        }
        let Some(value) = self.json(key) else { return Ok(None) };
        match value.as_bool() {
            Some(yes) => Ok(Some(yes)),
            None => Err(self.mistyped(key, value, "true or false")),
        }
    }

    /// Text, where it is stated.
    pub fn maybe_text(&self, key: Key) -> Result<Option<String>, ModelError> {
        if let Some((meta, name)) = self.gguf(key) {
            return Ok(meta.get_str(&name)?.map(str::to_owned));
        }
        let Some(value) = self.json(key) else { return Ok(None) };
        match value.as_str() {
            Some(text) => Ok(Some(text.to_owned())),
            None => Err(self.mistyped(key, value, "text")),
        }
    }

    /// A list of at least `len` numbers, of which the first `len` are given; where it is stated.
    pub fn maybe_numbers(&self, key: Key, len: usize) -> Result<Option<Vec<f64>>, ModelError> {
        let numbers: Vec<f64> = if let Some((meta, name)) = self.gguf(key) {
            let Some(array) = meta.get_array(&name)? else { return Ok(None) };
            array.f64s().take(len).collect::<Result<_, _>>()?
        } else if let Some(value) = self.json(key) {
            let list = value.as_array();
            let list = list.ok_or_else(|| self.mistyped(key, value, "a list"))?;
            // What is no number becomes NaN, and is refused below with its place.
            list.iter().take(len).map(|x| x.as_f64().unwrap_or(f64::NAN)).collect()
        } else {
            return Ok(None);
        };
        if numbers.len() < len {
            let found = numbers.len();
            return Err(self.wrong(key, format!("{found} entries for {len} layers")));
        }
        match numbers.iter().position(|x| !x.is_finite()) {
            Some(i) => Err(self.wrong(key, format!("entry {i} is not a finite number"))),
            None => Ok(Some(numbers)),
        }
    }

    /// A list as in [`Facts::maybe_numbers`].
    pub fn numbers(&self, key: Key, len: usize) -> Result<Vec<f64>, ModelError> {
        let numbers = self.maybe_numbers(key, len)?;
        self.required(key, numbers)
    }
}
