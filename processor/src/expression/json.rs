//! An object or array of an event → a value, with bounded nesting. Texts without escapes are borrowed.
//! Must not look for fields: that is `core::json`.

use std::borrow::Cow;
use std::sync::Arc;

use super::number;
use super::value::Value;

/// Deepest nesting of a container that an expression takes as a value.
const DEPTH_MAX: usize = 64;

/// Reads one JSON value; nothing when it is broken, nested too deeply or holds a number beyond a double.
pub(super) fn read(text: &[u8]) -> Option<Value<'_>> {
    let mut reader = Reader { text, at: 0 };
    let value = reader.value(0)?;
    reader.skip_space();
    (reader.at == text.len()).then_some(value)
}

struct Reader<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.peek() {
            self.at += 1;
        }
    }

    fn take(&mut self, byte: u8) -> Option<()> {
        self.skip_space();
        (self.peek()? == byte).then(|| self.at += 1)
    }

    fn value(&mut self, depth: usize) -> Option<Value<'a>> {
        if depth > DEPTH_MAX {
            return None;
        }
        self.skip_space();
        match self.peek()? {
            b'{' => self.object(depth),
            b'[' => self.array(depth),
            b'"' => self.string().map(Value::Text),
            _ => self.scalar(),
        }
    }

    fn object(&mut self, depth: usize) -> Option<Value<'a>> {
        self.at += 1;
        let mut entries: Vec<(Value<'a>, Value<'a>)> = Vec::new();
        self.skip_space();
        if self.peek()? == b'}' {
            self.at += 1;
            return Some(Value::Map(Arc::from(entries)));
        }
        loop {
            self.skip_space();
            let key = Value::Text(self.string()?);
            self.take(b':')?;
            let value = self.value(depth + 1)?;
            // A member twice is not promised anything: the first is found, and no search makes this quadratic.
            entries.push((key, value));
            self.skip_space();
            match self.peek()? {
                b',' => self.at += 1,
                b'}' => {
                    self.at += 1;
                    return Some(Value::Map(Arc::from(entries)));
                }
                _ => return None,
            }
        }
    }

    fn array(&mut self, depth: usize) -> Option<Value<'a>> {
        self.at += 1;
        let mut elements = Vec::new();
        self.skip_space();
        if self.peek()? == b']' {
            self.at += 1;
            return Some(Value::List(Arc::from(elements)));
        }
        loop {
            elements.push(self.value(depth + 1)?);
            self.skip_space();
            match self.peek()? {
                b',' => self.at += 1,
                b']' => {
                    self.at += 1;
                    return Some(Value::List(Arc::from(elements)));
                }
                _ => return None,
            }
        }
    }

    fn string(&mut self) -> Option<Cow<'a, str>> {
        if self.peek()? != b'"' {
            return None;
        }
        let start = self.at;
        self.at += 1;
        let mut escaped = false;
        loop {
            match self.peek()? {
                b'"' => break,
                b'\\' => {
                    escaped = true;
                    self.at += 2;
                }
                byte if byte < 0x20 => return None,
                _ => self.at += 1,
            }
        }
        self.at += 1;
        if escaped {
            return serde_json::from_slice::<String>(self.text.get(start..self.at)?)
                .ok()
                .map(Cow::Owned);
        }
        let inner = &self.text[start + 1..self.at - 1];
        std::str::from_utf8(inner).ok().map(Cow::Borrowed)
    }

    fn scalar(&mut self) -> Option<Value<'a>> {
        let rest = &self.text[self.at..];
        let len = rest
            .iter()
            .position(|byte| matches!(byte, b',' | b'}' | b']' | b' ' | b'\n' | b'\r' | b'\t'))
            .unwrap_or(rest.len());
        self.at += len;
        match &rest[..len] {
            b"null" => Some(Value::Null),
            b"true" => Some(Value::Bool(true)),
            b"false" => Some(Value::Bool(false)),
            token => number::read(token).ok(),
        }
    }
}
