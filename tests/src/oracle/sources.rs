//! The batch answer over several source partitions: each judges its events by its own watermark, and a window adds up
//! what they accepted. Must not know how, or in which order, the events come together.

use std::collections::BTreeMap;

use super::aggregates::Row;
use super::shedding::Shedding;
use super::windows::Firing;
use super::{Entry, Expected, NO_WATERMARK, Spec, accept, batch_answer, outputs, result};

/// The last values of each window and key, `(result key, values)`, once every log has ended. Only for windows that are
/// not sessions. The place of a log in the list breaks ties between events of one time.
pub fn answer_of_sources(spec: &Spec, logs: &[Vec<Entry>]) -> BTreeMap<String, String> {
    let mut windows: BTreeMap<(i64, i64, usize, String), Vec<Row>> = BTreeMap::new();
    for log in logs {
        let (mut watermark, mut clock) = (NO_WATERMARK, None);
        for (entry, item) in log.iter().enumerate() {
            match item {
                Entry::IdleAdvance(to) => watermark = watermark.max(*to),
                Entry::EndOfInput => watermark = i64::MAX,
                Entry::Clock(now) => clock = Some(*now),
                Entry::Tick(_) | Entry::Share(_) | Entry::Shed(_) => {}
                Entry::Record(_) | Entry::Stamped(..) => {
                    let Ok(events) = accept(spec, (entry, item), watermark, clock) else {
                        continue;
                    };
                    for event in &events {
                        for (start, end, index) in &event.joined {
                            let id = (*start, *end, *index, event.members.clone());
                            windows.entry(id).or_default().push(event.row.clone());
                        }
                    }
                    watermark = events.iter().map(|event| event.allows).fold(watermark, i64::max);
                }
            }
        }
    }
    let answers = windows.into_iter().map(|((start, end, index, members), rows)| {
        let firing = Firing {
            op: "Upsert",
            window: spec.windows[index].name.clone(),
            start,
            end,
            members,
            index: 0,
            timing: "OnTime",
            last: true,
            rows,
        };
        result(spec, 0, &firing, &Shedding::default())
    });
    batch_answer(&answers.collect::<Vec<_>>())
}

/// Late and dead records of one log, in order: they do not depend on other logs.
pub fn refused(spec: &Spec, log: &[Entry]) -> Vec<Expected> {
    let refused = |output: &Expected| match output {
        Expected::Late { .. } | Expected::Dead { .. } => true,
        Expected::Result { .. } => false,
    };
    outputs(spec, log).into_iter().filter(refused).collect()
}
