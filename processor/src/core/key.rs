//! Grouping keys: canonical bytes, their two hashes, and the table that gives each key of a task a small number.
//!
//! Canonical bytes of a key are the members of its JSON object in `groupBy` order, `"tenant":"a","model":"gpt-x"`:
//! equal keys have equal bytes whatever their spelling in the event, and a result copies them as they are.
//! Must not hold: what is done when a part is missing (the pipeline's rule).

use hashbrown::HashTable;
use smallvec::SmallVec;
use xxhash_rust::xxh3::xxh3_64;

use super::json::{Kind, Slot};
use crate::error::RejectReason;

/// Longest plain form of a number in a key; beyond it the event is rejected.
const NUMBER_LENGTH_MAX: i64 = 64;

/// Appends the canonical JSON text of a key part. Missing and null are the caller's case and must not come here.
///
/// # Errors
/// `KeyInvalid` for objects, arrays and text that is no Unicode; `NumberOutOfRange` for numbers longer than 64 digits.
pub fn write_canonical(slot: Slot, document: &[u8], out: &mut Vec<u8>) -> Result<(), RejectReason> {
    write_canonical_text(slot.kind, slot.text(document), out)
}

/// As [`write_canonical`], for what a slot of this kind covers.
///
/// # Errors
/// As [`write_canonical`].
pub fn write_canonical_text(kind: Kind, text: &[u8], out: &mut Vec<u8>) -> Result<(), RejectReason> {
    match kind {
        Kind::String => {
            std::str::from_utf8(text).map_err(|_| RejectReason::KeyInvalid)?;
            out.push(b'"');
            out.extend_from_slice(text);
            out.push(b'"');
            Ok(())
        }
        Kind::EscapedString => {
            let quoted = [b"\"", text, b"\""].concat();
            let decoded: String = serde_json::from_slice(&quoted).map_err(|_| RejectReason::KeyInvalid)?;
            serde_json::to_writer(out, &decoded).map_err(|_| RejectReason::KeyInvalid)
        }
        Kind::Number => write_canonical_number(text, out),
        Kind::True => {
            out.extend_from_slice(b"true");
            Ok(())
        }
        Kind::False => {
            out.extend_from_slice(b"false");
            Ok(())
        }
        Kind::Missing | Kind::Null | Kind::Container => Err(RejectReason::KeyInvalid),
    }
}

/// `1`, `1.0` and `1e0` are one key: digits without leading or trailing zeros, never an exponent.
fn write_canonical_number(token: &[u8], out: &mut Vec<u8>) -> Result<(), RejectReason> {
    let plain = token.len() <= 18 && token[0] != b'0' && token.iter().all(u8::is_ascii_digit);
    if plain {
        out.extend_from_slice(token);
        return Ok(());
    }
    // serde_json checks the grammar; the digits are taken from the text, so that nothing is rounded.
    serde_json::from_slice::<serde::de::IgnoredAny>(token).map_err(|_| RejectReason::JsonInvalid)?;
    let text = std::str::from_utf8(token).map_err(|_| RejectReason::JsonInvalid)?;
    let (negative, text) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (integers, fractions) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = [integers, fractions].concat();
    let significant = digits.trim_start_matches('0').trim_end_matches('0');
    if significant.is_empty() {
        out.push(b'0');
        return Ok(());
    }
    let exponent: i64 = exponent.parse().map_err(|_| RejectReason::NumberOutOfRange)?;
    let leading = (digits.len() - digits.trim_start_matches('0').len()) as i64;
    // Digits before the point, counted from the first significant one; may be negative.
    let point = (integers.len() as i64 - leading).saturating_add(exponent);
    let len = significant.len() as i64;
    if !(-NUMBER_LENGTH_MAX..=NUMBER_LENGTH_MAX).contains(&point) || len - point.min(0) > NUMBER_LENGTH_MAX {
        return Err(RejectReason::NumberOutOfRange);
    }
    if negative {
        out.push(b'-');
    }
    if point <= 0 {
        out.extend_from_slice(b"0.");
        out.extend(std::iter::repeat_n(b'0', point.unsigned_abs() as usize));
        out.extend_from_slice(significant.as_bytes());
    } else if point >= len {
        out.extend_from_slice(significant.as_bytes());
        out.extend(std::iter::repeat_n(b'0', (point - len) as usize));
    } else {
        let (before, after) = significant.split_at(point as usize);
        out.extend_from_slice(before.as_bytes());
        out.push(b'.');
        out.extend_from_slice(after.as_bytes());
    }
    Ok(())
}

