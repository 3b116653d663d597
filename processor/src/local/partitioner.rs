//! Spreads records over partitions by their group key, as a producer keyed by it would: murmur2 of the canonical key.
//! Must not reject anything: what has no key goes to partition 0, whose task says what is wrong with it.

use streamagg_crds::resolved::{KeyPart, KeySource, Let};
use streamagg_crds::v1alpha1::RecordProperty;
use streamagg_processor::core::json::{FieldTree, Slot};
use streamagg_processor::core::key::murmur2;
use streamagg_processor::expression::{Budget, Event};
use streamagg_processor::pipeline::derive::{Derivation, Values};
use streamagg_processor::pipeline::output::{Envelope, Record};

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
        // What is only known of a record that has a partition cannot choose it.
        let chooses = |part: &&KeyPart| part.source != KeySource::Property(RecordProperty::Partition);
        let group_by: Vec<KeyPart> = group_by.iter().filter(chooses).cloned().collect();
        let derivation = Derivation::compile(lets, &group_by, &mut fields);
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
    pub(super) fn partition(&mut self, record: &Record<'_>) -> usize {
        match self.build_key(record) {
            Some(()) => ((murmur2(&self.key) & 0x7fff_ffff) % self.partitions) as usize,
            None => 0,
        }
    }

    fn build_key(&mut self, record: &Record<'_>) -> Option<()> {
        self.fields.extract(record.value, &mut self.slots).ok()?;
        self.key.clear();
        let event = Event {
            document: record.value,
            slots: &self.slots,
        };
        let mut values = Values::new();
        (self.derivation)
            .fill_values(event, &mut Budget::default(), &mut values)
            .ok()?;
        self.derivation.write_key(record, event, &values, &mut self.key).ok()
    }
}

/// Records of a partition, with as much around them as a line has, where the plan `needs` it.
pub(super) fn in_partition<'a>(records: &mut [Record<'a>], envelope: &'a Envelope<'a>, needs: bool) {
    if needs {
        records.iter_mut().for_each(|record| record.envelope = Some(envelope));
    }
}

/// What is around the records of a partition.
pub(super) fn envelope(partition: usize) -> Envelope<'static> {
    Envelope {
        partition: u32::try_from(partition).unwrap_or(0),
        ..Envelope::default()
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
            source: KeySource::Input(Input::Field(format!("/{name}").parse().unwrap())),
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
            assert_eq!(
                partitioner.partition(&Record::new(0, record.as_bytes())),
                expected as usize,
                "{record}"
            );
        }
    }

    #[test]
    fn keys_are_spread_and_records_without_a_key_go_to_the_first_partition() {
        let mut partitioner = Partitioner::new(&[], &[part("a", Missing::Reject)], 4);
        let used: std::collections::BTreeSet<usize> = (0..100)
            .map(|number| partitioner.partition(&Record::new(0, format!("{{\"a\":{number}}}").as_bytes())))
            .collect();
        assert_eq!(used.len(), 4);
        for record in ["", "{", "{}", r#"{"a":null}"#, r#"{"a":[]}"#, "[]"] {
            assert_eq!(partitioner.partition(&Record::new(0, record.as_bytes())), 0, "{record}");
        }
    }
}
