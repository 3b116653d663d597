//! JSON pointers (RFC 6901) to fields of an event. Must not read events.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::ValueError;

/// A JSON pointer with at least one part, such as `/usage/prompt`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct JsonPointer(String);

impl JsonPointer {
    /// Pattern in the schema; what it accepts is exactly what [`FromStr`] accepts.
    pub const PATTERN: &'static str = "^(/([^/~]|~0|~1)*)+$";
    /// What a pointer looks like, for error messages.
    pub const EXPECTED: &'static str = "a JSON pointer such as /usage/prompt (write ~1 for / and ~0 for ~ in a name)";

    /// As given.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The member names (or array indices) from the root, unescaped. Never empty.
    pub fn parts(&self) -> Vec<String> {
        // `~1` before `~0`: RFC 6901 section 4, so that `~01` is `~1` and not `/`.
        self.0
            .split('/')
            .skip(1)
            .map(|part| part.replace("~1", "/").replace("~0", "~"))
            .collect()
    }
}

impl FromStr for JsonPointer {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let escaped = text.replace("~0", "").replace("~1", "");
        if text.starts_with('/') && !escaped.contains('~') {
            Ok(Self(text.to_owned()))
        } else {
            Err(ValueError {
                found: text.to_owned(),
                expected: Self::EXPECTED,
            })
        }
    }
}

impl fmt::Display for JsonPointer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl TryFrom<String> for JsonPointer {
    type Error = ValueError;

    fn try_from(text: String) -> Result<Self, ValueError> {
        text.parse()
    }
}

impl From<JsonPointer> for String {
    fn from(pointer: JsonPointer) -> Self {
        pointer.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_unescaped() {
        assert_eq!(
            "/usage/prompt".parse::<JsonPointer>().unwrap().parts(),
            ["usage", "prompt"]
        );
        assert_eq!(
            "/a~1b/~01//0".parse::<JsonPointer>().unwrap().parts(),
            ["a/b", "~1", "", "0"]
        );
        assert_eq!("/".parse::<JsonPointer>().unwrap().parts(), [""]);
    }

    #[test]
    fn what_is_no_pointer_is_refused() {
        for text in ["", "model", "usage/prompt", "/a~", "/a~2", "$.model", "/~~0"] {
            assert!(text.parse::<JsonPointer>().is_err(), "{text}");
        }
    }
}
