//! Exact decimals: numbers are read as mantissa and exponent, held as multiples of 10^-12 and printed without loss.
//! Must not hold: floating point (binary doubles would make sums depend on their order).

use ethnum::I256;

/// Fractional digits that a value keeps.
pub const FRACTION_DIGITS: i32 = 12;
/// 10^12: one, in units of a decimal's last digit.
pub const ONE: i128 = 1_000_000_000_000;
/// A value has at most this many digits before the point: |x| < 10^19.
const INTEGER_DIGITS_MAX: i32 = 19;
/// Digits of a token that are kept; 10^38 fits in `u128`, and what is dropped is remembered as sticky.
const MANTISSA_DIGITS_MAX: i32 = 38;
/// Exponents beyond this are clamped; the verdict is the same and the arithmetic cannot overflow.
const EXPONENT_MAX: i32 = 1_000_000;

/// Why a token is no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NumberError {
    /// Not a JSON number.
    Malformed,
    /// |x| ≥ 10^19.
    OutOfRange,
}

/// How a remainder is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rounding {
    HalfEven,
    Floor,
}

/// A JSON number taken apart: ±`mantissa` · 10^`exponent`, plus less than one unit of `mantissa` when `sticky`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Parts {
    negative: bool,
    mantissa: u128,
    digits: i32,
    exponent: i32,
    sticky: bool,
}

/// Reads a JSON number as a multiple of 10^-12, rounded half-even.
///
/// # Errors
/// [`NumberError::Malformed`] for text that is no JSON number, [`NumberError::OutOfRange`] from ±10^19 on.
pub fn parse(token: &[u8]) -> Result<i128, NumberError> {
    match parse_short(token) {
        Some(value) => Ok(value),
        None => take_apart(token)?.scaled(FRACTION_DIGITS, Rounding::HalfEven),
    }
}

/// Reads a JSON number times 10^`power`, rounded down to an integer (towards −∞).
///
/// # Errors
/// [`NumberError::Malformed`] as [`parse`], [`NumberError::OutOfRange`] when the product has more than 31 digits.
pub fn parse_floor(token: &[u8], power: i32) -> Result<i128, NumberError> {
    take_apart(token)?.scaled(power, Rounding::Floor)
}

/// An integer in units of 10^-12.
pub fn from_integer(value: i64) -> i128 {
    i128::from(value) * ONE
}

/// Plain numbers of up to 18 digits without exponent, which is nearly all of them.
fn parse_short(token: &[u8]) -> Option<i128> {
    const DIGITS_MAX: usize = 18;
    const POWERS: [i128; 13] = powers();
    let (negative, digits) = match token.split_first() {
        Some((b'-', rest)) => (true, rest),
        _ => (false, token),
    };
    if digits.is_empty() || digits.len() > DIGITS_MAX + 1 {
        return None;
    }
    let mut mantissa = 0u64;
    let mut point = None;
    for (index, byte) in digits.iter().enumerate() {
        match byte {
            b'0'..=b'9' => mantissa = mantissa * 10 + u64::from(byte - b'0'),
            b'.' if point.is_none() && index > 0 => point = Some(index),
            _ => return None,
        }
    }
    let (integers, fractions) = match point {
        Some(index) => (index, digits.len() - index - 1),
        None => (digits.len(), 0),
    };
    let grammatical = (integers == 1 || digits[0] != b'0') && (point.is_none() || fractions > 0);
    if !grammatical || integers + fractions > DIGITS_MAX || fractions > 12 {
        return None;
    }
    let value = i128::from(mantissa) * POWERS[12 - fractions];
    Some(if negative { -value } else { value })
}

const fn powers() -> [i128; 13] {
    let mut table = [1i128; 13];
    let mut index = 1;
    while index < 13 {
        table[index] = table[index - 1] * 10;
        index += 1;
    }
    table
}

