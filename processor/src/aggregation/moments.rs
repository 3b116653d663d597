//! Sums of squares and products in 256 bits, and what is computed from sums: quotients, variance, its root. Exact until
//! the one rounding at the end, half-even at 12 fractional digits.
//! Must not hold: where sums come from.

use ethnum::I256;
use num_bigint::BigInt;

use crate::core::decimal;

/// Units of 10^-12 in one.
const ONE: u64 = 1_000_000_000_000;

/// Adds `left · right` to a sum in four words, least significant first. A product is below 2^206: no number of events
/// that a log can hold overflows the sum.
pub fn add_product(words: &mut [u64], left: i128, right: i128) {
    write_wide(
        words,
        read_wide(words).wrapping_add(I256::from(left).wrapping_mul(I256::from(right))),
    );
}

/// Adds another such sum.
pub fn add_wide(words: &mut [u64], other: &[u64]) {
    write_wide(words, read_wide(words).wrapping_add(read_wide(other)));
}

/// Takes a two's complement number of four words away from another one.
pub fn deduct_wide(words: &mut [u64], other: &[u64]) {
    write_wide(words, read_wide(words).wrapping_sub(read_wide(other)));
}

fn read_wide(words: &[u64]) -> I256 {
    let half = |low: u64, high: u64| (u128::from(low) | u128::from(high) << 64) as i128;
    I256::from_words(half(words[2], words[3]), half(words[0], words[1]))
}

fn write_wide(words: &mut [u64], value: I256) {
    let (high, low) = value.into_words();
    words[..4].copy_from_slice(&[low as u64, (low >> 64) as u64, high as u64, (high >> 64) as u64]);
}

/// A two's complement number in words, least significant first.
pub fn big(words: &[u64]) -> BigInt {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    BigInt::from_signed_bytes_le(&bytes)
}

/// Appends `numerator / denominator` units of 10^-12 as a JSON number, rounded half-even; `null` for a denominator of 0.
pub fn write_quotient(numerator: &BigInt, denominator: &BigInt, out: &mut Vec<u8>) {
    let zero = BigInt::ZERO;
    if *denominator == zero {
        return out.extend_from_slice(b"null");
    }
    let sign = if (*numerator < zero) == (*denominator < zero) {
        1
    } else {
        -1
    };
    let (numerator, denominator) = (numerator.magnitude(), denominator.magnitude());
    let (mut quotient, remainder) = (numerator / denominator, numerator % denominator);
    let twice = remainder * 2u8;
    if twice > *denominator || (twice == *denominator && quotient.bit(0)) {
        quotient += 1u8;
    }
    write_units(BigInt::from(quotient) * sign, out);
}

fn write_units(value: BigInt, out: &mut Vec<u8>) {
    match i128::try_from(&value) {
        Ok(narrow) => decimal::write(narrow, out),
        Err(_) => {
            // Beyond 10^26: whole and fraction are printed apart.
            let whole = &value / ONE;
            let fraction = i128::try_from(&value % ONE).unwrap_or(0).abs();
            out.extend_from_slice(whole.to_string().as_bytes());
            let mut text = Vec::new();
            decimal::write(fraction, &mut text);
            out.extend_from_slice(&text[1..]);
        }
    }
}

/// Sums of `count` values and of their squares, the latter in units of 10^-24.
#[derive(Clone, Debug)]
pub struct Moments {
    /// Values.
    pub count: u64,
    /// Their sum.
    pub sum: BigInt,
    /// The sum of their squares.
    pub squares: BigInt,
}

impl Moments {
    /// Variance in units of 10^-24 as numerator and denominator; `None` below two values.
    fn variance(&self, population: bool) -> Option<(BigInt, BigInt)> {
        if self.count < 2 {
            return None;
        }
        let count = BigInt::from(self.count);
        // Never negative, but for damaged state.
        let numerator = (&count * &self.squares - &self.sum * &self.sum).max(BigInt::ZERO);
        let divisor = BigInt::from(if population { self.count } else { self.count - 1 });
        Some((numerator, count * divisor))
    }

