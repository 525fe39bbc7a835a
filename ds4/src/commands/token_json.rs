//! A token in JSON: its id, its text, and its bytes, which alone are always exact.

use ds4_tokenizer::Tokenizer;
use serde_json::{Value, json};

/// A token as the dumps write it.
pub fn token(tokenizer: &Tokenizer, id: u32) -> Value {
    let bytes = tokenizer.token_bytes(id).unwrap_or_default();
    json!({"id": id, "text": text(bytes), "bytes": bytes})
}

/// The text where the bytes are text; otherwise each byte above ASCII stands for itself as a code point.
fn text(bytes: &[u8]) -> String {
    match str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.iter().map(|&byte| char::from(byte)).collect(),
    }
}

/// The same digits as a JSON value.
pub fn number(value: f32) -> Value {
    serde_json::from_str(&nine_digits(value)).unwrap_or_default()
}

/// A number as C's `%.9g` writes it, which every `f32` survives; `null` for what is no number in JSON.
pub fn nine_digits(value: f32) -> String {
    if !value.is_finite() {
        return "null".into();
    }
    let scientific = format!("{value:.8e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let trimmed = |digits: &str| match digits.contains('.') {
        true => digits.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => digits.to_owned(),
    };
    if !(-4..9).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{}e{sign}{:02}", trimmed(mantissa), exponent.abs());
    }
    let decimals = usize::try_from(8 - exponent).unwrap_or(0);
    trimmed(&format!("{value:.decimals$}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_look_like_cs() {
        for (value, text) in [
            (0.0, "0"),
            (1.0, "1"),
            (-1.5, "-1.5"),
            (0.1, "0.100000001"),
            (123456.78, "123456.781"),
            (1e9, "1e+09"),
            (999999999.0, "1e+09"),
            (1e-4, "9.99999975e-05"),
            (0.000123, "0.000123000005"),
            (1e-30, "1e-30"),
            (f32::MAX, "3.40282347e+38"),
            (f32::NAN, "null"),
            (f32::NEG_INFINITY, "null"),
        ] {
            assert_eq!(nine_digits(value), text);
        }
    }

    #[test]
    fn every_number_comes_back() {
        let mut bits = 1u32;
        for _ in 0..10_000 {
            bits = bits.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let value = f32::from_bits(bits);
            if value.is_finite() {
                assert_eq!(nine_digits(value).parse(), Ok(value));
            }
        }
    }

    #[test]
    fn text_that_is_none_shows_its_bytes() {
        assert_eq!(text("é".as_bytes()), "é");
        assert_eq!(text(&[b'a', 0xc3]), "aÃ");
    }
}