fn take_apart(token: &[u8]) -> Result<Parts, NumberError> {
    let mut parts = Parts {
        negative: false,
        mantissa: 0,
        digits: 0,
        exponent: 0,
        sticky: false,
    };
    let mut rest = token;
    if let Some((b'-', tail)) = rest.split_first() {
        parts.negative = true;
        rest = tail;
    }
    let integers = leading_digits(rest);
    if integers == 0 || (integers > 1 && rest[0] == b'0') {
        return Err(NumberError::Malformed);
    }
    for digit in &rest[..integers] {
        parts.push(*digit, 0);
    }
    rest = &rest[integers..];
    if let Some((b'.', tail)) = rest.split_first() {
        let fractions = leading_digits(tail);
        if fractions == 0 {
            return Err(NumberError::Malformed);
        }
        for digit in &tail[..fractions] {
            parts.push(*digit, -1);
        }
        rest = &tail[fractions..];
    }
    if let Some((b'e' | b'E', tail)) = rest.split_first() {
        let (sign, tail) = match tail.split_first() {
            Some((b'-', tail)) => (-1, tail),
            Some((b'+', tail)) => (1, tail),
            _ => (1, tail),
        };
        let count = leading_digits(tail);
        if count == 0 {
            return Err(NumberError::Malformed);
        }
        let magnitude = tail[..count].iter().fold(0i32, |sum, digit| {
            (sum * 10 + i32::from(digit - b'0')).min(EXPONENT_MAX)
        });
        parts.exponent = parts.exponent.saturating_add(sign * magnitude);
        rest = &tail[count..];
    }
    if rest.is_empty() {
        Ok(parts)
    } else {
        Err(NumberError::Malformed)
    }
}

fn leading_digits(bytes: &[u8]) -> usize {
    bytes.iter().take_while(|byte| byte.is_ascii_digit()).count()
}

impl Parts {
    /// Appends a digit; `place` is −1 behind the point. Leading zeros carry no information but their place.
    fn push(&mut self, digit: u8, place: i32) {
        let digit = u128::from(digit - b'0');
        if self.digits < MANTISSA_DIGITS_MAX {
            self.mantissa = self.mantissa * 10 + digit;
            self.digits += i32::from(self.mantissa != 0);
            self.exponent += place;
        } else {
            self.sticky |= digit != 0;
            self.exponent += 1 + place;
        }
    }

    /// The value times 10^`power` as an integer; out of range when it has more digits than a decimal can hold.
    fn scaled(self, power: i32, rounding: Rounding) -> Result<i128, NumberError> {
        if self.mantissa == 0 {
            return Ok(0);
        }
        let shift = self.exponent.saturating_add(power);
        if self.digits.saturating_add(shift) > INTEGER_DIGITS_MAX + FRACTION_DIGITS {
            return Err(NumberError::OutOfRange);
        }
        let (quotient, remainder, divisor) = if shift >= 0 {
            (self.mantissa * pow10(shift), 0, 1)
        } else if -shift > MANTISSA_DIGITS_MAX {
            (0, 1, 3)
        } else {
            let divisor = pow10(-shift);
            (self.mantissa / divisor, self.mantissa % divisor, divisor)
        };
        let inexact = remainder != 0 || self.sticky;
        let up = match rounding {
            Rounding::Floor => self.negative && inexact,
            Rounding::HalfEven => {
                let rest = divisor - remainder;
                remainder > rest || (remainder == rest && (self.sticky || quotient % 2 == 1))
            }
        };
        let magnitude = (quotient + u128::from(up)) as i128;
        Ok(if self.negative { -magnitude } else { magnitude })
    }
}

fn pow10(exponent: i32) -> u128 {
    10u128.pow(exponent.unsigned_abs())
}

/// Appends `value` (in units of 10^-12) as a JSON number: no exponent, no trailing zeros, no `-0`.
pub fn write(value: i128, out: &mut Vec<u8>) {
    if value < 0 {
        out.push(b'-');
    }
    let magnitude = value.unsigned_abs();
    // u64 division is an instruction, u128 division a call; nearly all values take the first way.
    let (integer, fraction) = match u64::try_from(magnitude) {
        Ok(small) => (u128::from(small / ONE as u64), small % ONE as u64),
        Err(_) => (magnitude / ONE as u128, (magnitude % ONE as u128) as u64),
    };
    match u64::try_from(integer) {
        Ok(small) => write_integer(small, out),
        Err(_) => out.extend_from_slice(integer.to_string().as_bytes()),
    }
    write_fraction(fraction, out);
}

/// Appends an unsigned integer in decimal.
pub fn write_integer(mut value: u64, out: &mut Vec<u8>) {
    let mut digits = [0u8; 20];
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[start..]);
}

/// Appends a signed integer in decimal.
pub fn write_signed(value: i64, out: &mut Vec<u8>) {
    if value < 0 {
        out.push(b'-');
    }
    write_integer(value.unsigned_abs(), out);
}

