//! The scan itself: one pass over the bytes, no stack but for the levels that pointers name.
//! Must not hold: which fields are in use.

use super::{Child, JsonError, Kind, Node, Slot};
use crate::core::decimal;

/// Whether the scan goes on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Scan {
    /// Every field in use was found.
    Complete,
    /// The container ended.
    Ended,
}

/// A place in a document, and how many of the fields in use were not found yet.
pub(super) struct Cursor<'a> {
    pub bytes: &'a [u8],
    pub at: usize,
    pub missing: usize,
}

impl<'a> Cursor<'a> {
    pub fn error(&self, what: &'static str) -> JsonError {
        JsonError { at: self.at, what }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    pub fn skip_space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.peek() {
            self.at += 1;
        }
    }

    pub fn expect(&mut self, byte: u8, what: &'static str) -> Result<(), JsonError> {
        if self.peek() == Some(byte) {
            self.at += 1;
            Ok(())
        } else {
            Err(self.error(what))
        }
    }

    /// The members of an object whose opening brace was read.
    pub fn object(&mut self, node: &Node, slots: &mut [Slot]) -> Result<Scan, JsonError> {
        self.skip_space();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(Scan::Ended);
        }
        loop {
            self.expect(b'"', "a member name")?;
            let start = self.at;
            let escaped = self.string_end()?;
            let name = &self.bytes[start..self.at - 1];
            self.skip_space();
            self.expect(b':', "a colon")?;
            self.skip_space();
            let child = if escaped {
                find_escaped(node, name)
            } else {
                node.find(name)
            };
            if self.member(child, slots)? == Scan::Complete {
                return Ok(Scan::Complete);
            }
            self.skip_space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => {
                    self.at += 1;
                    return Ok(Scan::Ended);
                }
                _ => return Err(self.error("a comma or closing brace")),
            }
            self.skip_space();
        }
    }

    /// The elements of an array whose opening bracket was read; a pointer names them by index.
    fn array(&mut self, node: &Node, slots: &mut [Slot]) -> Result<Scan, JsonError> {
        self.skip_space();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(Scan::Ended);
        }
        let mut index = 0u64;
        let mut name = Vec::with_capacity(20);
        loop {
            name.clear();
            decimal::write_integer(index, &mut name);
            if self.member(node.find(&name), slots)? == Scan::Complete {
                return Ok(Scan::Complete);
            }
            self.skip_space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => {
                    self.at += 1;
                    return Ok(Scan::Ended);
                }
                _ => return Err(self.error("a comma or closing bracket")),
            }
            self.skip_space();
            index += 1;
        }
    }

    /// The object or array that begins here.
    pub fn container(&mut self, node: &Node, slots: &mut [Slot]) -> Result<Scan, JsonError> {
        let opening = self.peek();
        self.at += 1;
        if opening == Some(b'{') {
            self.object(node, slots)
        } else {
            self.array(node, slots)
        }
    }

    /// The next element of an array, behind its opening bracket or the element before; `None` at its end.
    pub fn element(&mut self, is_first: bool) -> Result<Option<Slot>, JsonError> {
        self.skip_space();
        match self.peek() {
            Some(b']') => return Ok(None),
            Some(b',') if !is_first => self.at += 1,
            _ if is_first => {}
            _ => return Err(self.error("a comma or closing bracket")),
        }
        self.skip_space();
        self.value().map(Some)
    }

    /// One value; records it when it is in use, descends when something below it is.
    fn member(&mut self, child: Option<&Child>, slots: &mut [Slot]) -> Result<Scan, JsonError> {
        let Some(child) = child else {
            self.skip_value()?;
            return Ok(Scan::Ended);
        };
        let opening = self.peek();
        let descends = !child.node.children.is_empty() && matches!(opening, Some(b'{' | b'['));
        let slot = child.slot.filter(|slot| slots[*slot].kind == Kind::Missing);
        // A container wanted as a whole is passed over once for its text, and once more for the fields within it.
        let before = self.at;
        let whole = descends && child.whole && slot.is_some();
        if !descends || whole {
            let found = self.value()?;
            if let Some(slot) = slot {
                slots[slot] = found;
                self.missing -= 1;
            }
        }
        if descends {
            let slot = slot.filter(|_| !whole);
            self.at = before;
            if let Some(slot) = slot {
                slots[slot] = Slot {
                    kind: Kind::Container,
                    start: 0,
                    end: 0,
                };
                self.missing -= 1;
            }
            let scan = self.container(&child.node, slots)?;
            if scan == Scan::Complete {
                return Ok(scan);
            }
        }
        Ok(if self.missing == 0 { Scan::Complete } else { Scan::Ended })
    }

    /// Reads a value that is in use.
    #[inline(always)]
    fn value(&mut self) -> Result<Slot, JsonError> {
        let start = self.at;
        match self.peek() {
            Some(b'"') => {
                self.at += 1;
                let escaped = self.string_end()?;
                let kind = if escaped { Kind::EscapedString } else { Kind::String };
                if self.bytes[start + 1..self.at - 1].iter().any(|byte| *byte < 0x20) {
                    return Err(self.error("no control character in a string"));
                }
                Ok(Slot {
                    kind,
                    start: start as u32 + 1,
                    end: self.at as u32 - 1,
                })
            }
            Some(b'{' | b'[') => {
                self.skip_container()?;
                Ok(Slot {
                    kind: Kind::Container,
                    start: start as u32,
                    end: self.at as u32,
                })
            }
            _ => {
                self.skip_scalar()?;
                let kind = match &self.bytes[start..self.at] {
                    b"null" => Kind::Null,
                    b"true" => Kind::True,
                    b"false" => Kind::False,
                    [b'-' | b'0'..=b'9', ..] => Kind::Number,
                    _ => {
                        return Err(JsonError {
                            at: start,
                            what: "a value",
                        });
                    }
                };
                Ok(Slot {
                    kind,
                    start: start as u32,
                    end: self.at as u32,
                })
            }
        }
    }

    fn skip_value(&mut self) -> Result<(), JsonError> {
        match self.peek() {
            Some(b'"') => {
                self.at += 1;
                self.string_end().map(|_| ())
            }
            Some(b'{' | b'[') => self.skip_container(),
            _ => self.skip_scalar(),
        }
    }

    fn skip_scalar(&mut self) -> Result<(), JsonError> {
        let start = self.at;
        while let Some(byte) = self.peek() {
            if matches!(byte, b',' | b'}' | b']' | b' ' | b'\n' | b'\r' | b'\t') {
                break;
            }
            self.at += 1;
        }
        if self.at > start {
            Ok(())
        } else {
            Err(self.error("a value"))
        }
    }

    /// Skips an object or array by counting brackets: any depth, no stack.
    fn skip_container(&mut self) -> Result<(), JsonError> {
        let mut depth = 0usize;
        while let Some(byte) = self.peek() {
            self.at += 1;
            match byte {
                b'{' | b'[' => depth += 1,
                b'}' | b']' => {
                    depth -= 1;
                    if depth == 0 {
                        return Ok(());
                    }
                }
                b'"' => {
                    self.string_end()?;
                }
                _ => {}
            }
        }
        Err(self.error("the end of an object or array"))
    }

    /// Moves behind the closing quote of a string whose opening quote was read; answers whether it has escapes.
    fn string_end(&mut self) -> Result<bool, JsonError> {
        let mut escaped = false;
        loop {
            let found = find_quote_or_backslash(&self.bytes[self.at..]);
            let Some(distance) = found else {
                self.at = self.bytes.len();
                return Err(self.error("the end of a string"));
            };
            self.at += distance + 1;
            if self.bytes[self.at - 1] == b'"' {
                return Ok(escaped);
            }
            escaped = true;
            self.at += 1;
            if self.at > self.bytes.len() {
                self.at = self.bytes.len();
                return Err(self.error("the end of a string"));
            }
        }
    }
}

/// Distance to the next `"` or `\`, eight bytes at a time (strings of events are short: no call into a library pays).
pub(super) fn find_quote_or_backslash(bytes: &[u8]) -> Option<usize> {
    const LOW: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let zero_byte = |word: u64| word.wrapping_sub(LOW) & !word & HIGH;
    let mut at = 0;
    while let Some(chunk) = bytes.get(at..).and_then(<[u8]>::first_chunk::<8>) {
        let word = u64::from_le_bytes(*chunk);
        let hit = zero_byte(word ^ (LOW * 0x22)) | zero_byte(word ^ (LOW * 0x5c));
        if hit != 0 {
            return Some(at + hit.trailing_zeros() as usize / 8);
        }
        at += 8;
    }
    bytes[at..]
        .iter()
        .position(|byte| matches!(byte, b'"' | b'\\'))
        .map(|rest| at + rest)
}

/// A member name with escapes is rare: decode it and look it up.
fn find_escaped<'n>(node: &'n Node, name: &[u8]) -> Option<&'n Child> {
    let quoted = [b"\"", name, b"\""].concat();
    serde_json::from_slice::<String>(&quoted)
        .ok()
        .and_then(|name| node.find(name.as_bytes()))
}
