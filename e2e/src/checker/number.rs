//! Decimals of the checker, scaled by 10^12. Must not be shared with the engine.

const ONE: i128 = 1_000_000_000_000;

/// A JSON number; `None` beyond ±10^19. Digits behind the twelfth are rounded half-even.
pub(super) fn parse(text: &str) -> Option<i128> {
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let exponent: i32 = exponent.parse().ok()?;
    let negative = mantissa.starts_with('-');
    let (whole, fraction) = mantissa
        .trim_start_matches('-')
        .split_once('.')
        .unwrap_or((mantissa.trim_start_matches('-'), ""));
    let digits: i128 = format!("{whole}{fraction}").parse().ok()?;
    let shift = exponent - i32::try_from(fraction.len()).ok()? + 12;
    let power = 10i128.checked_pow(shift.unsigned_abs());
    let magnitude = match (shift < 0, power) {
        (false, Some(power)) => digits.checked_mul(power)?,
        (false, None) => return None,
        (true, Some(power)) => divide_half_even(digits, power),
        (true, None) => 0,
    };
    (magnitude < ONE.checked_mul(10_000_000_000_000_000_000)?).then_some(if negative { -magnitude } else { magnitude })
}

/// `sum / count`, half-even.
pub(super) fn average(sum: i128, count: i128) -> i128 {
    divide_half_even(sum, count)
}

fn divide_half_even(value: i128, by: i128) -> i128 {
    let (quotient, rest) = (value.div_euclid(by), value.rem_euclid(by));
    match (rest * 2).cmp(&by) {
        std::cmp::Ordering::Less => quotient,
        std::cmp::Ordering::Greater => quotient + 1,
        std::cmp::Ordering::Equal => quotient + quotient.rem_euclid(2),
    }
}

/// As JSON text: no trailing zeros, no exponent.
pub(super) fn decimal(value: i128) -> String {
    let magnitude = value.unsigned_abs();
    let (whole, fraction) = (magnitude / ONE.unsigned_abs(), magnitude % ONE.unsigned_abs());
    let sign = if value < 0 { "-" } else { "" };
    if fraction == 0 {
        return format!("{sign}{whole}");
    }
    format!("{sign}{whole}.{}", format!("{fraction:012}").trim_end_matches('0'))
}