fn write_fraction(mut fraction: u64, out: &mut Vec<u8>) {
    if fraction == 0 {
        return;
    }
    let mut digits = [0u8; 12];
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (fraction % 10) as u8;
        fraction /= 10;
    }
    let len = digits
        .iter()
        .rposition(|digit| *digit != b'0')
        .map_or(0, |last| last + 1);
    out.push(b'.');
    out.extend_from_slice(&digits[..len]);
}

/// An exact sum of decimals in 192 bits: no number of events that a log can hold overflows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExactSum {
    low: u128,
    high: i64,
}

impl ExactSum {
    /// From the words of [`Self::to_words`].
    pub fn from_words(words: [u64; 3]) -> Self {
        Self {
            low: u128::from(words[0]) | u128::from(words[1]) << 64,
            high: words[2] as i64,
        }
    }

    /// Three words, least significant first.
    pub fn to_words(self) -> [u64; 3] {
        [self.low as u64, (self.low >> 64) as u64, self.high as u64]
    }

    /// Adds a decimal.
    pub fn add(&mut self, value: i128) {
        let (low, carry) = self.low.overflowing_add(value as u128);
        self.low = low;
        self.high = self
            .high
            .wrapping_add((value >> 127) as i64)
            .wrapping_add(i64::from(carry));
    }

    /// Adds another sum.
    pub fn merge(&mut self, other: Self) {
        let (low, carry) = self.low.overflowing_add(other.low);
        self.low = low;
        self.high = self.high.wrapping_add(other.high).wrapping_add(i64::from(carry));
    }

    /// Takes another sum away.
    pub fn deduct(&mut self, other: Self) {
        let (low, borrow) = self.low.overflowing_sub(other.low);
        self.low = low;
        self.high = self.high.wrapping_sub(other.high).wrapping_sub(i64::from(borrow));
    }

    /// Appends the sum as a JSON number.
    pub fn write(self, out: &mut Vec<u8>) {
        match self.narrow() {
            Some(value) => write(value, out),
            None => write_wide(self.wide(), out),
        }
    }

    /// Appends the sum divided by `count`, rounded half-even to 12 fractional digits. `count` must not be 0.
    pub fn write_average(self, count: u64, out: &mut Vec<u8>) {
        match self.narrow() {
            Some(value) => write(divide_half_even(value, i128::from(count)), out),
            None => {
                let divisor = I256::from(count);
                let (quotient, remainder) = (self.wide() / divisor, self.wide() % divisor);
                let twice = remainder.abs() * I256::from(2u8);
                let odd = quotient % I256::from(2u8) != I256::ZERO;
                let away = twice > divisor || (twice == divisor && odd);
                let sign = if self.high < 0 { I256::MINUS_ONE } else { I256::ONE };
                write_wide(if away { quotient + sign } else { quotient }, out);
            }
        }
    }

    fn narrow(self) -> Option<i128> {
        let value = self.low as i128;
        ((value >> 127) as i64 == self.high).then_some(value)
    }

    fn wide(self) -> I256 {
        I256::from_words(i128::from(self.high), self.low as i128)
    }
}

fn divide_half_even(value: i128, divisor: i128) -> i128 {
    let (quotient, remainder) = (value / divisor, (value % divisor).abs());
    let rest = divisor - remainder;
    let away = remainder > rest || (remainder == rest && quotient % 2 != 0);
    if away { quotient + value.signum() } else { quotient }
}

