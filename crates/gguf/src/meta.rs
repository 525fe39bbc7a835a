//! The metadata of a GGUF file: ordered keys with typed values.

use std::{ops::Range, path::PathBuf};

use ds4_host::Region;

use crate::{
    Array, Error, Value, ValueType,
    by_name::{ByName, Named},
    cursor::Cursor,
};

/// All keys of a file with their values, in the file's order.
///
/// The getters come in pairs: `get_…` gives `None` for a key that is absent, `need_…` an error.
/// Both give an error that names the file and the key when the value is of another type.
#[derive(Debug)]
pub struct Meta {
    file: PathBuf,
    region: Region,
    entries: ByName<Entry>,
}

#[derive(Debug)]
struct Entry {
    key: Box<str>,
    value: Stored,
}

/// Where a value is: numbers are copied out, the rest stays in the file.
#[derive(Debug)]
enum Stored {
    Number(Value<'static>),
    Str(Range<usize>),
    Array { element_type: ValueType, len: u64, elements: Range<usize> },
}

impl Stored {
    /// Notes a value that has just been read and ends at `end`.
    fn of(value: Value, end: usize) -> Stored {
        Stored::Number(match value {
            Value::Str(bytes) => return Stored::Str(end - bytes.len()..end),
            Value::Array(array) => {
                return Stored::Array {
                    element_type: array.element_type(),
                    len: array.len(),
                    elements: end - array.encoded().len()..end,
                };
            }
            Value::U8(v) => Value::U8(v),
            Value::I8(v) => Value::I8(v),
            Value::U16(v) => Value::U16(v),
            Value::I16(v) => Value::I16(v),
            Value::U32(v) => Value::U32(v),
            Value::I32(v) => Value::I32(v),
            Value::F32(v) => Value::F32(v),
            Value::Bool(v) => Value::Bool(v),
            Value::U64(v) => Value::U64(v),
            Value::I64(v) => Value::I64(v),
            Value::F64(v) => Value::F64(v),
        })
    }
}

impl Named for Entry {
    fn name(&self) -> &str {
        &self.key
    }
}

impl Meta {
    /// Reads `count` entries at the cursor, which must be one over `region`.
    pub(crate) fn read(cursor: &mut Cursor, count: u64, region: &Region) -> Result<Meta, Error> {
        let file = cursor.file();
        let mut entries = Vec::new();
        for i in 0..count {
            let key = cursor.name(&format_args!("key {i}"))?;
            let ty = ValueType::read(cursor, &format_args!("the type of key {i}"))?;
            let value = Value::read(cursor, ty, key)?;
            let value = Stored::of(value, cursor.at());
            entries.push(Entry { key: key.into(), value });
        }
        let entries = ByName::new(entries)
            .map_err(|entry| Error::key(file, &entry.key, "appears more than once"))?;
        Ok(Meta { file: file.to_owned(), region: region.clone(), entries })
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.entries.in_order().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All keys with their values, in the file's order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Value<'_>)> {
        self.entries.in_order().iter().map(|entry| (&*entry.key, self.value(entry)))
    }

    /// The value of a key, of whatever type.
    pub fn get(&self, key: &str) -> Option<Value<'_>> {
        self.entries.get(key).map(|entry| self.value(entry))
    }

    /// An integer of any width that is not negative.
    pub fn get_u64(&self, key: &str) -> Result<Option<u64>, Error> {
        self.typed(key, "a non-negative integer", |value| value.as_u64())
    }

    /// Like [`Meta::get_u64`], of a key that must be there.
    pub fn need_u64(&self, key: &str) -> Result<u64, Error> {
        self.present(key, self.get_u64(key)?)
    }

    /// Any number.
    pub fn get_f64(&self, key: &str) -> Result<Option<f64>, Error> {
        self.typed(key, "a number", |value| value.as_f64())
    }

    /// Like [`Meta::get_f64`], of a key that must be there.
    pub fn need_f64(&self, key: &str) -> Result<f64, Error> {
        self.present(key, self.get_f64(key)?)
    }

    /// A truth value.
    pub fn get_bool(&self, key: &str) -> Result<Option<bool>, Error> {
        self.typed(key, "true or false", |value| match value {
            Value::Bool(v) => Some(v),
            _ => None,
        })
    }

    /// Like [`Meta::get_bool`], of a key that must be there.
    pub fn need_bool(&self, key: &str) -> Result<bool, Error> {
        self.present(key, self.get_bool(key)?)
    }

    /// Text.
    pub fn get_str(&self, key: &str) -> Result<Option<&str>, Error> {
        let bytes = self.typed(key, "a string", |value| match value {
            Value::Str(v) => Some(v),
            _ => None,
        })?;
        let Some(bytes) = bytes else { return Ok(None) };
        str::from_utf8(bytes).map(Some).map_err(|fault| {
            let reason = format!("is not UTF-8 at byte {} of the text", fault.valid_up_to());
            Error::key(&self.file, key, reason)
        })
    }

    /// Like [`Meta::get_str`], of a key that must be there.
    pub fn need_str(&self, key: &str) -> Result<&str, Error> {
        self.present(key, self.get_str(key)?)
    }

    /// An array; its own iterators check the elements.
    pub fn get_array(&self, key: &str) -> Result<Option<Array<'_>>, Error> {
        self.typed(key, "an array", |value| match value {
            Value::Array(v) => Some(v),
            _ => None,
        })
    }

    /// Like [`Meta::get_array`], of a key that must be there.
    pub fn need_array(&self, key: &str) -> Result<Array<'_>, Error> {
        self.present(key, self.get_array(key)?)
    }

    fn typed<'a, T>(
        &'a self,
        key: &str,
        wanted: &str,
        read: impl Fn(Value<'a>) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let mistyped = || Error::key(&self.file, key, format!("must be {wanted}, but is {value}"));
        read(value).map(Some).ok_or_else(mistyped)
    }

    fn present<T>(&self, key: &str, value: Option<T>) -> Result<T, Error> {
        value.ok_or_else(|| Error::key(&self.file, key, "is missing"))
    }

    fn value<'a>(&'a self, entry: &'a Entry) -> Value<'a> {
        match &entry.value {
            Stored::Number(value) => *value,
            Stored::Str(bytes) => Value::Str(self.region.get(bytes.clone()).unwrap_or_default()),
            Stored::Array { element_type, len, elements } => {
                let whole = Cursor::new(&self.file, &self.region, elements.end);
                let elements = whole.since(elements.start);
                Value::Array(Array::new(elements, &entry.key, *element_type, *len))
            }
        }
    }
}
