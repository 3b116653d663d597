//! Values of the batch oracle: fields of a JSON text, exact decimals, event times. Must not import engine code.

use super::{Reason, Unit};

const YEARS_0_TO_9999_MS: std::ops::RangeInclusive<i128> = -62_167_219_200_000..=253_402_300_799_999;

/// The raw text of a field; `None` when it is missing or null.
pub(super) fn field(root: &str, path: &[String]) -> Option<String> {
    found(root, path).filter(|raw| *raw != "null").map(str::to_owned)
}

/// The texts that an event becomes when each element of an array in turn stands in its place; none without the array.
/// `Err` when something else is there.
pub(super) fn exploded(root: &str, path: &[String]) -> Result<Vec<String>, Reason> {
    let Some(array) = found(root, path).filter(|raw| *raw != "null") else {
        return Ok(Vec::new());
    };
    if !array.starts_with('[') {
        return Err("FieldTypeInvalid");
    }
    let start = array.as_ptr() as usize - root.as_ptr() as usize;
    let (before, behind) = (&root[..start], &root[start + array.len()..]);
    let event = |element: &&str| format!("{before}{element}{behind}");
    Ok(elements(array).iter().map(event).collect())
}

fn found<'a>(root: &'a str, path: &[String]) -> Option<&'a str> {
    let mut raw = root;
    for part in path {
        let parts = elements(raw);
        raw = if raw.starts_with('[') {
            parts.get(part.parse::<usize>().ok()?).copied()?
        } else {
            let mut members = parts
                .iter()
                .filter_map(|member| member.split_at_checked(elements_end(member, b':')));
            let name = |text: &str| serde_json::from_str::<String>(text).ok();
            members.find(|(text, _)| name(text).as_ref() == Some(part))?.1[1..].trim()
        };
    }
    Some(raw)
}

/// The elements of an array or the members of an object, in a valid text; nothing for anything else.
fn elements(raw: &str) -> Vec<&str> {
    let Some(mut rest) = raw.strip_prefix(['{', '[']).map(|rest| &rest[..rest.len() - 1]) else {
        return Vec::new();
    };
    let mut list = Vec::new();
    while !rest.trim().is_empty() {
        let end = elements_end(rest, b',');
        list.push(rest[..end].trim());
        rest = rest.get(end + 1..).unwrap_or_default();
    }
    list
}

/// Index of the first `stop` outside strings, arrays and objects, or the length.
fn elements_end(text: &str, stop: u8) -> usize {
    let (mut depth, mut in_string, mut escaped) = (0, false, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth -= 1,
            _ if byte == stop && depth == 0 => return at,
            _ => {}
        }
    }
    text.len()
}

/// Whether a valid JSON value is a number.
pub(super) fn is_number(raw: &str) -> bool {
    raw.starts_with(|first: char| first == '-' || first.is_ascii_digit())
}

/// Milliseconds since the epoch, floored.
pub(super) fn time(unit: Unit, raw: &str) -> Result<i64, Reason> {
    let in_range = |ms: i128| {
        if YEARS_0_TO_9999_MS.contains(&ms) {
            Ok(ms as i64)
        } else {
            Err("TimestampOutOfRange")
        }
    };
    let ms_digits = match unit {
        Unit::Rfc3339 => return in_range(rfc3339(raw).ok_or("TimestampInvalid")?),
        Unit::Seconds => 3,
        Unit::Milliseconds => 0,
        Unit::Microseconds => -3,
        Unit::Nanoseconds => -6,
    };
    if !is_number(raw) {
        return Err("TimestampInvalid");
    }
    let (negative, digits, exponent) = parts(raw);
    let (head, tail) = cut(&digits, exponent + ms_digits).ok_or("TimestampOutOfRange")?;
    let floor = if negative {
        -head - i128::from(tail.bytes().any(|digit| digit != b'0'))
    } else {
        head
    };
    in_range(floor)
}

