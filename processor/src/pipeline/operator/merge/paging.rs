//! State of a window task that leaves memory and comes back, as of any task.
//! Must not hold: how (`operator::paging`). Barred rows stay: they are few, for each came late or too early for a window.

use super::WindowTask;
use crate::pipeline::operator::size::Measure;
use crate::state::backend::{Error, Reader};

/// What barred rows take is counted in parts of the budget: a look at the memory visits every key, and a budget that
/// shrinks asks for one.
const BUDGET_PARTS: usize = 16;

impl WindowTask {
    /// As [`super::Task::page`].
    pub fn page(&mut self, reader: Reader) {
        self.task.page(reader);
    }

    /// As [`super::Task::applied`].
    pub fn applied(&mut self, budget_bytes: usize) {
        let part = (budget_bytes / BUDGET_PARTS).max(1);
        let barred_bytes = self.barred_bytes().next_multiple_of(part);
        self.task.applied(budget_bytes.saturating_sub(barred_bytes));
    }

    /// As [`super::Task::evict_to`].
    pub fn evict_to(&mut self, bytes: usize) {
        self.task.evict_to(bytes.saturating_sub(self.barred_bytes()));
    }

    /// As [`super::Task::wants_commit`].
    pub fn wants_commit(&self) -> bool {
        self.task.wants_commit()
    }

    /// As [`super::Task::take_failure`].
    pub fn take_failure(&mut self) -> Option<Error> {
        self.task.take_failure()
    }

    /// As [`super::Task::rows_left_in_store`].
    pub fn rows_left_in_store(&self) -> usize {
        self.task.rows_left_in_store()
    }

    /// As [`super::Task::bytes_in_use`].
    pub fn bytes_in_use(&self) -> usize {
        self.task.bytes_in_use() + self.barred_bytes()
    }

    /// Bytes of memory that the state takes on the heap.
    pub fn state_bytes(&self) -> usize {
        self.task.state_bytes() + self.barred_bytes()
    }

    fn barred_bytes(&self) -> usize {
        self.barred.values().map(|set| set.bytes(Measure::Asked)).sum()
    }
}
