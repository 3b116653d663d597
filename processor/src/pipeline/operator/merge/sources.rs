//! What a window task knows of the source partitions: how far event time has come in each, and the last record of each.
//! Must not hold: partials.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{CutRefused, ShuffleError};
use crate::core::share::Shed;
use crate::pipeline::builder::StateLayout;
use crate::pipeline::position::NO_WATERMARK;
use crate::pipeline::shuffle::Header;
use crate::state::recovery::rewind::nonce_of;

/// A rewind of a source partition: what it wrote of `parent` behind `sequence` holds no more, and `lineage` goes on there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Cut {
    /// Number of the source partition.
    pub source: u32,
    /// The history that begins.
    pub lineage: String,
    /// The history that it leaves.
    pub parent: String,
    /// Last sequence of the parent that still holds.
    pub sequence: u64,
}

/// The source partitions heard of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Sources {
    /// How many there are, as far as was heard.
    count: u32,
    heard: BTreeMap<u32, Heard>,
    /// Layouts of earlier specs, the newest last: partials in them may still be on the way.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    layouts: Vec<StateLayout>,
    #[serde(skip)]
    changed: bool,
}

/// Layouts of earlier specs that are remembered, and of each source partition.
const LAYOUTS_KEPT: usize = 16;

/// What was heard of one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Heard {
    watermark_ms: i64,
    /// Of the last record taken; 0 before the first.
    sequence: u64,
    /// Histories that hold, the newest last.
    chain: Vec<History>,
    /// Histories that a rewind put aside whole.
    superseded: Vec<String>,
    /// Fingerprints of the layouts it has written in, the newest last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    layouts: Vec<u64>,
    /// What it has shed, as far as was heard.
    #[serde(default, skip_serializing_if = "Shed::is_nothing")]
    shed: Shed,
}

/// Records of a lineage hold up to a sequence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct History {
    lineage: String,
    /// Absent: it goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    until: Option<u64>,
}

impl Heard {
    fn new(lineage: &str) -> Self {
        Self {
            watermark_ms: NO_WATERMARK,
            sequence: 0,
            chain: vec![History {
                lineage: lineage.to_owned(),
                until: None,
            }],
            superseded: Vec::new(),
            layouts: Vec::new(),
            shed: Shed::NOTHING,
        }
    }

    /// Whether all that the cut lets hold was taken, or is still to come.
    fn may_cut(&self, cut: &Cut) -> Result<(), CutRefused> {
        if self.sequence > cut.sequence {
            return Err(CutRefused::Merged {
                source_partition: cut.source,
                taken: self.sequence,
                sequence: cut.sequence,
            });
        }
        let parent = self.chain.iter().find(|history| history.lineage == cut.parent);
        let known = match parent.map(|parent| parent.until) {
            Some(Some(until)) if until < cut.sequence => format!("up to {until}"),
            Some(_) => return Ok(()),
            None => "nothing".to_owned(),
        };
        Err(CutRefused::Apart {
            source_partition: cut.source,
            parent: cut.parent.clone(),
            sequence: cut.sequence,
            known,
        })
    }

    /// Whether nothing was taken yet of the history that the last rewind began.
    fn awaits_newest(&self) -> bool {
        let parent = self.chain.iter().rev().nth(1);
        parent.is_some_and(|parent| parent.until.is_some_and(|until| self.sequence <= until))
    }

    fn newest(&self) -> String {
        self.chain
            .last()
            .map_or_else(String::new, |history| history.lineage.clone())
    }
}

