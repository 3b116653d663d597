//! Decimals in the layout document, as texts: a JSON number would lose digits. Must not hold anything else.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::core::decimal;

pub(super) fn serialize<S: Serializer>(values: &[i128], serializer: S) -> Result<S::Ok, S::Error> {
    let text = |value: &i128| {
        let mut out = Vec::new();
        decimal::write(*value, &mut out);
        String::from_utf8_lossy(&out).into_owned()
    };
    values.iter().map(text).collect::<Vec<String>>().serialize(serializer)
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<i128>, D::Error> {
    let value = |text: &String| decimal::parse(text.as_bytes()).map_err(|_| de::Error::custom("not a decimal"));
    Vec::<String>::deserialize(deserializer)?.iter().map(value).collect()
}