/// `"2023-11-16T18:15:46.6805900Z"` or with an offset, quotes included.
fn rfc3339(raw: &str) -> Option<i128> {
    let text: String = serde_json::from_str(raw).ok()?;
    let number = |range| {
        text.get(range)
            .filter(|t: &&str| t.bytes().all(|b| b.is_ascii_digit()))?
            .parse::<i128>()
            .ok()
    };
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    let fits = text.is_ascii() && &text[4..5] == "-" && &text[7..8] == "-" && &text[10..11] == "T";
    let rest = text.get(19..)?;
    let zone_at = rest.find(['Z', '+', '-'])?;
    let (fraction, zone) = rest.split_at(zone_at);
    let offset = match (zone, zone.len()) {
        ("Z", _) => 0,
        (_, 6) => (zone[1..3].parse::<i128>().ok()? * 60 + zone[4..6].parse::<i128>().ok()?) * 60_000,
        _ => return None,
    };
    let digits = fraction.strip_prefix('.').unwrap_or("0");
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let lengths = [31, 28 + i128::from(leap), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let days_in_month = *lengths.get(usize::try_from(month - 1).ok()?)?;
    if !fits || !(1..=days_in_month).contains(&day) || hour > 23 || minute > 59 || second > 59 || digits.is_empty() {
        return None;
    }
    let before = year - 1; // days since 0001-01-01, proleptic Gregorian
    let days = before * 365 + before.div_euclid(4) - before.div_euclid(100) + before.div_euclid(400) - 719_162
        + lengths[..(month - 1) as usize].iter().sum::<i128>()
        + day
        - 1;
    let ms: i128 = format!("{digits:0<3}")[..3].parse().ok()?;
    let local = ((days * 24 + hour) * 60 + minute) * 60_000 + second * 1000 + ms;
    Some(if zone.starts_with('-') {
        local + offset
    } else {
        local - offset
    })
}

/// Sign, significant digits without leading zeros, and the power of ten of the last digit.
fn parts(raw: &str) -> (bool, String, i64) {
    let (mantissa, exponent) = raw.split_once(['e', 'E']).unwrap_or((raw, "0"));
    let limit = if exponent.starts_with('-') {
        -1_000_000_000
    } else {
        1_000_000_000
    };
    let exponent = exponent
        .parse::<i64>()
        .unwrap_or(limit)
        .clamp(-1_000_000_000, 1_000_000_000);
    let unsigned = mantissa.trim_start_matches('-');
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
    let digits = format!("{whole}{fraction}").trim_start_matches('0').to_owned();
    (mantissa.starts_with('-'), digits, exponent - fraction.len() as i64)
}

/// `digits · 10^shift` as whole part (below 10^37) and the digits cut off behind it.
fn cut(digits: &str, shift: i64) -> Option<(i128, String)> {
    let whole = digits.len() as i64 + shift;
    match (digits.is_empty(), shift >= 0) {
        (true, _) => Some((0, String::new())),
        _ if whole > 37 => None,
        (_, true) => Some((
            format!("{digits}{}", "0".repeat(shift as usize)).parse().ok()?,
            String::new(),
        )),
        (_, false) if whole <= 0 => Some((0, format!("{}{digits}", "0".repeat(whole.abs().min(99) as usize)))),
        (_, false) => Some((
            digits[..whole as usize].parse().ok()?,
            digits[whole as usize..].to_owned(),
        )),
    }
}

/// The number times 10^`places`, half-even; `None` when it is beyond ±10^19.
pub fn scaled(raw: &str, places: i64) -> Option<i128> {
    let (negative, digits, exponent) = parts(raw);
    let (head, tail) = cut(&digits, exponent + places)?;
    let up = match tail.split_at_checked(1) {
        Some(("5", rest)) => rest.bytes().any(|digit| digit != b'0') || head % 2 == 1,
        Some((first, _)) => first > "5",
        None => false,
    };
    let rounded = head + i128::from(up);
    (rounded < 10i128.pow(31)).then_some(if negative { -rounded } else { rounded })
}

/// A number scaled by 10^12 as JSON: no trailing zeros, no exponent.
pub fn decimal(scaled: i128) -> String {
    let (whole, fraction) = (
        scaled.unsigned_abs() / 10u128.pow(12),
        scaled.unsigned_abs() % 10u128.pow(12),
    );
    let text = format!("{}{whole}.{fraction:012}", if scaled < 0 { "-" } else { "" });
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