fn write_wide(value: I256, out: &mut Vec<u8>) {
    let one = I256::from(ONE);
    if value < I256::ZERO {
        out.push(b'-');
    }
    out.extend_from_slice((value / one).abs().to_string().as_bytes());
    write_fraction((value % one).abs().as_u64(), out);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(value: i128) -> String {
        let mut out = Vec::new();
        write(value, &mut out);
        String::from_utf8(out).unwrap()
    }

    fn round_trip(token: &str) -> Result<String, NumberError> {
        parse(token.as_bytes()).map(text)
    }

    #[test]
    fn numbers_are_read_and_printed_without_loss() {
        for (token, expected) in [
            ("0", "0"),
            ("-0", "0"),
            ("-0.0", "0"),
            ("1", "1"),
            ("1.0", "1"),
            ("-12.50", "-12.5"),
            ("1e3", "1000"),
            ("1E+2", "100"),
            ("25e-1", "2.5"),
            ("0.000000000001", "0.000000000001"),
            ("1e-12", "0.000000000001"),
            ("1e-13", "0"),
            ("5e-13", "0"),
            ("1.5e-12", "0.000000000002"),
            ("2.5e-12", "0.000000000002"),
            (
                "2.50000000000000000000000000000000000000000000000000000001e-12",
                "0.000000000003",
            ),
            ("0.1000000000005", "0.1"),
            ("0.1000000000015", "0.100000000002"),
            ("9007199254740993", "9007199254740993"),
            ("9999999999999999999", "9999999999999999999"),
            ("-9999999999999999999.25", "-9999999999999999999.25"),
            ("0e999999999999", "0"),
            ("1e-999999999999", "0"),
            ("123456789012345678.5", "123456789012345678.5"),
            ("0.00000000000000000000000000000000000000000000000001", "0"),
            ("100000000000000000000000000000000000000000000000000e-45", "100000"),
        ] {
            assert_eq!(round_trip(token).as_deref(), Ok(expected), "{token}");
        }
    }

    #[test]
    fn numbers_beyond_the_range_and_malformed_ones_are_refused() {
        for token in [
            "1e19",
            "10000000000000000000",
            "-1e400",
            "99999999999999999999",
            "1e999999999999999999999",
        ] {
            assert_eq!(round_trip(token), Err(NumberError::OutOfRange), "{token}");
        }
        for token in [
            "", "-", "01", "-01", "1.", ".5", "1e", "1e+", "+1", "1x", "0x1", "1.5.2", "NaN", "1 ", "--1", "1.e3",
        ] {
            assert_eq!(round_trip(token), Err(NumberError::Malformed), "{token:?}");
        }
    }

    #[test]
    fn floor_goes_towards_minus_infinity() {
        for (token, power, expected) in [
            ("1.9999", 3, 1999),
            ("-1.9999", 3, -2000),
            ("-0.0001", 3, -1),
            ("1700000000123456789", -6, 1_700_000_000_123),
            ("-1", -6, -1),
            ("0.99999999999999999999999999", 0, 0),
            ("1e-50", 3, 0),
            ("-1e-50", 3, -1),
            ("253402300799999000000", -6, 253_402_300_799_999),
            ("-62167219200000000000", -6, -62_167_219_200_000),
        ] {
            assert_eq!(parse_floor(token.as_bytes(), power), Ok(expected), "{token}");
        }
    }

    #[test]
    fn sums_beyond_128_bits_stay_exact() {
        let largest = parse(b"9999999999999999999").unwrap();
        let mut sum = ExactSum::default();
        for _ in 0..40_000_000u64 / 1_000_000 {
            let mut part = ExactSum::default();
            for _ in 0..1000 {
                part.add(largest);
            }
            let mut block = ExactSum::default();
            for _ in 0..1000 {
                block.merge(part);
            }
            sum.merge(block);
        }
        let mut out = Vec::new();
        sum.write(&mut out);
        assert_eq!(String::from_utf8(out).unwrap(), "399999999999999999960000000");
        let mut out = Vec::new();
        sum.write_average(40_000_000, &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), "9999999999999999999");
        let mut negative = ExactSum::default();
        negative.add(-largest);
        for _ in 0..25 {
            negative.merge(negative);
        }
        assert!(negative.narrow().is_none());
        let mut out = Vec::new();
        negative.write(&mut out);
        assert_eq!(String::from_utf8(out).unwrap(), "-335544319999999999966445568");
        assert_eq!(ExactSum::from_words(negative.to_words()), negative);
    }

    #[test]
    fn averages_are_rounded_once_half_even() {
        for (values, count, expected) in [
            (vec!["1", "2"], 2, "1.5"),
            (vec!["1", "1", "2"], 3, "1.333333333333"),
            (vec!["2", "2", "1"], 3, "1.666666666667"),
            (vec!["-1", "-1", "-2"], 3, "-1.333333333333"),
            (vec!["0.000000000001", "0"], 2, "0"),
            (vec!["0.000000000003", "0"], 2, "0.000000000002"),
            (vec!["-0.000000000003", "0"], 2, "-0.000000000002"),
        ] {
            let mut sum = ExactSum::default();
            for value in values {
                sum.add(parse(value.as_bytes()).unwrap());
            }
            let mut out = Vec::new();
            sum.write_average(count, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }
}