impl Sources {
    /// A record came from a source partition: it must go on in a history that is known, behind the last record. Answers
    /// false when a rewind put it aside.
    pub fn hear(&mut self, offset: i64, header: &Header<'_>) -> Result<bool, ShuffleError> {
        self.changed = true;
        self.count = self.count.max(header.sources).max(header.source.saturating_add(1));
        let first = || Heard::new(header.lineage);
        let heard = self.heard.entry(header.source).or_insert_with(first);
        let history = heard.chain.iter().find(|history| history.lineage == header.lineage);
        let Some(history) = history else {
            let newest = heard.newest();
            // Behind a rewind only what it goes on from holds: histories of rewinds before it that are not in the chain
            // were taken back, also those that began and ended behind what this task has read. They end where the newest
            // begins: whatever comes then began without anybody's order.
            let taken_back = nonce_of(&newest) > nonce_of(header.lineage) && heard.awaits_newest();
            if taken_back || heard.superseded.iter().any(|lineage| lineage == header.lineage) {
                return Ok(false);
            }
            return Err(ShuffleError::Lineage {
                offset,
                source_partition: header.source,
                found: header.lineage.to_owned(),
                known: newest,
            });
        };
        if history.until.is_some_and(|until| header.sequence > until) {
            return Ok(false);
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
        Ok(true)
    }

    /// A source partition says what it has shed; answers what all of them have.
    pub fn tell_shed(&mut self, source: u32, shed: Shed) -> Shed {
        self.changed = true;
        if let Some(heard) = self.heard.get_mut(&source) {
            heard.shed = shed;
        }
        self.heard
            .values()
            .fold(Shed::NOTHING, |all, heard| all.with(&heard.shed))
    }

    /// Whether a source partition was heard of.
    pub fn have_heard(&self, source: u32) -> bool {
        self.heard.contains_key(&source)
    }

    /// Takes notice of a rewind; one known already changes nothing, nor does one that is refused.
    pub fn cut(&mut self, cut: &Cut) -> Result<(), CutRefused> {
        let heard = self.heard.entry(cut.source).or_insert_with(|| Heard::new(&cut.parent));
        if heard.chain.iter().any(|history| history.lineage == cut.lineage) {
            return Ok(());
        }
        heard.may_cut(cut)?;
        self.changed = true;
        self.count = self.count.max(cut.source.saturating_add(1));
        let kept = heard.chain.iter().position(|history| history.lineage == cut.parent);
        let put_aside = heard.chain.split_off(kept.map_or(0, |index| index + 1));
        heard
            .superseded
            .extend(put_aside.into_iter().map(|history| history.lineage));
        match heard.chain.last_mut() {
            Some(parent) => parent.until = Some(parent.until.map_or(cut.sequence, |until| until.min(cut.sequence))),
            None => heard.chain.push(History {
                lineage: cut.parent.clone(),
                until: Some(cut.sequence),
            }),
        }
        heard.chain.push(History {
            lineage: cut.lineage.clone(),
            until: None,
        });
        Ok(())
    }

    /// Event time has come to `watermark_ms` in a source partition that was heard.
    pub fn advance(&mut self, source: u32, watermark_ms: i64) {
        if let Some(heard) = self.heard.get_mut(&source) {
            heard.watermark_ms = heard.watermark_ms.max(watermark_ms);
        }
    }

    /// A source partition that was heard goes on in this layout. Answers whether it has written in `mine` before.
    pub fn goes_on_in(&mut self, source: u32, layout: u64, mine: u64) -> bool {
        let Some(heard) = self.heard.get_mut(&source) else {
            return false;
        };
        let had_mine = heard.layouts.contains(&mine);
        heard.layouts.retain(|known| *known != layout);
        heard.layouts.push(layout);
        let surplus = heard.layouts.len().saturating_sub(LAYOUTS_KEPT);
        heard.layouts.drain(..surplus);
        had_mine
    }

    /// Partials in this layout, of an earlier spec, may still come.
    pub fn remember(&mut self, layout: StateLayout) {
        self.layouts.retain(|known| *known != layout);
        self.layouts.push(layout);
        let surplus = self.layouts.len().saturating_sub(LAYOUTS_KEPT);
        self.layouts.drain(..surplus);
        self.changed = true;
    }

    /// Layouts of earlier specs.
    pub fn layouts(&self) -> &[StateLayout] {
        &self.layouts
    }

    /// How far event time has come in all of them; [`NO_WATERMARK`] until each was heard.
    pub fn watermark_ms(&self) -> i64 {
        if self.heard.len() < self.count as usize {
            return NO_WATERMARK;
        }
        let watermarks = self.heard.values().map(|heard| heard.watermark_ms);
        watermarks.min().unwrap_or(NO_WATERMARK)
    }

    /// The source partition that time waits for, the first of several; `None` before any was heard of.
    pub fn slowest(&self) -> Option<u32> {
        let watermark_ms = |source: &u32| self.heard.get(source).map_or(NO_WATERMARK, |heard| heard.watermark_ms);
        (0..self.count).min_by_key(watermark_ms)
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

    fn cut(lineage: &str, parent: &str, sequence: u64) -> Cut {
        Cut {
            source: 0,
            lineage: lineage.to_owned(),
            parent: parent.to_owned(),
            sequence,
        }
    }

    #[test]
    fn behind_a_rewind_the_old_history_is_passed_over_and_the_new_one_is_taken() {
        let mut sources = Sources::default();
        assert_eq!(sources.hear(0, &header(0, 1, 3, "a")), Ok(true));
        sources.cut(&cut("b", "a", 5)).unwrap();
        sources.cut(&cut("b", "a", 5)).unwrap();
        assert_eq!(
            sources.hear(1, &header(0, 1, 5, "a")),
            Ok(true),
            "up to the cut it holds"
        );
        assert_eq!(sources.hear(2, &header(0, 1, 6, "a")), Ok(false));
        assert_eq!(sources.hear(3, &header(0, 1, 6, "b")), Ok(true));
        assert!(
            sources.clone().hear(4, &header(0, 1, 7, "c")).is_err(),
            "nobody told of c"
        );
        // Rewound again, to before b began: what b wrote is put aside whole.
        assert_eq!(
            sources.clone().cut(&cut("c", "a", 4)),
            Err(CutRefused::Merged {
                source_partition: 0,
                taken: 6,
                sequence: 4
            }),
            "the task has to be restored first"
        );
        let mut restored = Sources::default();
        restored.hear(0, &header(0, 1, 3, "a")).unwrap();
        restored.cut(&cut("b", "a", 5)).unwrap();
        restored.cut(&cut("c", "a", 4)).unwrap();
        for (sequence, lineage, taken) in [(4, "a", true), (5, "a", false), (6, "b", false), (5, "c", true)] {
            assert_eq!(
                restored.hear(1, &header(0, 1, sequence, lineage)),
                Ok(taken),
                "{sequence} of {lineage}"
            );
        }
    }

    #[test]
    fn a_rewind_in_a_history_that_the_task_is_not_of_is_refused() {
        let mut sources = Sources::default();
        sources.hear(0, &header(0, 1, 3, "a")).unwrap();
        assert!(matches!(
            sources.clone().cut(&cut("c", "b", 5)),
            Err(CutRefused::Apart { .. })
        ));
        sources.cut(&cut("b", "a", 4)).unwrap();
        let before = sources.clone();
        assert!(
            matches!(sources.cut(&cut("c", "a", 5)), Err(CutRefused::Apart { .. })),
            "of a the task takes no more than 4"
        );
        assert_eq!(sources, before);
    }

    #[test]
    fn a_rewind_that_was_taken_back_before_the_task_heard_of_it_is_passed_over() {
        let (first, second) = ("rewind-1-0a", "rewind-2-0b");
        let mut sources = Sources::default();
        sources.hear(0, &header(0, 1, 3, "a")).unwrap();
        // Back to 2, then forward to 5: the task goes on from a state that knows of the second only.
        sources.cut(&cut(second, "a", 5)).unwrap();
        for (sequence, lineage, taken) in [(5, "a", true), (6, "a", false), (3, first, false), (6, second, true)] {
            assert_eq!(
                sources.hear(1, &header(0, 1, sequence, lineage)),
                Ok(taken),
                "{sequence} of {lineage}"
            );
        }
        let later = sources.hear(2, &header(0, 1, 7, "rewind-3-0c"));
        assert!(matches!(later, Err(ShuffleError::Lineage { .. })), "nobody told of it");
        // Nor of what comes without a rewind, were the task of the source partition born anew: it is not dropped for ever.
        let anew = sources.hear(2, &header(0, 1, 7, "born-anew"));
        assert!(matches!(anew, Err(ShuffleError::Lineage { .. })), "{anew:?}");
        assert!(sources.have_heard(0) && !sources.have_heard(1));
    }

    #[test]
    fn a_rewind_may_be_told_before_anything_was_heard() {
        let mut sources = Sources::default();
        sources.cut(&cut("b", "a", 2)).unwrap();
        assert_eq!(sources.watermark_ms(), NO_WATERMARK);
        for (sequence, lineage, taken) in [(1, "a", true), (3, "a", false), (3, "b", true)] {
            assert_eq!(
                sources.hear(0, &header(0, 1, sequence, lineage)),
                Ok(taken),
                "{sequence} of {lineage}"
            );
        }
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
