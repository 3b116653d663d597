//! Numbers of expressions: JSON tokens to integers and doubles, comparison across the two, text forms.
//! Must not hold exact decimals (`core::decimal`).

use std::cmp::Ordering;
use std::io::Write;

use super::value::Value;
use crate::core::decimal::NumberError;

/// Room for the shortest form of any double, with exponent.
pub(super) type Buffer = [u8; 32];

/// 2^63: the first double above every integer.
const INTEGERS_END: f64 = 9_223_372_036_854_775_808.0;

/// A JSON number: an integer of 64 bits where it is written as one, a double otherwise.
pub(super) fn read(token: &[u8]) -> Result<Value<'static>, NumberError> {
    if let Some(value) = read_integer(token) {
        return Ok(Value::Int(value));
    }
    serde_json::from_slice::<serde::de::IgnoredAny>(token).map_err(|_| NumberError::Malformed)?;
    let text = std::str::from_utf8(token).map_err(|_| NumberError::Malformed)?;
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() => Ok(Value::Double(value)),
        Ok(_) => Err(NumberError::OutOfRange),
        Err(_) => Err(NumberError::Malformed),
    }
}

fn read_integer(token: &[u8]) -> Option<i64> {
    let (negative, digits) = match token.split_first() {
        Some((b'-', rest)) => (true, rest),
        _ => (false, token),
    };
    if digits.is_empty() || (digits.len() > 1 && digits[0] == b'0') {
        return None;
    }
    let mut value = 0i64;
    for byte in digits {
        if !byte.is_ascii_digit() {
            return None;
        }
        let digit = i64::from(byte - b'0');
        value = value
            .checked_mul(10)?
            .checked_add(if negative { -digit } else { digit })?;
    }
    Some(value)
}

/// Compares by worth, without rounding either; none when the double is no number.
pub(super) fn compare(integer: i64, double: f64) -> Option<Ordering> {
    if double.is_nan() {
        None
    } else if double >= INTEGERS_END {
        Some(Ordering::Less)
    } else if double < -INTEGERS_END {
        Some(Ordering::Greater)
    } else {
        let whole = double.trunc();
        // In range, so the conversion is exact.
        let order = integer.cmp(&(whole as i64));
        Some(order.then_with(|| whole.partial_cmp(&double).unwrap_or(Ordering::Equal)))
    }
}

/// Towards zero; nothing beyond 64 bits.
pub(super) fn truncate(double: f64) -> Option<i64> {
    let whole = double.trunc();
    (-INTEGERS_END..INTEGERS_END).contains(&whole).then_some(whole as i64)
}

/// Shortest decimal form that reads back as the same double, as `digits e exponent`.
pub(super) fn shortest(value: f64, buffer: &mut Buffer) -> &[u8] {
    let mut rest: &mut [u8] = buffer;
    // The longest form has 24 bytes, so this cannot fail; an empty text would be refused as no number.
    let written = write!(rest, "{value:e}");
    let left = rest.len();
    let len = if written.is_ok() { buffer.len() - left } else { 0 };
    &buffer[..len]
}

/// As CEL writes a double: shortest, with an exponent where the number is very large or small.
pub(super) fn to_text(value: f64) -> String {
    const PLAIN_FROM: f64 = 1e-4;
    const PLAIN_BELOW: f64 = 1e21;
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let magnitude = value.abs();
    if value == 0.0 || (PLAIN_FROM..PLAIN_BELOW).contains(&magnitude) {
        return format!("{value}");
    }
    let text = format!("{value:e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    match exponent.strip_prefix('-') {
        Some(digits) => format!("{mantissa}e-{digits:0>2}"),
        None => format!("{mantissa}e+{exponent:0>2}"),
    }
}
