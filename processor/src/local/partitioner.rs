//! Spreads records over partitions by their group key, as a producer keyed by it would: murmur2 of the canonical key.
//! Must not reject anything: what has no key goes to partition 0, whose task says what is wrong with it.

use streamagg_crds::resolved::{KeyPart, Let};
use streamagg_processor::core::json::{FieldTree, Slot};
use streamagg_processor::core::key::murmur2;
use streamagg_processor::expression::{Budget, Event};
use streamagg_processor::pipeline::derive::{Derivation, Values};

/// Chooses partitions.
#[derive(Debug)]
pub(super) struct Partitioner {
    fields: FieldTree,
    derivation: Derivation,
    slots: Vec<Slot>,
    key: Vec<u8>,
    partitions: u32,
}

impl Partitioner {
    pub(super) fn new(lets: &[Let], group_by: &[KeyPart], partitions: u16) -> Self {
        let mut fields = FieldTree::new(false);
        let derivation = Derivation::compile(lets, group_by, &mut fields);
        let slots = vec![Slot::MISSING; fields.len()];
        Self {
            fields,
            derivation,
            slots,
            key: Vec::new(),
            partitions: u32::from(partitions),
        }
    }

    /// Partition of a record, below the number of partitions.
    pub(super) fn partition(&mut self, record: &[u8]) -> usize {
        match self.build_key(record) {
            Some(()) => ((murmur2(&self.key) & 0x7fff_ffff) % self.partitions) as usize,
            None => 0,
        }
    }

    fn build_key(&mut self, record: &[u8]) -> Option<()> {
        self.fields.extract(record, &mut self.slots).ok()?;
        self.key.clear();
        let event = Event {
            document: record,
            slots: &self.slots,
        };
        let mut values = Values::new();
        (self.derivation)
            .fill_values(event, &mut Budget::default(), &mut values)
            .ok()?;
        self.derivation.write_key(event, &values, &mut self.key).ok()
    }
}

#[cfg(test)]
mod tests {
    use streamagg_crds::resolved::{Input, Missing};
    use streamagg_crds::v1alpha1::KeyDefault;

    use super::*;

    fn part(name: &str, when_missing: Missing) -> KeyPart {
        KeyPart {
            name: name.to_owned(),
            input: Input::Field(format!("/{name}").parse().unwrap()),
            when_missing,
        }
    }

    #[test]
    fn equal_keys_share_a_partition_whatever_their_spelling() {
        let default = Missing::Default(KeyDefault::Text("x".to_owned()));
        let mut partitioner = Partitioner::new(&[], &[part("a", Missing::Reject), part("b", default)], 7);
        let expected = (murmur2(br#""a":1,"b":"x""#) & 0x7fff_ffff) % 7;
        for record in [
            r#"{"a":1,"b":"x"}"#,
            r#"{"b":"\u0078","c":[],"a":1.0}"#,
            r#"{"a":10e-1,"b":null}"#,
            r#"{"a":1}"#,
        ] {
            assert_eq!(partitioner.partition(record.as_bytes()), expected as usize, "{record}");
        }
    }

    #[test]
    fn keys_are_spread_and_records_without_a_key_go_to_the_first_partition() {
        let mut partitioner = Partitioner::new(&[], &[part("a", Missing::Reject)], 4);
        let used: std::collections::BTreeSet<usize> = (0..100)
            .map(|number| partitioner.partition(format!("{{\"a\":{number}}}").as_bytes()))
            .collect();
        assert_eq!(used.len(), 4);
        for record in ["", "{", "{}", r#"{"a":null}"#, r#"{"a":[]}"#, "[]"] {
            assert_eq!(partitioner.partition(record.as_bytes()), 0, "{record}");
        }
    }
}
