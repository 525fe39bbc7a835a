//! The writer: one line, `", "` and `": "`, non-ASCII raw.

use std::fmt::Write;

use super::{Dialect, Value};

pub(super) fn push_value(value: &Value, dialect: Dialect, out: &mut String) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(true) => out.push_str("true"),
        Value::Bool(false) => out.push_str("false"),
        Value::Int(int) => out.push_str(int.digits()),
        Value::Float(float) => push_json_float(*float, dialect, out),
        Value::String(text) => push_string(text, out),
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push_str(", ");
                }
                push_value(item, dialect, out);
            }
            out.push(']');
        }
        Value::Object(members) => {
            out.push('{');
            for (index, (key, member)) in members.iter().enumerate() {
                if index > 0 {
                    out.push_str(", ");
                }
                push_string(key, out);
                out.push_str(": ");
                push_value(member, dialect, out);
            }
            out.push('}');
        }
    }
}

fn push_string(text: &str, out: &mut String) {
    out.push('"');
    push_escaped(text, out);
    out.push('"');
}

/// Appends `text` as it stands between the quotes of a JSON string.
pub fn push_escaped(text: &str, out: &mut String) {
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            // Writing to a String cannot fail.
            control if control < ' ' => {
                let _ = write!(out, "\\u{:04x}", u32::from(control));
            }
            other => out.push(other),
        }
    }
}

fn push_json_float(float: f64, dialect: Dialect, out: &mut String) {
    if float.is_nan() {
        out.push_str("NaN");
    } else if float.is_infinite() {
        out.push_str(if float > 0.0 { "Infinity" } else { "-Infinity" });
    } else {
        push_finite(float, dialect, out);
    }
}

/// The shortest digits that read back as `float`, laid out as the dialect does.
pub(super) fn push_finite(float: f64, dialect: Dialect, out: &mut String) {
    let scientific = shortest(float);
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    // Both switch to the exponent form at 1e16; downwards Python does below 1e-4, the hosted API
    // below 1e-5.
    let smallest_fixed = match dialect {
        Dialect::Python => -4,
        Dialect::Hosted => -5,
    };
    if (smallest_fixed..16).contains(&exponent) {
        push_fixed(mantissa, exponent, out);
        return;
    }
    out.push_str(mantissa);
    out.push('e');
    out.push(if exponent < 0 { '-' } else { '+' });
    let width = match dialect {
        Dialect::Python => 2,
        Dialect::Hosted => 1,
    };
    let _ = write!(out, "{:0width$}", exponent.unsigned_abs());
}

/// The shortest digits as `d.ddde±x`. Where two numbers of that length are equally near, both
/// dialects take the even one and Rust the larger.
fn shortest(float: f64) -> String {
    let shortest = format!("{float:e}");
    let digits =
        shortest.bytes().take_while(|&byte| byte != b'e').filter(u8::is_ascii_digit).count();
    let nearest = format!("{float:.*e}", digits.saturating_sub(1));
    if nearest.parse() == Ok(float) { nearest } else { shortest }
}

/// Writes `d.ddd` times ten to the `exponent` without one, with at least one decimal.
fn push_fixed(mantissa: &str, exponent: i32, out: &mut String) {
    let digits = match mantissa.strip_prefix('-') {
        Some(digits) => {
            out.push('-');
            digits
        }
        None => mantissa,
    };
    let digits: String = digits.chars().filter(char::is_ascii_digit).collect();
    // How many digits stand before the point; not positive if there are zeros behind it first.
    let before = exponent + 1;
    if before <= 0 {
        out.push_str("0.");
        out.extend((before..0).map(|_| '0'));
        out.push_str(&digits);
        return;
    }
    let before = usize::try_from(before).unwrap_or(0);
    let (whole, fraction) = digits.split_at(before.min(digits.len()));
    out.push_str(whole);
    out.extend((digits.len()..before).map(|_| '0'));
    out.push('.');
    out.push_str(if fraction.is_empty() { "0" } else { fraction });
}
