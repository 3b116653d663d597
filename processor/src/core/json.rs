//! Extracts the fields in use from a JSON object in one pass, without building a tree and without allocation.
//!
//! What is not in use is skipped, not validated, and the scan ends when every field was found (strict mode reads on
//! and validates everything). Nesting costs no stack: only the levels that a field pointer names recurse.
//! Must not hold: types or units of fields; that is the caller's business.

mod cursor;
pub mod elements;

use self::cursor::{Cursor, Scan};

/// What a field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The event has no such field.
    Missing,
    /// `null`.
    Null,
    /// `true`.
    True,
    /// `false`.
    False,
    /// A number; the range covers its token, whose grammar is not checked yet.
    Number,
    /// A string without escapes; the range covers what is between the quotes.
    String,
    /// A string with escapes; the range covers what is between the quotes.
    EscapedString,
    /// An object or array.
    Container,
}

/// A field found in an event: its kind and the byte range of its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// What it holds.
    pub kind: Kind,
    start: u32,
    end: u32,
}

impl Slot {
    /// A field that is not there.
    pub const MISSING: Slot = Slot {
        kind: Kind::Missing,
        start: 0,
        end: 0,
    };

    /// Its text in `document`, the bytes it was extracted from.
    pub fn text<'a>(&self, document: &'a [u8]) -> &'a [u8] {
        &document[self.start as usize..self.end as usize]
    }
}

/// The document is not a JSON object, at this byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a JSON object: byte {at}: {what}")]
pub struct JsonError {
    /// Byte offset.
    pub at: usize,
    /// What was expected there.
    pub what: &'static str,
}

#[derive(Clone, Debug, Default)]
struct Node {
    children: Vec<Child>,
    /// Bit n is set when a child's name has n bytes (63 stands for more): most members of an event are not in use.
    lengths: u64,
}

#[derive(Clone, Debug)]
struct Child {
    name: Vec<u8>,
    /// The first eight bytes of the name: one compare tells most members apart without a call.
    prefix: u64,
    slot: Option<usize>,
    /// Whether a container's text is wanted even where fields within it are, too.
    whole: bool,
    node: Node,
}

impl Node {
    fn length_bit(len: usize) -> u64 {
        1 << len.min(63)
    }

    fn find(&self, name: &[u8]) -> Option<&Child> {
        if self.lengths & Self::length_bit(name.len()) == 0 {
            return None;
        }
        let prefix = prefix(name);
        self.children.iter().find(|child| {
            child.prefix == prefix && child.name.len() == name.len() && (name.len() <= 8 || child.name == name)
        })
    }
}

/// The first eight bytes, zeros where there are fewer.
fn prefix(name: &[u8]) -> u64 {
    match name.first_chunk::<8>() {
        Some(head) => u64::from_le_bytes(*head),
        None => name.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte)),
    }
}

/// The fields to extract, as a tree of member names.
#[derive(Clone, Debug, Default)]
pub struct FieldTree {
    root: Node,
    pointers: Vec<String>,
    /// By slot: whether the text of a container is wanted.
    wholes: Vec<bool>,
    strict: bool,
}

impl FieldTree {
    /// An empty tree; `strict` validates whole documents.
    pub fn new(strict: bool) -> Self {
        Self {
            strict,
            ..Self::default()
        }
    }

    /// Adds a JSON pointer (RFC 6901, not empty) and answers its slot; the same pointer has the same slot.
    pub fn add(&mut self, pointer: &str) -> usize {
        self.insert(pointer, false)
    }

    /// As [`Self::add`], and the slot of an object or array always covers its text.
    pub fn add_whole(&mut self, pointer: &str) -> usize {
        self.insert(pointer, true)
    }

