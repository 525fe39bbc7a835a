//! The reader. It recurses, so its depth is bounded; it never allocates more than the text it was
//! given.

use super::{Dialect, Int, Object, Value};

/// How deeply arrays and objects may nest in the Python dialect. Python itself stops somewhere
/// below 1000, wherever its interpreter's own stack happens to end; no schema or argument comes
/// near either.
pub const MAX_DEPTH: usize = 512;

/// The hosted API's reader takes 127 levels.
const HOSTED_MAX_DEPTH: usize = 127;

/// Why a text is not JSON, and at which byte.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid JSON at byte {offset}: {reason}")]
pub struct JsonError {
    /// The byte offset in the text.
    pub offset: usize,
    /// What was expected or forbidden there.
    pub reason: &'static str,
}

pub(super) fn document(text: &str, dialect: Dialect) -> Result<Value, JsonError> {
    let mut reader = Reader { text, at: 0, dialect };
    let depth = match dialect {
        Dialect::Python => MAX_DEPTH,
        Dialect::Hosted => HOSTED_MAX_DEPTH,
    };
    let value = reader.value(depth)?;
    reader.skip_space();
    if reader.at < text.len() {
        Err(reader.error("expected the end of the text"))
    } else {
        Ok(value)
    }
}

struct Reader<'a> {
    text: &'a str,
    /// Always on a character boundary.
    at: usize,
    dialect: Dialect,
}

impl<'a> Reader<'a> {
    fn error(&self, reason: &'static str) -> JsonError {
        JsonError { offset: self.at, reason }
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or("")
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn take(&mut self, expected: &str) -> bool {
        let found = self.rest().starts_with(expected);
        if found {
            self.at += expected.len();
        }
        found
    }

    fn skip_space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    /// `depth` is how many more levels may open.
    fn value(&mut self, depth: usize) -> Result<Value, JsonError> {
        self.skip_space();
        match self.peek() {
            Some(b'{') => self.object(depth),
            Some(b'[') => self.array(depth),
            Some(b'"') => self.string().map(Value::String),
            Some(b'-' | b'0'..=b'9') if !self.rest().starts_with("-I") => self.number(),
            _ => self.literal(),
        }
    }

    fn literal(&mut self) -> Result<Value, JsonError> {
        const EVERYWHERE: [(&str, Value); 3] =
            [("null", Value::Null), ("true", Value::Bool(true)), ("false", Value::Bool(false))];
        const PYTHON_ONLY: [(&str, Value); 3] = [
            ("NaN", Value::Float(f64::NAN)),
            ("Infinity", Value::Float(f64::INFINITY)),
            ("-Infinity", Value::Float(f64::NEG_INFINITY)),
        ];
        let more: &[_] = if self.dialect == Dialect::Python { &PYTHON_ONLY } else { &[] };
        for (word, value) in EVERYWHERE.iter().chain(more) {
            if self.take(word) {
                return Ok(value.clone());
            }
        }
        Err(self.error("expected a value"))
    }

    fn array(&mut self, depth: usize) -> Result<Value, JsonError> {
        let depth = depth.checked_sub(1).ok_or_else(|| self.error("nested too deeply"))?;
        self.at += 1;
        let mut items = Vec::new();
        self.skip_space();
        if self.take("]") {
            return Ok(Value::Array(items));
        }
        loop {
            items.push(self.value(depth)?);
            self.skip_space();
            if self.take("]") {
                return Ok(Value::Array(items));
            }
            if !self.take(",") {
                return Err(self.error("expected `,` or `]`"));
            }
        }
    }

    fn object(&mut self, depth: usize) -> Result<Value, JsonError> {
        let depth = depth.checked_sub(1).ok_or_else(|| self.error("nested too deeply"))?;
        self.at += 1;
        let mut members: Vec<(String, Value)> = Vec::new();
        self.skip_space();
        if self.take("}") {
            return Ok(Value::Object(Object::default()));
        }
        loop {
            self.skip_space();
            if self.peek() != Some(b'"') {
                return Err(self.error("expected a key in double quotes"));
            }
            let key = self.string()?;
            self.skip_space();
            if !self.take(":") {
                return Err(self.error("expected `:`"));
            }
            members.push((key, self.value(depth)?));
            self.skip_space();
            if self.take("}") {
                return Ok(Value::Object(members.into_iter().collect()));
            }
            if !self.take(",") {
                return Err(self.error("expected `,` or `}`"));
            }
        }
    }

    fn string(&mut self) -> Result<String, JsonError> {
        self.at += 1;
        let mut out = String::new();
        loop {
            let rest = self.rest();
            let plain = rest
                .bytes()
                .position(|byte| byte == b'"' || byte == b'\\' || byte < 0x20)
                .ok_or_else(|| self.error("unterminated string"))?;
            out.push_str(rest.get(..plain).unwrap_or(""));
            self.at += plain;
            if self.take("\"") {
                return Ok(out);
            }
            if !self.take("\\") {
                return Err(self.error("control character in a string"));
            }
            out.push(self.escape()?);
        }
    }

    /// The character of an escape, after its backslash.
    fn escape(&mut self) -> Result<char, JsonError> {
        let simple = match self.peek() {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => return self.unicode_escape(),
            _ => return Err(self.error("unknown escape")),
        };
        self.at += 1;
        Ok(simple)
    }

    fn unicode_escape(&mut self) -> Result<char, JsonError> {
        let start = self.at;
        let unit = self.four_hex_digits()?;
        if let Some(character) = char::from_u32(unit) {
            return Ok(character);
        }
        // Half of a surrogate pair. Python would keep a lone one, but no UTF-8 text can.
        let lone = JsonError { offset: start, reason: "lone surrogate" };
        if !(0xd800..0xdc00).contains(&unit) || !self.take("\\") || self.peek() != Some(b'u') {
            return Err(lone);
        }
        let low = self.four_hex_digits()?;
        if !(0xdc00..0xe000).contains(&low) {
            return Err(lone);
        }
        char::from_u32(0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00)).ok_or(lone)
    }

