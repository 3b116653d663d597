//! The batch answer over several source partitions: each judges its events by its own watermark, and a window adds up
//! what they accepted. Must not know how, or in which order, the events come together.

use std::collections::BTreeMap;

use super::aggregates::Row;
use super::shedding::Shedding;
use super::windows::{self, Firing};
use super::{Entry, Expected, NO_WATERMARK, Spec, accept, batch_answer, outputs, result};

/// The last values of each window and key, `(result key, values)`, once every log has ended. Count windows are left out:
/// which events are together there is a matter of order. The place of a log in the list breaks ties between events of one
/// time.
pub fn answer_of_sources(spec: &Spec, logs: &[Vec<Entry>]) -> BTreeMap<String, String> {
    let mut found: BTreeMap<(i64, i64, usize, String), Vec<Row>> = BTreeMap::new();
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
                            // All of a key's sessions together: which there are, all its events say.
                            let (start, end) = match windows::is_session(&spec.windows[*index]) {
                                true => (0, 0),
                                false => (*start, *end),
                            };
                            let id = (start, end, *index, event.members.clone());
                            found.entry(id).or_default().push(event.row.clone());
                        }
                    }
                    watermark = events.iter().map(|event| event.allows).fold(watermark, i64::max);
                }
            }
        }
    }
    let instances = found.into_iter().flat_map(|((start, end, index, members), rows)| {
        let window = &spec.windows[index];
        let instances = match window.shape {
            windows::Shape::Count => Vec::new(),
            windows::Shape::Session | windows::Shape::SessionByField => {
                let numbered = rows.into_iter().enumerate().collect();
                let sessions = windows::sessions(window, numbered).into_iter();
                let rows = |rows: Vec<(usize, Row)>| rows.into_iter().map(|(_, row)| row).collect();
                sessions
                    .map(|(start, end, numbered)| (start, end, rows(numbered)))
                    .collect()
            }
            _ => vec![(start, end, rows)],
        };
        let members = move |(start, end, rows): (i64, i64, Vec<Row>)| (start, end, index, members.clone(), rows);
        instances.into_iter().map(members)
    });
    let answers = instances.map(|(start, end, index, members, rows)| {
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