    /// Appends the variance, or `null` below two values.
    pub fn write_variance(&self, population: bool, out: &mut Vec<u8>) {
        match self.variance(population) {
            Some((numerator, denominator)) => write_quotient(&numerator, &(denominator * ONE), out),
            None => out.extend_from_slice(b"null"),
        }
    }

    /// Appends the root of the variance, or `null` below two values.
    pub fn write_stddev(&self, population: bool, out: &mut Vec<u8>) {
        let Some((numerator, denominator)) = self.variance(population) else {
            return out.extend_from_slice(b"null");
        };
        let floor = (&numerator / &denominator).sqrt();
        // Compare the variance with the square of floor + 1/2, both four times over.
        let half: BigInt = &floor * 2u8 + 1u8;
        let (left, right) = (numerator * 4u8, denominator * &half * &half);
        let up = left > right || (left == right && floor.bit(0));
        write_units(floor + u8::from(up), out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    fn moments(values: &[&str]) -> Moments {
        let mut squares = [0; 4];
        let mut sum = BigInt::ZERO;
        for value in values {
            let value = decimal::parse(value.as_bytes()).unwrap();
            add_product(&mut squares, value, value);
            sum += value;
        }
        Moments {
            count: values.len() as u64,
            sum,
            squares: big(&squares),
        }
    }

    #[test]
    fn variance_and_its_root_are_rounded_once() {
        for (values, sample, population, deviation) in [
            (&["1", "2", "3", "4"][..], "1.666666666667", "1.25", "1.290994448736"),
            (&["2", "4"], "2", "1", "1.414213562373"),
            (&["0.1", "0.1", "0.1"], "0", "0", "0"),
            (
                &["1000000000000000000.1", "1000000000000000000.3"],
                "0.02",
                "0.01",
                "0.141421356237",
            ),
            (
                &["-9999999999999999999", "9999999999999999999"],
                "199999999999999999960000000000000000002",
                "99999999999999999980000000000000000001",
                "14142135623730950486.602673679724",
            ),
            (&["0.000000000001", "0"], "0", "0", "0.000000000001"),
            (&["5"], "null", "null", "null"),
            (&[], "null", "null", "null"),
        ] {
            let moments = moments(values);
            assert_eq!(printed(|out| moments.write_variance(false, out)), sample, "{values:?}");
            assert_eq!(
                printed(|out| moments.write_variance(true, out)),
                population,
                "{values:?}"
            );
            assert_eq!(printed(|out| moments.write_stddev(false, out)), deviation, "{values:?}");
        }
    }

    #[test]
    fn quotients_are_rounded_half_even_whatever_the_signs() {
        for (numerator, denominator, expected) in [
            (1, 2, "0"),
            (3, 2, "0.000000000002"),
            (-3, 2, "-0.000000000002"),
            (3, -2, "-0.000000000002"),
            (-5, -2, "0.000000000002"),
            (7, 3, "0.000000000002"),
            (8, 3, "0.000000000003"),
            (0, 3, "0"),
            (1, 0, "null"),
        ] {
            let (numerator, denominator) = (BigInt::from(numerator), BigInt::from(denominator));
            assert_eq!(printed(|out| write_quotient(&numerator, &denominator, out)), expected);
        }
        let huge: BigInt = BigInt::from(10u8).pow(60) + 1u8;
        let expected = format!("-1{}.000000000001", "0".repeat(48));
        assert_eq!(printed(|out| write_quotient(&-huge, &BigInt::from(1), out)), expected);
    }

    #[test]
    fn products_of_either_sign_add_up() {
        let largest = decimal::parse(b"9999999999999999999.999999999999").unwrap();
        let mut words = [0; 4];
        add_product(&mut words, largest, -largest);
        let mut twice = words;
        add_wide(&mut twice, &words);
        assert_eq!(big(&twice), BigInt::from(largest) * largest * -2);
        add_product(&mut words, largest, largest);
        assert_eq!(words, [0; 4]);
    }
}
