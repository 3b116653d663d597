//! Pieces of the encoding of variable state: variable-length integers and lengths, least significant group first.
//! Must not hold: what is encoded.

/// Longest form of a `u128`: 7 bits a byte.
const VARINT_BYTES_MAX: u32 = 19;

/// Appends an unsigned integer, 7 bits a byte.
pub fn write_varint(mut value: u128, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Small magnitudes of either sign become small unsigned integers.
pub fn zigzag(value: i128) -> u128 {
    ((value << 1) ^ (value >> 127)) as u128
}

fn unzigzag(value: u128) -> i128 {
    (value >> 1) as i128 ^ -((value & 1) as i128)
}

/// Reads what the functions above wrote; every answer is `None` for bytes they did not write.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads `bytes` from the start.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Whether everything was read.
    pub fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next `len` bytes.
    pub fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        Some(head)
    }

    /// One byte.
    pub fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    /// An integer in its shortest form.
    pub fn varint(&mut self) -> Option<u128> {
        let mut value = 0u128;
        for group in 0..VARINT_BYTES_MAX {
            let byte = self.byte()?;
            let bits = u128::from(byte & 0x7f);
            let shifted = bits << (7 * group);
            if shifted >> (7 * group) != bits {
                return None;
            }
            value |= shifted;
            if byte & 0x80 == 0 {
                return (bits != 0 || group == 0).then_some(value);
            }
        }
        None
    }

    /// A signed integer that went through [`zigzag`].
    pub fn signed(&mut self) -> Option<i128> {
        self.varint().map(unzigzag)
    }

    /// An integer that fits in 64 bits.
    pub fn word(&mut self) -> Option<u64> {
        self.varint().and_then(|value| value.try_into().ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn integers_round_trip_in_one_form_only(values in prop::collection::vec(any::<i128>(), 0..5), shift in 0..127u32, noise in prop::collection::vec(any::<u8>(), 0..30)) {
            let values: Vec<i128> = values.iter().map(|value| value >> shift).collect();
            let mut bytes = Vec::new();
            for value in &values {
                write_varint(zigzag(*value), &mut bytes);
            }
            let mut reader = Reader::new(&bytes);
            for value in &values {
                prop_assert_eq!(reader.signed(), Some(*value));
            }
            prop_assert!(reader.is_at_end());
            let mut reader = Reader::new(&noise);
            if let Some(value) = reader.varint() {
                let mut again = Vec::new();
                write_varint(value, &mut again);
                prop_assert_eq!(&noise[..again.len()], &again[..]);
            }
        }
    }
}
