//! `--state DIR`: what a volume is to a pod. Tasks, place in the input and lengths of the outputs are written as one, so
//! that a killed run goes on where its last commit stood and the union of its outputs is that of an undisturbed run.
//! Must not read the input or write outputs.

mod journal;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use streamagg_crds::resolved::Resolved;
use streamagg_processor::pipeline::builder::Plan;
use streamagg_processor::pipeline::operator::Task;
use streamagg_processor::state::backend::{Backend, Change, Changes, Error, Visit};

use self::journal::Journal;
use super::RunError;
use super::source::Place;
use crate::cli::RunArguments;

/// Version of [`Document`].
const VERSION: u32 = 1;
/// Key of the document; tasks have keys that begin with a byte above it.
const DOCUMENT: &[u8] = &[0];

/// Where a run stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Document {
    version: u32,
    job_id: String,
    /// `--input`, `--output`, `--late`, `--dead` and `--partitions` as they were given.
    flags: Vec<Option<String>>,
    /// The input was read up to here.
    place: Place,
    /// Lengths of the outputs, in bytes; 0 for those that are not written.
    outputs: [u64; 3],
    /// The input had ended and every window has fired.
    ended: bool,
}

/// Where an earlier run stood.
#[derive(Debug)]
pub(super) struct Resumed {
    pub(super) place: Place,
    pub(super) outputs: [u64; 3],
    pub(super) ended: bool,
    pub(super) tasks: Vec<Task>,
}

/// An open state directory; no other process has it.
#[derive(Debug)]
pub(super) struct StateDirectory {
    path: PathBuf,
    journal: Journal,
    document: Document,
    _lock: File,
}

impl StateDirectory {
    /// Opens or makes the directory; what an earlier run left there, if it was a run of the same job and flags.
    pub(super) fn open(
        path: &Path,
        arguments: &RunArguments,
        job: &Resolved,
        plan: &Arc<Plan>,
    ) -> Result<(Self, Option<Resumed>), RunError> {
        let failed = |problem: String| RunError::State {
            path: path.to_owned(),
            problem,
        };
        std::fs::create_dir_all(path).map_err(|error| failed(error.to_string()))?;
        let lock = File::create(path.join("lock")).map_err(|error| failed(error.to_string()))?;
        lock.try_lock()
            .map_err(|_| failed("another process uses it; wait for its end or give another directory".to_owned()))?;
        let journal = Journal::open(&path.join("state")).map_err(|error| failed(error.to_string()))?;
        let document = Document {
            version: VERSION,
            job_id: job.job_id.clone(),
            flags: flags(arguments),
            place: Place::default(),
            outputs: [0; 3],
            ended: false,
        };
        let mut state = Self {
            path: path.to_owned(),
            journal,
            document,
            _lock: lock,
        };
        let resumed = state.resume(usize::from(arguments.partitions), plan)?;
        Ok((state, resumed))
    }

    fn failed(&self, problem: impl ToString) -> RunError {
        RunError::State {
            path: self.path.clone(),
            problem: problem.to_string(),
        }
    }

    fn resume(&mut self, partitions: usize, plan: &Arc<Plan>) -> Result<Option<Resumed>, RunError> {
        let found = self.journal.get(DOCUMENT).map_err(|error| self.failed(error))?;
        let Some(bytes) = found else {
            return Ok(None);
        };
        let found: Document = serde_json::from_slice(&bytes)
            .map_err(|error| self.failed(format!("{error}; remove the directory to begin again")))?;
        if found.version != VERSION || found.job_id != self.document.job_id || found.flags != self.document.flags {
            let told = |document: &Document| {
                let flags: Vec<&str> = document.flags.iter().flatten().map(String::as_str).collect();
                format!("job {} with {}", document.job_id, flags.join(" "))
            };
            let problem = format!(
                "it holds the state of {}, this is {}; run that again, or give another directory",
                told(&found),
                told(&self.document)
            );
            return Err(self.failed(problem));
        }
        let mut tasks = Vec::with_capacity(partitions);
        for partition in 0..partitions {
            let view = View {
                journal: &self.journal,
                prefix: prefix(partition),
            };
            let task = Task::restore(Arc::clone(plan), &view).map_err(|error| self.failed(error))?;
            tasks.push(task.ok_or_else(|| self.failed("a task is missing; remove the directory to begin again"))?);
        }
        let resumed = Resumed {
            place: found.place.clone(),
            outputs: found.outputs,
            ended: found.ended,
            tasks,
        };
        self.document = found;
        Ok(Some(resumed))
    }

    /// Writes where the run stands. The outputs were handed to the system up to these lengths before.
    pub(super) fn commit(
        &mut self,
        tasks: &mut [Task],
        place: Place,
        outputs: [u64; 3],
        ended: bool,
    ) -> Result<(), RunError> {
        self.document.place = place;
        self.document.outputs = outputs;
        self.document.ended = ended;
        let mut all = Changes::default();
        let mut own = Changes::default();
        for (partition, task) in tasks.iter_mut().enumerate() {
            own.clear();
            task.take_changes(&mut own);
            let prefix = prefix(partition);
            let key = |key: &[u8]| [&prefix[..], key].concat();
            for change in own.iter() {
                match change {
                    Change::Put { key: at, value } => all.put(&key(at), value),
                    Change::Delete { key: at } => all.delete(&key(at)),
                    Change::DeleteRange { from, to } => all.delete_range(&key(from), &key(to)),
                }
            }
        }
        let document = serde_json::to_vec(&self.document).map_err(|error| self.failed(error))?;
        all.put(DOCUMENT, &document);
        self.journal.apply(&all).map_err(|error| RunError::State {
            path: self.path.clone(),
            problem: error.to_string(),
        })
    }
}

/// Keys of a task begin with 1 and its number.
fn prefix(partition: usize) -> [u8; 3] {
    let [high, low] = u16::try_from(partition).unwrap_or(u16::MAX).to_be_bytes();
    [1, high, low]
}

fn flags(arguments: &RunArguments) -> Vec<Option<String>> {
    let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
    let flag = |name: &str, value: Option<String>| value.map(|value| format!("{name} {value}"));
    vec![
        flag("--input", Some(arguments.input.clone())),
        flag("--output", arguments.output.clone()),
        flag("--late", path(&arguments.late)),
        flag("--dead", path(&arguments.dead)),
        flag("--partitions", Some(arguments.partitions.to_string())),
    ]
}

/// One task's part of the journal.
struct View<'a> {
    journal: &'a Journal,
    prefix: [u8; 3],
}

impl Backend for View<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        self.journal.get(&[&self.prefix[..], key].concat())
    }

    fn scan(&self, prefix: &[u8], visit: &mut Visit<'_>) -> Result<(), Error> {
        let own = self.prefix.len();
        self.journal
            .scan(&[&self.prefix[..], prefix].concat(), &mut |key, value| {
                visit(&key[own..], value)
            })
    }

    fn apply(&mut self, _: &Changes) -> Result<(), Error> {
        Err(Error::Store {
            message: "a view of one task is for reading".to_owned(),
        })
    }
}