/// Kafka's partitioning hash (murmur2 with Kafka's seed) of the canonical bytes.
/// Source: the Java client's `Utils.murmur2`; the partition is `(hash & 0x7fff_ffff) % partitions`.
pub fn murmur2(bytes: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    const SEED: u32 = 0x9747_b28c;
    let mut hash = SEED ^ bytes.len() as u32;
    let mut chunks = bytes.chunks_exact(4);
    for chunk in &mut chunks {
        let mut word = u32::from_le_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]).wrapping_mul(M);
        word ^= word >> 24;
        hash = hash.wrapping_mul(M) ^ word.wrapping_mul(M);
    }
    let rest = chunks.remainder();
    if !rest.is_empty() {
        for (index, byte) in rest.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * index);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ hash >> 15
}

/// One cache line for keys of up to 40 bytes: a lookup misses the cache once.
#[derive(Clone, Debug)]
struct Entry {
    hash: u64,
    bytes: SmallVec<[u8; 40]>,
    references: u32,
}

/// Keys that have state in a task, each with a small number that stays while something refers to it.
#[derive(Clone, Debug, Default)]
pub struct KeyTable {
    index: HashTable<u32>,
    entries: Vec<Entry>,
    free: Vec<u32>,
    /// Keys forgotten so far.
    forgotten: u64,
}

/// A key that was found; it is where it was as long as the table forgets none.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    id: u32,
    forgotten: u64,
}

impl Known {
    /// Number of the key.
    pub fn id(&self) -> u32 {
        self.id
    }
}

/// The hash by which a table finds a key.
pub fn hash(bytes: &[u8]) -> u64 {
    xxh3_64(bytes)
}

impl KeyTable {
    /// Number of the key with these bytes; enters it, without a reference, when it is new.
    pub fn intern(&mut self, bytes: &[u8]) -> u32 {
        self.intern_found(hash(bytes), bytes, None)
    }

    /// The key with these bytes and this [`hash`], when it is known.
    #[inline]
    pub fn find(&self, hash: u64, bytes: &[u8]) -> Option<Known> {
        let entries = &self.entries;
        let known = self.index.find(hash, |id| {
            let entry = &entries[*id as usize];
            entry.hash == hash && entry.bytes.as_slice() == bytes
        });
        known.map(|id| Known {
            id: *id,
            forgotten: self.forgotten,
        })
    }

    /// As [`Self::intern`], of a key with this [`hash`] that was perhaps found before.
    #[inline]
    pub fn intern_found(&mut self, hash: u64, bytes: &[u8], found: Option<Known>) -> u32 {
        let forgotten = self.forgotten;
        let found = found.filter(|known| known.forgotten == forgotten);
        match found.or_else(|| self.find(hash, bytes)) {
            Some(known) => known.id,
            None => self.enter(hash, bytes),
        }
    }

    fn enter(&mut self, hash: u64, bytes: &[u8]) -> u32 {
        let entry = Entry {
            hash,
            bytes: SmallVec::from_slice(bytes),
            references: 0,
        };
        let id = match self.free.pop() {
            Some(id) => {
                self.entries[id as usize] = entry;
                id
            }
            None => {
                self.entries.push(entry);
                (self.entries.len() - 1) as u32
            }
        };
        let entries = &self.entries;
        self.index.insert_unique(hash, id, |id| entries[*id as usize].hash);
        id
    }

    /// Canonical bytes of a key.
    pub fn bytes(&self, id: u32) -> &[u8] {
        &self.entries[id as usize].bytes
    }

    /// The [`hash`] of a key.
    pub fn hash_of(&self, id: u32) -> u64 {
        self.entries[id as usize].hash
    }

    /// Adds a reference.
    pub fn retain(&mut self, id: u32) {
        self.entries[id as usize].references += 1;
    }

    /// Drops a reference; with the last one the key is forgotten and its number may be used again.
    pub fn release(&mut self, id: u32) {
        let entry = &mut self.entries[id as usize];
        debug_assert!(entry.references > 0, "a key is released as often as it was retained");
        entry.references -= 1;
        if entry.references == 0 {
            let hash = entry.hash;
            entry.bytes = SmallVec::new();
            self.forgotten += 1;
            if let Ok(occupied) = self.index.find_entry(hash, |other| *other == id) {
                occupied.remove();
            }
            self.free.push(id);
        }
    }

