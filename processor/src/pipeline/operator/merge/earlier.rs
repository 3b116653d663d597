//! Partials that were written under an earlier spec, read into the rows of the present one: as stored state is. A task
//! knows a layout because it has had it itself, or because a source partition said that it goes on in it.
//! Must not hold: which specs can follow each other (`persist`).

use super::{ShuffleError, Unreadable, WindowTask};
use crate::aggregation::layout::Layout;
use crate::aggregation::rows::RowStore;
use crate::pipeline::builder::{Plan, StateLayout};
use crate::pipeline::operator::persist::{Migration, parse_layout};
use crate::pipeline::shuffle::Header;
use crate::state::backend::Error;

/// A layout of an earlier spec.
#[derive(Clone, Debug)]
pub(super) struct Earlier {
    layout: Layout,
    migration: Migration,
    shared: Vec<(usize, usize)>,
}

impl Earlier {
    /// # Errors
    /// When the present spec cannot follow this one.
    pub fn new(stored: &StateLayout, plan: &Plan) -> Result<Self, Error> {
        let migration = Migration::between(stored, &plan.state_layout)?;
        let layout = Layout::of_stored(&stored.accumulators);
        Ok(Self {
            shared: plan.layout.shared_with(&layout),
            layout,
            migration,
        })
    }

    /// The present number of a pane set.
    pub fn set(&self, index: usize) -> Option<usize> {
        self.migration.sets.get(index).copied()
    }

    /// The present place of a window.
    pub fn window(&self, index: usize) -> Option<usize> {
        self.migration.windows.get(index).copied()
    }

    /// A row as the present layout has it; aggregates that were added are as over no event. `None`: it is damaged.
    pub fn read(&self, bytes: &[u8], plan: &Plan) -> Option<RowStore> {
        let (mut found, mut row) = (RowStore::new(&self.layout, 0), RowStore::new(&plan.layout, 0));
        let (from, to) = (found.push(), row.push());
        if !self.layout.decode(bytes, found.get_mut(from)) {
            return None;
        }
        plan.layout
            .adopt(row.get_mut(to), &self.layout, found.get(from), &self.shared);
        Some(row)
    }
}

impl WindowTask {
    /// Whether partials in this layout can be read.
    pub(super) fn reads(&self, layout: u64) -> bool {
        layout == self.layout || self.earlier.contains_key(&layout)
    }

    /// A source partition goes on in a layout. One that it turns to from the task's own is of a newer spec: aggregates that
    /// only that has would be lost here, so the task waits for the newer spec. Any other is of an earlier one.
    ///
    /// # Errors
    /// [`ShuffleError::Layout`] when it cannot be read, [`ShuffleError::Damaged`] when it is none.
    pub(super) fn told(&mut self, offset: i64, header: &Header<'_>, document: &[u8]) -> Result<(), ShuffleError> {
        let had_mine = self.sources.goes_on_in(header.source, header.layout, self.layout);
        if self.reads(header.layout) {
            return Ok(());
        }
        let unreadable = |why| ShuffleError::Layout { offset, why };
        if had_mine {
            let source_partition = header.source;
            return Err(unreadable(Unreadable::Newer { source_partition }));
        }
        let damaged = ShuffleError::Damaged {
            offset,
            what: "a layout",
        };
        let layout = match parse_layout(document) {
            Ok(layout) if layout.fingerprint() == header.layout => layout,
            Ok(_) | Err(Error::Corrupt { .. }) => return Err(damaged),
            Err(error) => return Err(unreadable(Unreadable::apart(&error))),
        };
        let earlier = Earlier::new(&layout, &self.task.plan).map_err(|error| unreadable(Unreadable::apart(&error)))?;
        self.earlier.insert(header.layout, earlier);
        self.sources.remember(layout);
        Ok(())
    }
}

impl Unreadable {
    fn apart(error: &Error) -> Self {
        Self::Apart { why: error.to_string() }
    }
}
