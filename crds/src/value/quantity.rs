//! Kubernetes quantities: sizes and amounts of compute. Must not add or compare resources of a cluster.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};

use super::ValueError;

/// A Kubernetes quantity such as `10Gi`, `512Mi`, `500m` or `2`, kept as written.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct Quantity(String);

impl Quantity {
    /// Pattern in the schema; what it accepts is exactly what [`FromStr`] accepts.
    pub const PATTERN: &'static str = "^[0-9]{1,18}([.][0-9]{1,9})?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?$";
    /// What a quantity looks like, for error messages.
    pub const EXPECTED: &'static str = "a quantity such as 10Gi, 512Mi, 500m or 2";
    const SUFFIXES: [(&'static str, u128); 13] = [
        ("Ki", 1 << 10),
        ("Mi", 1 << 20),
        ("Gi", 1 << 30),
        ("Ti", 1 << 40),
        ("Pi", 1 << 50),
        ("Ei", 1 << 60),
        ("k", 1_000),
        ("M", 1_000_000),
        ("G", 1_000_000_000),
        ("T", 1_000_000_000_000),
        ("P", 1_000_000_000_000_000),
        ("E", 1_000_000_000_000_000_000),
        ("", 1),
    ];

    /// As written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The amount in thousandths of a unit, rounded up; saturates.
    pub fn thousandths(&self) -> u128 {
        thousandths(&self.0).unwrap_or(u128::MAX)
    }

    /// The amount in whole units (bytes, for a size), rounded up; saturates at `u64::MAX`.
    pub fn units(&self) -> u64 {
        u64::try_from(self.thousandths().div_ceil(1_000)).unwrap_or(u64::MAX)
    }
}

/// The amount in thousandths, rounded up; `None` when the text is no quantity.
fn thousandths(text: &str) -> Option<u128> {
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    if !(1..=18).contains(&whole.len()) || !(1..=9).contains(&fraction.len()) || fraction.contains('.') {
        return None;
    }
    let scale = 10u128.pow(u32::try_from(fraction.len()).ok()?);
    let digits = whole.parse::<u128>().ok()? * scale + fraction.parse::<u128>().ok()?;
    if suffix == "m" {
        return Some(digits.div_ceil(scale));
    }
    let factor = Quantity::SUFFIXES.iter().find(|(name, _)| *name == suffix)?.1;
    // Saturating: 10^18 Ei is beyond every machine, and "very large" is all a caller needs to know.
    Some(digits.saturating_mul(factor).saturating_mul(1_000).div_ceil(scale))
}

impl FromStr for Quantity {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        match thousandths(text) {
            Some(_) => Ok(Self(text.to_owned())),
            None => Err(ValueError {
                found: text.to_owned(),
                expected: Self::EXPECTED,
            }),
        }
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Quantity {
    /// A plain number (`cpu: 2`) is taken like its text, as Kubernetes does.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum IntOrString {
            Int(u64),
            String(String),
        }
        let text = match IntOrString::deserialize(deserializer)? {
            IntOrString::Int(number) => number.to_string(),
            IntOrString::String(text) => text,
        };
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_count_whole_units_rounded_up() {
        for (text, units) in [
            ("10Gi", 10 << 30),
            ("512Mi", 512 << 20),
            ("500m", 1),
            ("2", 2),
            ("1.5k", 1_500),
            ("0.5", 1),
            ("16Ei", u64::MAX),
        ] {
            assert_eq!(text.parse::<Quantity>().unwrap().units(), units, "{text}");
        }
    }

    #[test]
    fn what_is_no_quantity_is_refused() {
        for text in ["", "Gi", "10 Gi", "-1", "1.Gi", ".5", "10gb", "1e3", "1.2.3"] {
            assert!(text.parse::<Quantity>().is_err(), "{text}");
        }
    }
}
