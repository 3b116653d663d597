//! What a window task knows of the source partitions: how far event time has come in each, and the last record of each.
//! Must not hold: partials.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::ShuffleError;
use crate::pipeline::position::NO_WATERMARK;
use crate::pipeline::shuffle::Header;

/// The source partitions heard of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Sources {
    /// How many there are, as far as was heard.
    count: u32,
    heard: BTreeMap<u32, Heard>,
    #[serde(skip)]
    changed: bool,
}

/// What was heard of one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Heard {
    watermark_ms: i64,
    sequence: u64,
    lineage: String,
}

impl Sources {
    /// A record came from a source partition: it must go on in the history that is known, behind the last record.
    pub fn hear(&mut self, offset: i64, header: &Header<'_>) -> Result<(), ShuffleError> {
        self.changed = true;
        self.count = self.count.max(header.sources).max(header.source.saturating_add(1));
        let Some(heard) = self.heard.get_mut(&header.source) else {
            let heard = Heard {
                watermark_ms: NO_WATERMARK,
                sequence: header.sequence,
                lineage: header.lineage.to_owned(),
            };
            self.heard.insert(header.source, heard);
            return Ok(());
        };
        if heard.lineage != header.lineage {
            return Err(ShuffleError::Lineage {
                offset,
                source_partition: header.source,
                found: header.lineage.to_owned(),
                known: heard.lineage.clone(),
            });
        }
        if header.sequence <= heard.sequence {
            return Err(ShuffleError::Sequence {
                offset,
                source_partition: header.source,
                found: header.sequence,
                last: heard.sequence,
            });
        }
        heard.sequence = header.sequence;
        Ok(())
    }

    /// Event time has come to `watermark_ms` in a source partition that was heard.
    pub fn advance(&mut self, source: u32, watermark_ms: i64) {
        if let Some(heard) = self.heard.get_mut(&source) {
            heard.watermark_ms = heard.watermark_ms.max(watermark_ms);
        }
    }

    /// How far event time has come in all of them; [`NO_WATERMARK`] until each was heard.
    pub fn watermark_ms(&self) -> i64 {
        if self.heard.len() < self.count as usize {
            return NO_WATERMARK;
        }
        let watermarks = self.heard.values().map(|heard| heard.watermark_ms);
        watermarks.min().unwrap_or(NO_WATERMARK)
    }

    /// The document to store, if something was heard since the last call.
    pub fn take_changed(&mut self) -> Option<Vec<u8>> {
        // Plain numbers and strings always serialise; an empty value would be refused on reading.
        std::mem::take(&mut self.changed).then(|| serde_json::to_vec(self).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(source: u32, sources: u32, sequence: u64, lineage: &str) -> Header<'_> {
        Header {
            layout: 0,
            source,
            sources,
            sequence,
            lineage,
        }
    }

    #[test]
    fn the_watermark_is_the_smallest_once_every_partition_was_heard() {
        let mut sources = Sources::default();
        assert_eq!(sources.watermark_ms(), NO_WATERMARK);
        sources.hear(0, &header(1, 2, 1, "a")).unwrap();
        sources.advance(1, 50);
        assert_eq!(sources.watermark_ms(), NO_WATERMARK, "partition 0 may be anywhere");
        sources.hear(1, &header(0, 2, 1, "b")).unwrap();
        assert_eq!(
            sources.watermark_ms(),
            NO_WATERMARK,
            "its partials came, its watermark did not"
        );
        sources.advance(0, 70);
        assert_eq!(sources.watermark_ms(), 50);
        sources.advance(1, 40);
        assert_eq!(sources.watermark_ms(), 50, "it never falls");
        sources.hear(2, &header(0, 3, 2, "b")).unwrap();
        assert_eq!(sources.watermark_ms(), NO_WATERMARK, "a partition was added");
    }

    #[test]
    fn a_repeated_record_and_another_history_are_refused() {
        let mut sources = Sources::default();
        sources.hear(0, &header(0, 1, 5, "a")).unwrap();
        sources.hear(1, &header(0, 1, 9, "a")).unwrap();
        let repeated = sources.clone().hear(2, &header(0, 1, 9, "a"));
        assert!(
            matches!(repeated, Err(ShuffleError::Sequence { found: 9, last: 9, .. })),
            "{repeated:?}"
        );
        let other = sources.clone().hear(2, &header(0, 1, 10, "b"));
        assert!(matches!(other, Err(ShuffleError::Lineage { .. })), "{other:?}");
        sources.hear(2, &header(1, 2, 1, "b")).unwrap();
    }

    #[test]
    fn it_is_stored_when_it_changed_and_read_back() {
        let mut sources = Sources::default();
        assert_eq!(sources.take_changed(), None);
        sources.hear(0, &header(3, 4, 5, "a")).unwrap();
        sources.advance(3, -7);
        let document = sources.take_changed().unwrap();
        assert_eq!(sources.take_changed(), None);
        let read: Sources = serde_json::from_slice(&document).unwrap();
        assert_eq!(read, sources);
    }
}