    /// The value of `uXXXX`, with the reader on the `u`.
    fn four_hex_digits(&mut self) -> Result<u32, JsonError> {
        let digits = self
            .rest()
            .get(1..5)
            .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let unit = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
        let unit = unit.ok_or_else(|| self.error("expected four hexadecimal digits"))?;
        self.at += 5;
        Ok(unit)
    }

    fn number(&mut self) -> Result<Value, JsonError> {
        let start = self.at;
        self.take("-");
        if !self.take("0") && self.skip_digits() == 0 {
            return Err(self.error("expected a digit"));
        }
        let mut whole = true;
        if self.take(".") {
            whole = false;
            if self.skip_digits() == 0 {
                return Err(self.error("expected a digit"));
            }
        }
        if let Some(b'e' | b'E') = self.peek() {
            whole = false;
            self.at += 1;
            let _sign = self.take("+") || self.take("-");
            if self.skip_digits() == 0 {
                return Err(self.error("expected a digit"));
            }
        }
        let text = self.text.get(start..self.at).unwrap_or("");
        match (whole, self.dialect) {
            (true, Dialect::Python) => {
                Ok(Value::Int(Int(if text == "-0" { "0" } else { text }.into())))
            }
            (true, Dialect::Hosted)
                if text != "-0" && (text.parse::<i64>().is_ok() || text.parse::<u64>().is_ok()) =>
            {
                Ok(Value::Int(Int(text.into())))
            }
            _ => {
                let float: f64 = text
                    .parse()
                    .map_err(|_| JsonError { offset: start, reason: "malformed number" })?;
                if float.is_infinite() && self.dialect == Dialect::Hosted {
                    return Err(JsonError { offset: start, reason: "number out of range" });
                }
                Ok(Value::Float(float))
            }
        }
    }

    fn skip_digits(&mut self) -> usize {
        let start = self.at;
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
        self.at - start
    }
}
