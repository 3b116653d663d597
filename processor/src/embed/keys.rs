//! Parts of the group key, in the manifest's words. Must not read events.

use serde_json::{Map, Value, json};
use streamagg_crds::v1alpha1::RecordProperty;

use super::declared::operand;

/// A part of the group key: a field by JSON pointer (`/model`), or a value by the name it was derived under.
#[derive(Clone, Debug)]
pub struct Key(pub(super) Map<String, Value>);

impl From<&str> for Key {
    fn from(source: &str) -> Self {
        Self(operand(source))
    }
}

impl Key {
    /// As `Key::from`: a missing part makes the event a dead letter.
    pub fn new(source: &str) -> Self {
        source.into()
    }

    /// A header of the record, by name; see [`super::Envelope`].
    pub fn header(name: &str) -> Self {
        Self(Map::from_iter([("header".to_owned(), json!(name))]))
    }

    /// A property of the record.
    pub fn of_record(property: RecordProperty) -> Self {
        Self(Map::from_iter([("metadata".to_owned(), json!(property))]))
    }

    /// A missing part is null.
    pub fn or_null(mut self) -> Self {
        self.0.insert("whenMissing".to_owned(), json!({"null": {}}));
        self
    }

    /// A missing part is this text.
    pub fn or_text(mut self, text: &str) -> Self {
        self.0.insert("whenMissing".to_owned(), json!({"default": text}));
        self
    }

    /// A missing part is this integer.
    pub fn or_integer(mut self, number: i64) -> Self {
        self.0.insert("whenMissing".to_owned(), json!({"default": number}));
        self
    }
}
