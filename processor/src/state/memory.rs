//! State in a sorted map: for tests, the simulator and jobs that keep no local state across restarts.

use std::collections::BTreeMap;

use super::backend::{Backend, Change, Changes, Error, Visit};

/// A backend in memory; `clone` is a snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryBackend {
    entries: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Backend for MemoryBackend {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.entries.get(key).cloned())
    }

    fn scan(&self, prefix: &[u8], visit: &mut Visit<'_>) -> Result<(), Error> {
        for (key, value) in self.entries.range(prefix.to_vec()..) {
            if !key.starts_with(prefix) {
                break;
            }
            visit(key, value)?;
        }
        Ok(())
    }

    fn apply(&mut self, changes: &Changes) -> Result<(), Error> {
        for change in changes.iter() {
            match change {
                Change::Put { key, value } => {
                    self.entries.insert(key.to_vec(), value.to_vec());
                }
                Change::Delete { key } => {
                    self.entries.remove(key);
                }
                Change::DeleteRange { from, to } => {
                    let doomed: Vec<Vec<u8>> = self
                        .entries
                        .range(from.to_vec()..to.to_vec())
                        .map(|(key, _)| key.clone())
                        .collect();
                    for key in doomed {
                        self.entries.remove(&key);
                    }
                }
            }
        }
        Ok(())
    }
}