    fn insert(&mut self, pointer: &str, whole: bool) -> usize {
        let known = self.pointers.iter().position(|known| known == pointer);
        let slot = known.unwrap_or(self.pointers.len());
        if known.is_none() {
            self.pointers.push(pointer.to_owned());
            self.wholes.push(false);
        }
        self.wholes[slot] |= whole;
        let mut node = &mut self.root;
        let tokens: Vec<Vec<u8>> = pointer
            .split('/')
            .skip(1)
            .map(|token| token.replace("~1", "/").replace("~0", "~").into_bytes())
            .collect();
        let last = tokens.len().saturating_sub(1);
        for (depth, name) in tokens.into_iter().enumerate() {
            node.lengths |= Node::length_bit(name.len());
            let index = match node.children.iter().position(|child| child.name == name) {
                Some(index) => index,
                None => {
                    let prefix = prefix(&name);
                    node.children.push(Child {
                        name,
                        prefix,
                        slot: None,
                        whole: false,
                        node: Node::default(),
                    });
                    node.children.len() - 1
                }
            };
            if depth == last {
                node.children[index].slot = Some(slot);
                node.children[index].whole |= whole;
            }
            node = &mut node.children[index].node;
        }
        slot
    }

    /// Pointer of a slot.
    pub fn pointer(&self, slot: usize) -> &str {
        &self.pointers[slot]
    }

    /// Number of slots.
    pub fn len(&self) -> usize {
        self.pointers.len()
    }

    /// Whether no field is in use.
    pub fn is_empty(&self) -> bool {
        self.pointers.is_empty()
    }

