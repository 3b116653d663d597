//! Partials that were written under an earlier spec, read into the rows of the present one: as stored state is.
//! Must not hold: which specs can follow each other (`persist`).

use crate::aggregation::layout::Layout;
use crate::aggregation::rows::RowStore;
use crate::pipeline::builder::{Plan, StateLayout};
use crate::pipeline::operator::persist::Migration;

/// A layout of an earlier spec.
#[derive(Clone, Debug)]
pub(super) struct Earlier {
    layout: Layout,
    migration: Migration,
    shared: Vec<(usize, usize)>,
}

impl Earlier {
    /// `None` when the present spec cannot follow this one.
    pub fn new(stored: &StateLayout, plan: &Plan) -> Option<Self> {
        let migration = Migration::between(stored, &plan.state_layout).ok()?;
        let layout = Layout::of_stored(&stored.accumulators);
        Some(Self {
            shared: plan.layout.shared_with(&layout),
            layout,
            migration,
        })
    }

    /// The present number of a pane set.
    pub fn set(&self, index: usize) -> Option<usize> {
        self.migration.sets.get(index).copied()
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
