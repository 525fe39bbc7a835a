//! Metadata values: the thirteen types of GGUF, seen in place.

use std::fmt;

use crate::{Array, Error, cursor::Cursor, error::shown};

/// Arrays may hold arrays. No file in use goes deeper than two; the walk recurses, so there is a
/// limit that no file can push.
const DEEPEST_ARRAY: u32 = 4;

/// The type of a metadata value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the types")]
pub enum ValueType {
    U8 = 0,
    I8 = 1,
    U16 = 2,
    I16 = 3,
    U32 = 4,
    I32 = 5,
    F32 = 6,
    Bool = 7,
    Str = 8,
    Array = 9,
    U64 = 10,
    I64 = 11,
    F64 = 12,
}

impl ValueType {
    const ALL: [ValueType; 13] = [
        ValueType::U8,
        ValueType::I8,
        ValueType::U16,
        ValueType::I16,
        ValueType::U32,
        ValueType::I32,
        ValueType::F32,
        ValueType::Bool,
        ValueType::Str,
        ValueType::Array,
        ValueType::U64,
        ValueType::I64,
        ValueType::F64,
    ];

    fn of_id(id: u32) -> Option<ValueType> {
        ValueType::ALL.into_iter().find(|ty| *ty as u32 == id)
    }

    /// The name that people know the type by.
    pub fn name(self) -> &'static str {
        match self {
            ValueType::U8 => "u8",
            ValueType::I8 => "i8",
            ValueType::U16 => "u16",
            ValueType::I16 => "i16",
            ValueType::U32 => "u32",
            ValueType::I32 => "i32",
            ValueType::F32 => "f32",
            ValueType::Bool => "bool",
            ValueType::Str => "string",
            ValueType::Array => "array",
            ValueType::U64 => "u64",
            ValueType::I64 => "i64",
            ValueType::F64 => "f64",
        }
    }

    /// The fewest bytes that a value takes; for all but strings and arrays, the only number.
    fn least_bytes(self) -> u64 {
        match self {
            ValueType::U8 | ValueType::I8 | ValueType::Bool => 1,
            ValueType::U16 | ValueType::I16 => 2,
            ValueType::U32 | ValueType::I32 | ValueType::F32 => 4,
            ValueType::U64 | ValueType::I64 | ValueType::F64 | ValueType::Str => 8,
            ValueType::Array => 12,
        }
    }

    pub(crate) fn read(cursor: &mut Cursor, what: &dyn fmt::Display) -> Result<Self, Error> {
        let id = cursor.u32(what)?;
        ValueType::of_id(id).ok_or_else(|| cursor.error(4, format!("{what} is {id}, not a type")))
    }
}

/// A metadata value. Strings are the bytes that the file has; [`crate::Meta::get_str`] checks them.
#[derive(Clone, Copy, Debug, PartialEq)]
#[expect(missing_docs, reason = "the names are the types")]
pub enum Value<'a> {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    Str(&'a [u8]),
    Array(Array<'a>),
    U64(u64),
    I64(i64),
    F64(f64),
}

impl<'a> Value<'a> {
    /// Reads one value and checks all of it: after this, walking it again can only fail if the file
    /// changes while it is mapped.
    pub(crate) fn read(
        cursor: &mut Cursor<'a>,
        ty: ValueType,
        key: &'a str,
    ) -> Result<Value<'a>, Error> {
        read_nested(cursor, ty, key, 0)
    }

    /// The type of the value.
    pub fn value_type(&self) -> ValueType {
        match self {
            Value::U8(_) => ValueType::U8,
            Value::I8(_) => ValueType::I8,
            Value::U16(_) => ValueType::U16,
            Value::I16(_) => ValueType::I16,
            Value::U32(_) => ValueType::U32,
            Value::I32(_) => ValueType::I32,
            Value::F32(_) => ValueType::F32,
            Value::Bool(_) => ValueType::Bool,
            Value::Str(_) => ValueType::Str,
            Value::Array(_) => ValueType::Array,
            Value::U64(_) => ValueType::U64,
            Value::I64(_) => ValueType::I64,
            Value::F64(_) => ValueType::F64,
        }
    }

    /// An integer of any width that is not negative.
    pub fn as_u64(&self) -> Option<u64> {
        match *self {
            Value::U8(v) => Some(v.into()),
            Value::U16(v) => Some(v.into()),
            Value::U32(v) => Some(v.into()),
            Value::U64(v) => Some(v),
            Value::I8(v) => v.try_into().ok(),
            Value::I16(v) => v.try_into().ok(),
            Value::I32(v) => v.try_into().ok(),
            Value::I64(v) => v.try_into().ok(),
            _ => None,
        }
    }

    /// Any number.
    pub fn as_f64(&self) -> Option<f64> {
        match *self {
            Value::F32(v) => Some(v.into()),
            Value::F64(v) => Some(v),
            Value::I8(v) => Some(v.into()),
            Value::I16(v) => Some(v.into()),
            Value::I32(v) => Some(v.into()),
            Value::I64(v) => Some(v as f64),
            _ => self.as_u64().map(|v| v as f64),
        }
    }

    /// The value as a file holds it, less its type.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        match *self {
            Value::U8(v) => out.push(v),
            Value::I8(v) => out.extend(v.to_le_bytes()),
            Value::U16(v) => out.extend(v.to_le_bytes()),
            Value::I16(v) => out.extend(v.to_le_bytes()),
            Value::U32(v) => out.extend(v.to_le_bytes()),
            Value::I32(v) => out.extend(v.to_le_bytes()),
            Value::F32(v) => out.extend(v.to_le_bytes()),
            Value::Bool(v) => out.push(v.into()),
            Value::Str(v) => {
                out.extend((v.len() as u64).to_le_bytes());
                out.extend(v);
            }
            Value::Array(v) => {
                out.extend((v.element_type() as u32).to_le_bytes());
                out.extend(v.len().to_le_bytes());
                out.extend(v.encoded());
            }
            Value::U64(v) => out.extend(v.to_le_bytes()),
            Value::I64(v) => out.extend(v.to_le_bytes()),
            Value::F64(v) => out.extend(v.to_le_bytes()),
        }
    }
}