    /// Fills `slots` (one per pointer) from `document`.
    ///
    /// # Errors
    /// [`JsonError`] when the document is no object or is broken before the last field in use (strict: anywhere).
    pub fn extract(&self, document: &[u8], slots: &mut [Slot]) -> Result<(), JsonError> {
        slots.fill(Slot::MISSING);
        if u32::try_from(document.len()).is_err() {
            return Err(JsonError {
                at: 0,
                what: "at most 4 GiB",
            });
        }
        if self.strict {
            serde_json::from_slice::<serde::de::IgnoredAny>(document).map_err(|error| JsonError {
                at: error.column(),
                what: "strict mode: valid JSON",
            })?;
        }
        let mut cursor = Cursor {
            bytes: document,
            at: 0,
            missing: slots.len(),
        };
        cursor.skip_space();
        cursor.expect(b'{', "an object")?;
        if cursor.object(&self.root, slots)? == Scan::Complete {
            return Ok(());
        }
        cursor.skip_space();
        if cursor.at == document.len() {
            Ok(())
        } else {
            Err(cursor.error("nothing behind the object"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::cursor::find_quote_or_backslash;
    use super::*;

    fn extract(pointers: &[&str], document: &str) -> Result<Vec<(Kind, String)>, JsonError> {
        let mut tree = FieldTree::new(false);
        for pointer in pointers {
            tree.add(pointer);
        }
        let mut slots = vec![Slot::MISSING; tree.len()];
        tree.extract(document.as_bytes(), &mut slots)?;
        let text = |slot: &Slot| String::from_utf8(slot.text(document.as_bytes()).to_vec()).unwrap();
        Ok(slots.iter().map(|slot| (slot.kind, text(slot))).collect())
    }

    #[test]
    fn fields_are_found_wherever_they_stand() {
        let document = r#" { "a" : 1.50 , "skip":{"a":[1,{"b":"}\""}]}, "n": {"x":"ü","y":null,"deep":{"z":true}},
            "list":[10,[20,21],{"k":"v"}], "s":"q\"uote", "a/b":2, "m~n":3, "\u0065sc":4 }"#;
        let pointers = [
            "/a",
            "/n/x",
            "/n/y",
            "/n/deep/z",
            "/list/1/0",
            "/list/2/k",
            "/s",
            "/a~1b",
            "/m~0n",
            "/esc",
            "/none",
            "/n",
        ];
        let found = extract(&pointers, document).unwrap();
        let expected = [
            (Kind::Number, "1.50"),
            (Kind::String, "ü"),
            (Kind::Null, "null"),
            (Kind::True, "true"),
            (Kind::Number, "20"),
            (Kind::String, "v"),
            (Kind::EscapedString, "q\\\"uote"),
            (Kind::Number, "2"),
            (Kind::Number, "3"),
            (Kind::Number, "4"),
            (Kind::Missing, ""),
            (Kind::Container, ""),
        ];
        for ((pointer, found), (kind, text)) in pointers.iter().zip(&found).zip(expected) {
            assert_eq!((found.0, found.1.as_str()), (kind, text), "{pointer}");
        }
    }

    #[test]
    fn a_container_in_use_as_a_whole_has_its_text_whatever_is_in_use_within_it() {
        let document = br#"{"a":{"b":[1,{"c":2}],"d":3},"e":4}"#;
        for whole_first in [true, false] {
            let mut tree = FieldTree::new(false);
            if whole_first {
                tree.add_whole("/a");
            }
            let c = tree.add("/a/b/1/c");
            let b = tree.add_whole("/a/b");
            let a = tree.add_whole("/a");
            let e = tree.add("/e");
            let mut slots = vec![Slot::MISSING; tree.len()];
            tree.extract(document, &mut slots).unwrap();
            assert_eq!(slots[a].text(document), br#"{"b":[1,{"c":2}],"d":3}"#);
            assert_eq!(slots[b].text(document), br#"[1,{"c":2}]"#);
            assert_eq!(
                (slots[c].text(document), slots[e].text(document)),
                (&b"2"[..], &b"4"[..])
            );
        }
        let mut tree = FieldTree::new(false);
        let (a, d) = (tree.add_whole("/a"), tree.add("/a/d"));
        let mut slots = vec![Slot::MISSING; tree.len()];
        tree.extract(document, &mut slots).unwrap();
        assert_eq!(
            (slots[a].text(document).len(), slots[d].text(document)),
            (23, &b"3"[..])
        );
    }

    #[test]
    fn broken_documents_are_refused_and_never_panic() {
        for document in [
            "",
            " ",
            "[]",
            "1",
            "null",
            "\"a\"",
            "{",
            "{\"",
            "{\"a",
            "{\"a\"",
            "{\"a\":",
            "{\"a\":1",
            "{\"a\":1,",
            "{\"a\":1,}",
            "{\"b\":{\"a\":1}",
            "{\"b\":1}x",
            "{\"b\":\"\\",
            "{\"b\":\"\\\"",
            "{\"b\" 1}",
            "{b:1}",
            "{\"a\":}",
            "{\"a\":x}",
            "{\"a\":\"\u{1}\"}",
            "{\"b\":[}",
            "{\"b\":1 2}",
            "{,}",
        ] {
            assert!(extract(&["/a", "/c"], document).is_err(), "{document:?}");
        }
        let deep = format!("{{\"b\":{}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(extract(&["/a"], &deep).is_ok());
        let whole = r#"{"b":[1,{"c":"\\"}],"a":"x\n","n":{"a":-1e5}}"#;
        for end in 0..whole.len() {
            assert!(extract(&["/a", "/z"], &whole[..end]).is_err(), "{end}");
        }
    }

    #[test]
    fn strict_mode_reads_to_the_end() {
        let mut strict = FieldTree::new(true);
        let slot = strict.add("/a");
        let mut slots = vec![Slot::MISSING; 1];
        assert!(strict.extract(br#"{"a":1,"b":tru}"#, &mut slots).is_err());
        assert!(strict.extract(br#"{"a":1,"b":true}"#, &mut slots).is_ok());
        assert_eq!(slots[slot].kind, Kind::Number);
    }

    #[test]
    fn quotes_and_backslashes_are_found_at_every_distance() {
        for len in 0..40 {
            for target in [b'"', b'\\'] {
                let mut bytes = vec![0x80u8 | (len as u8); len];
                bytes.push(target);
                bytes.extend_from_slice(b"tail");
                assert_eq!(find_quote_or_backslash(&bytes), Some(len));
                assert_eq!(find_quote_or_backslash(&bytes[..len]), None);
            }
        }
    }
}
