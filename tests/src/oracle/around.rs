//! What is around the values of records: the same few keys and headers in turn, so that a log need not hold them.
//! Must not import engine code.

use super::{Reason, quoted};

/// Key and headers of a record.
#[expect(missing_docs, reason = "the names say it")]
pub struct Around {
    pub key: Option<&'static [u8]>,
    pub headers: &'static [(&'static str, Option<&'static [u8]>)],
}

/// Topic and partition of every record.
pub const PLACE: (&str, u32) = ("events", 3);

const AROUND: [Around; 7] = [
    Around {
        key: Some(b"k1"),
        headers: &[("h", Some(b"a"))],
    },
    Around {
        key: Some(b"k\"2"),
        headers: &[("g", Some(b"x")), ("h", Some(b"b")), ("h", Some(b"a"))],
    },
    Around {
        key: None,
        headers: &[("h", Some("\u{e9}".as_bytes())), ("H", Some(b"other"))],
    },
    Around {
        key: Some(b""),
        headers: &[("h", Some(b""))],
    },
    Around {
        key: Some(b"k1"),
        headers: &[],
    },
    Around {
        key: Some(b"1"),
        headers: &[("h", Some(b"a")), ("h", None)],
    },
    Around {
        key: Some(b"\xff"),
        headers: &[("h", Some(b"\xff"))],
    },
];

/// What is around the record of an entry.
pub fn around(entry: usize) -> &'static Around {
    &AROUND[entry % AROUND.len()]
}

/// The part of the key that a path beginning with `@` names, as canonical JSON; `None` when it is missing.
pub(super) fn part(path: &str, entry: usize, stamp: Option<i64>) -> Result<Option<String>, Reason> {
    let around = around(entry);
    let bytes = match path {
        "@Topic" => return Ok(Some(quoted(PLACE.0))),
        "@Partition" => return Ok(Some(PLACE.1.to_string())),
        "@Timestamp" => return Ok(stamp.map(|stamp| stamp.to_string())),
        "@Key" => around.key,
        header => {
            let named = |(name, _): &&(&str, Option<&'static [u8]>)| header == format!("@{name}");
            around.headers.iter().rfind(named).and_then(|(_, value)| *value)
        }
    };
    bytes
        .map(|bytes| std::str::from_utf8(bytes).map(quoted).map_err(|_| "KeyInvalid"))
        .transpose()
}