    /// Keys known.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether no key is known.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        let (entries, free) = (self.entries.capacity(), self.free.capacity());
        entries * size_of::<Entry>() + free * size_of::<u32>() + self.bytes_beside()
    }

    /// As [`Self::heap_bytes`], without what was asked of the allocator ahead and never written to.
    pub fn bytes_in_use(&self) -> usize {
        size_of_val(&self.entries[..]) + size_of_val(&self.free[..]) + self.bytes_beside()
    }

    fn bytes_beside(&self) -> usize {
        let spilled = self.entries.iter().filter(|entry| entry.bytes.spilled());
        self.index.allocation_size() + spilled.map(|entry| entry.bytes.capacity()).sum::<usize>()
    }

    /// Gives back memory that no key needs: the numbers at the end that none has are forgotten, and small ones are used
    /// again first.
    pub fn shrink(&mut self) {
        while self.entries.last().is_some_and(|entry| entry.references == 0) {
            let (id, last) = (self.entries.len() as u32 - 1, self.entries.pop());
            let hash = last.map_or(0, |entry| entry.hash);
            // One that was entered and never referred to.
            if let Ok(found) = self.index.find_entry(hash, |other| *other == id) {
                found.remove();
            }
        }
        self.forgotten += 1;
        let len = self.entries.len() as u32;
        self.free.retain(|id| *id < len);
        self.free.sort_unstable_by(|one, other| other.cmp(one));
        self.free.shrink_to_fit();
        self.entries.shrink_to_fit();
        let entries = &self.entries;
        self.index.shrink_to_fit(|id| entries[*id as usize].hash);
    }

    /// Numbers in use are below this.
    pub fn capacity(&self) -> usize {
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::json::FieldTree;

    fn canonical(value: &str) -> Result<String, RejectReason> {
        let document = format!("{{\"k\":{value}}}");
        let mut tree = FieldTree::new(false);
        let slot = tree.add("/k");
        let mut slots = vec![Slot::MISSING; 1];
        tree.extract(document.as_bytes(), &mut slots).unwrap();
        let mut out = Vec::new();
        write_canonical(slots[slot], document.as_bytes(), &mut out)?;
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn equal_values_have_one_spelling() {
        for (value, expected) in [
            ("\"a\"", "\"a\""),
            ("\"\\u0061\\/\\u00fc\"", "\"a/ü\""),
            ("\"\\ud83d\\ude00\"", "\"😀\""),
            ("\"q\\\"\\\\\\n\\u0001\"", "\"q\\\"\\\\\\n\\u0001\""),
            ("1", "1"),
            ("1.0", "1"),
            ("1e0", "1"),
            ("10e-1", "1"),
            ("0.1e1", "1"),
            ("-0", "0"),
            ("0.0", "0"),
            ("0e999999999999999999999", "0"),
            ("100", "100"),
            ("1e2", "100"),
            ("-1.50", "-1.5"),
            ("0.001", "0.001"),
            ("1e-3", "0.001"),
            ("12345678901234567890123", "12345678901234567890123"),
            ("1e-13", "0.0000000000001"),
            ("true", "true"),
            ("false", "false"),
        ] {
            assert_eq!(canonical(value).as_deref(), Ok(expected), "{value}");
        }
        for (value, reason) in [
            ("\"\\ud83d\"", RejectReason::KeyInvalid),
            ("{}", RejectReason::KeyInvalid),
            ("[1]", RejectReason::KeyInvalid),
            ("1e400", RejectReason::NumberOutOfRange),
            ("1e-400", RejectReason::NumberOutOfRange),
            ("01", RejectReason::JsonInvalid),
            ("1e99999999999999999999", RejectReason::NumberOutOfRange),
        ] {
            assert_eq!(canonical(value), Err(reason), "{value}");
        }
    }

    /// Vectors of the Java client's own test (`UtilsTest.testMurmur2`).
    #[test]
    fn murmur2_equals_kafkas() {
        for (text, expected) in [
            ("21", -973_932_308i32),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(text.as_bytes()) as i32, expected, "{text}");
        }
    }

    #[test]
    fn what_many_keys_took_is_given_back() {
        let mut table = KeyTable::default();
        let ids: Vec<u32> = (0..1000u32).map(|key| table.intern(&key.to_le_bytes())).collect();
        ids.iter().for_each(|id| table.retain(*id));
        let before = table.heap_bytes();
        table.intern(b"nobody refers to it");
        for id in ids.iter().filter(|id| **id != 3) {
            table.release(*id);
        }
        table.shrink();
        assert_eq!((table.len(), table.capacity()), (1, 4));
        assert!(table.heap_bytes() * 50 < before, "{} of {before}", table.heap_bytes());
        assert_eq!(table.intern(&3u32.to_le_bytes()), 3);
        let more = [b"a", b"b", b"c", b"d"].map(|key| table.intern(key));
        assert_eq!(more, [0, 1, 2, 4]);
    }

    #[test]
    fn a_key_keeps_its_number_while_it_is_referred_to() {
        let mut table = KeyTable::default();
        let (first, second) = (table.intern(b"a"), table.intern(b"b"));
        table.retain(first);
        table.retain(first);
        table.retain(second);
        table.release(first);
        assert_eq!(table.intern(b"a"), first);
        table.release(first);
        assert_eq!(table.len(), 1);
        let third = table.intern(b"c");
        assert_eq!(third, first, "numbers are used again");
        assert_eq!(table.bytes(third), b"c");
        assert_eq!(table.intern(b"b"), second);
    }
}
