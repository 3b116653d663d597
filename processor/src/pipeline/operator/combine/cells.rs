//! Partials of windows that keep values of their own. An event that a combine task counts in such an instance is in time for
//! it, so nothing bars a partial: it goes to the one instance that it names, or to the session that it touches.
//! Must not hold: rows of shared panes.

use std::sync::Arc;

use super::Combine;
use crate::aggregation::rows::RowRef;
use crate::pipeline::operator::single::Singles;
use crate::pipeline::shuffle::{self, CellPartial, Shuffle};

impl Combine {
    /// Puts out what windows that keep values of their own have, and forgets it.
    pub(super) fn flush_cells(&mut self, shuffle: &mut Shuffle) {
        let task = &self.task;
        let instances = task.instances.iter().map(|set| &set.cells);
        let mut cells = instances.chain(task.sessions.iter().map(|set| &set.cells));
        if task.singles.len() == 0 && cells.all(|cells| cells.len() == 0) {
            return;
        }
        let plan = Arc::clone(&task.plan);
        // Their triggers wait for no watermark.
        self.tell_shed(shuffle);
        // Taken out, for what goes out needs the rest of the task.
        let mut keys = std::mem::take(&mut self.task.keys);
        let mut instances = std::mem::take(&mut self.task.instances);
        let mut sessions = std::mem::take(&mut self.task.sessions);
        let mut singles = std::mem::replace(&mut self.task.singles, Singles::new(&plan));
        let (mut row, mut part) = (Vec::new(), Vec::new());
        let mut put = |cell: CellPartial<'_>, values: RowRef<'_>| {
            row.clear();
            part.clear();
            plan.layout.encode(values, &mut row);
            shuffle::write_cell(&CellPartial { row: &row, ..cell }, &mut part);
            let partition = self.partition_of(cell.key);
            self.keep(partition, &part, shuffle::write_cells, shuffle);
        };
        for set in &mut instances {
            set.take_all(&mut keys, &mut put);
        }
        for set in &mut sessions {
            set.take_all(&mut keys, &mut put);
        }
        singles.take_all(&mut keys, |time_ms, key, values| {
            for (window, _) in &plan.own_windows.counts {
                let event = CellPartial {
                    window: *window,
                    span_ms: (time_ms, time_ms.saturating_add(1)),
                    events: 1,
                    key,
                    row: &[],
                };
                put(event, values);
            }
        });
        self.push_buffers(shuffle::write_cells, shuffle);
        let task = &mut self.task;
        (task.keys, task.instances, task.sessions, task.singles) = (keys, instances, sessions, singles);
    }
}