/// For messages: the type, and the value of what fits on a line.
impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Str(_) => return f.write_str("a string"),
            Value::Array(v) => {
                return write!(f, "an array of {} {}", v.len(), v.element_type().name());
            }
            Value::Bool(v) => write!(f, "{v}")?,
            Value::U64(v) => write!(f, "{v}")?,
            Value::I64(v) => write!(f, "{v}")?,
            number => write!(f, "{}", number.as_f64().unwrap_or(f64::NAN))?,
        }
        write!(f, " ({})", self.value_type().name())
    }
}

fn read_nested<'a>(
    cursor: &mut Cursor<'a>,
    ty: ValueType,
    key: &'a str,
    depth: u32,
) -> Result<Value<'a>, Error> {
    let what = || format!("the {} of key `{}`", ty.name(), shown(key));
    let what = &Lazily(what);
    Ok(match ty {
        ValueType::U8 => Value::U8(u8::from_le_bytes(cursor.array(what)?)),
        ValueType::I8 => Value::I8(i8::from_le_bytes(cursor.array(what)?)),
        ValueType::U16 => Value::U16(u16::from_le_bytes(cursor.array(what)?)),
        ValueType::I16 => Value::I16(i16::from_le_bytes(cursor.array(what)?)),
        ValueType::U32 => Value::U32(cursor.u32(what)?),
        ValueType::I32 => Value::I32(i32::from_le_bytes(cursor.array(what)?)),
        ValueType::F32 => Value::F32(f32::from_le_bytes(cursor.array(what)?)),
        ValueType::U64 => Value::U64(cursor.u64(what)?),
        ValueType::I64 => Value::I64(i64::from_le_bytes(cursor.array(what)?)),
        ValueType::F64 => Value::F64(f64::from_le_bytes(cursor.array(what)?)),
        ValueType::Str => Value::Str(cursor.string(what)?),
        ValueType::Bool => match cursor.array(what)? {
            [byte @ 0..=1] => Value::Bool(byte == 1),
            [byte] => return Err(cursor.error(1, format!("{what} is {byte}, not 0 or 1"))),
        },
        ValueType::Array => {
            if depth == DEEPEST_ARRAY {
                let reason = format!("{what} is nested deeper than {DEEPEST_ARRAY} arrays");
                return Err(cursor.error(0, reason));
            }
            Value::Array(read_array(cursor, key, depth + 1)?)
        }
    })
}

fn read_array<'a>(cursor: &mut Cursor<'a>, key: &'a str, depth: u32) -> Result<Array<'a>, Error> {
    let place =
        |what: &'static str| Lazily(move || format!("{what} of the array of key `{}`", shown(key)));
    let element = ValueType::read(cursor, &place("the element type"))?;
    let len = cursor.count(element.least_bytes(), &place("the length"))?;
    let start = cursor.at();
    match element {
        ValueType::Bool | ValueType::Str | ValueType::Array => {
            for _ in 0..len {
                read_nested(cursor, element, key, depth)?;
            }
        }
        // Numbers of any bits are good numbers: nothing to look at.
        _ => {
            cursor.take(len * element.least_bytes(), &place("the elements"))?;
        }
    }
    Ok(Array::new(cursor.since(start), key, element, len))
}

/// Text for a message, made only if the message is.
struct Lazily<F>(F);

impl<F: Fn() -> String> fmt::Display for Lazily<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&(self.0)())
    }
}
