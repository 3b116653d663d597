//! Commits an epoch, a claim, a birth, a fork or a rewind: one transaction, sent again, settled or given up by the protocol.
//! Must not hold: local state.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use streamagg_crds::admin::Problem;
use streamagg_crds::v1alpha1::Delivery;

use super::board::Board;
use super::failpoint::Place;
use super::topology::Topology;
use super::{End, JobContext};
use crate::kafka::config;
use crate::kafka::control::{self, ControlKey, key_bytes, value_bytes};
use crate::kafka::producer::{TaskProducer, TransactionError};
use crate::metrics::{ErrorClass, Stage, Stages, TransactionOutcome};
use crate::pipeline::position::Decision;
use crate::pipeline::sink::{EpochBuffer, Outgoing, SinkPlan};
use crate::pipeline::stage::Role;
use crate::state::recovery::ownership::{AfterUnknown, after_unknown};
use crate::state::recovery::{Birth, Position, Reason, Stop, at_least_once};

/// Times that one epoch is sent at most before the task stops reading and tries again from its start.
const SENDS_MAX: u32 = 30;
/// Time for all of them together.
const SENDING_MAX: Duration = Duration::from_secs(300);
/// An epoch that is not committed after so long is told as a problem of the task, which goes on trying.
const TOLD_AFTER: Duration = Duration::from_secs(10);
/// An attempt that took so long is not made again by the same client: it may know no broker any more.
const SLOW_SEND: Duration = Duration::from_secs(20);
/// A batch is not made smaller than this, bytes.
const BATCH_BYTES_LEAST: usize = 32 << 10;
/// Longest wait between two of them.
const SEND_AGAIN_LONGEST: Duration = Duration::from_secs(2);

/// Key and value of a record in the control topic; without a value it is a tombstone.
type Document = (Vec<u8>, Option<Vec<u8>>);

/// What a transaction carries beside the position.
pub(super) struct Epoch<'a> {
    /// Outputs; absent for a claim, a birth, a fork or a rewind.
    pub outputs: Option<(&'a mut EpochBuffer, &'a mut SinkPlan)>,
    /// The birth record.
    pub birth: Option<&'a Birth>,
    /// Decision records.
    pub decisions: &'a [Decision],
    /// Lineage and number of decisions that no checkpoint needs any more.
    pub tombstones: &'a [(String, u64)],
    /// K as it was read or last committed.
    pub built_on: Option<&'a Position>,
    /// K afterwards.
    pub sent: &'a Position,
}

/// The transactional side of one task.
pub(super) struct Committer<'a> {
    context: &'a JobContext,
    board: &'a Board,
    task: u32,
    role: Role,
    delivery: Delivery,
    control_topic: String,
    /// Bytes of a batch, at most.
    batch_bytes: usize,
    producer: Option<TaskProducer>,
    stages: Stages,
    /// The problem that was told when the sink began to fail, while it fails.
    told_before: RefCell<Option<Option<Problem>>>,
}

impl<'a> Committer<'a> {
    /// Initialises: every earlier owner is fenced.
    pub fn init(context: &'a JobContext, board: &'a Board, task: u32, batch_bytes: usize) -> Result<Self, End> {
        let control_topic = config::control_topic(&context.job.job_id);
        let role = context.role(task);
        let mut this = Self {
            context,
            board,
            task,
            role,
            delivery: role.delivery(context.delivery),
            control_topic,
            batch_bytes,
            producer: None,
            stages: context.metrics.stages(task),
            told_before: RefCell::default(),
        };
        this.init_again()?;
        Ok(this)
    }

    /// Initialises, if the assignment in hand names this pod.
    fn init_again(&mut self) -> Result<(), End> {
        self.producer = None;
        if !self.board.view().named {
            return Err(End::Left);
        }
        let (job, connection) = (&self.context.job, self.context.sink_connection()?);
        self.producer = Some(match self.delivery {
            Delivery::ExactlyOnce => {
                let settings = config::producer(job, &connection, self.role, self.batch_bytes);
                TaskProducer::init(&settings, &|| self.board.beat())?
            }
            Delivery::AtLeastOnce => TaskProducer::plain(&config::plain_producer(job, &connection, self.batch_bytes))?,
        });
        Ok(())
    }

    /// Reads all that earlier owners have left in the control partition of the task; a position that cannot be read is told
    /// beside it.
    pub fn read_control(&self) -> Result<control::ControlCopy, End> {
        let settings = config::control_consumer(&self.context.job, &self.context.sink_connection()?);
        let mark = self.mark()?;
        self.board.beat();
        let copy = control::look(&settings, &self.control_topic, self.task, Some(&mark))?;
        if let Some(position) = &copy.position {
            self.board.saw_generation(position.generation);
        }
        Ok(copy)
    }

    /// Reads the control partition of any task of the job; a position that cannot be read is told beside it.
    pub fn read_control_of(&self, task: u32) -> Result<control::ControlCopy, End> {
        let settings = config::control_consumer(&self.context.job, &self.context.sink_connection()?);
        self.board.beat();
        Ok(control::look(&settings, &self.control_topic, task, None)?)
    }

    /// Writes a record behind everything that earlier owners have committed; answers its key. A leader that was replaced and
    /// does not know it cannot take it: it has no followers. So whoever shows it shows what lies before it, too.
    fn mark(&self) -> Result<Vec<u8>, End> {
        let Some(producer) = &self.producer else {
            return Err(End::Again("no producer".to_owned()));
        };
        let document = [(control::mark_key(self.task), None)];
        let (began, mut attempt) = (Instant::now(), 0);
        let alive = || self.beat(began);
        loop {
            let sent_at = Instant::now();
            let records = self.to_control(&document);
            let written = match self.delivery {
                Delivery::ExactlyOnce => producer.publish(records, &alive, &|| {}),
                Delivery::AtLeastOnce => producer.publish_plain(records, &alive),
            };
            match written {
                Ok(()) => break,
                Err(TransactionError::Aborted(why)) if sent_at.elapsed() >= SLOW_SEND => {
                    return Err(End::Again(format!("mark in the control topic: {why}")));
                }
                Err(TransactionError::Aborted(why)) if attempt < SENDS_MAX && self.board.view().named => {
                    tracing::warn!(
                        task = self.task,
                        why,
                        attempt,
                        "mark in the control topic aborted, sending it again"
                    );
                    std::thread::sleep(send_again_after(attempt));
                    attempt += 1;
                }
                Err(error) => return Err(error.into()),
            }
        }
        let [(key, _)] = document;
        Ok(key)
    }

    /// Documents as records of the control partition of the task.
    fn to_control<'b>(&'b self, documents: &'b [Document]) -> impl Iterator<Item = Outgoing<'b>> {
        documents.iter().map(|(key, value)| Outgoing {
            topic: &self.control_topic,
            partition: i32::try_from(self.task).ok(),
            key: Some(key),
            value: value.as_deref(),
            timestamp_ms: None,
            headers: &[],
            trace: &[],
        })
    }

    /// Commits. Returns only when K is `epoch.sent`.
    pub fn commit(&mut self, mut epoch: Epoch<'_>) -> Result<(), End> {
        if let Some((buffer, plan)) = &mut epoch.outputs {
            buffer.refuse_too_large(plan);
        }
        let documents = documents(&epoch, self.task);
        let began = Instant::now();
        let mut last = String::new();
        for attempt in 0..SENDS_MAX {
            if !self.board.view().named {
                return Err(End::Left);
            }
            if began.elapsed() > SENDING_MAX {
                break;
            }
            let sent_at = Instant::now();
            let mut sent = self.send(&epoch, &documents, began);
            self.count(&sent);
            if let Err(TransactionError::Aborted(why)) = &sent
                && sent_at.elapsed() >= SLOW_SEND
            {
                sent = Err(TransactionError::Unknown(format!("{why}, after a long time")));
            }
            match sent {
                Ok(()) => {
                    self.recovered();
                    return Ok(());
                }
                Err(TransactionError::Aborted(why)) => {
                    last.clone_from(&why);
                    tracing::warn!(
                        task = self.task,
                        why,
                        attempt,
                        "transaction aborted, sending the epoch again"
                    );
                    self.board.beat();
                    std::thread::sleep(send_again_after(attempt));
                    if self.delivery == Delivery::AtLeastOnce {
                        // Without a transaction to give up, what is under way must not come behind what is sent again.
                        self.init_again()?;
                    }
                }
                Err(TransactionError::TooLarge { topic }) => {
                    self.make_room(&mut epoch, &topic)?;
                    // The refused batch is a gap in the numbers of the client, which brokers take from nobody.
                    if self.settle(&epoch)? {
                        self.recovered();
                        return Ok(());
                    }
                }
                Err(TransactionError::Unknown(why)) => {
                    last.clone_from(&why);
                    tracing::warn!(task = self.task, why, "outcome of the commit unknown, reading it back");
                    if self.settle(&epoch)? {
                        self.recovered();
                        return Ok(());
                    }
                }
                Err(error @ (TransactionError::Fenced(_) | TransactionError::Stop(_))) => return Err(error.into()),
            }
        }
        let message = format!(
            "no transaction of an epoch succeeded for {} s, the last: {last}; check the brokers of the sink. \
             The task reads nothing meanwhile and tries again by itself",
            began.elapsed().as_secs()
        );
        Err(Stop::new(Reason::SinkFailing, message).into())
    }

    /// The loop goes on turning; what takes long is told.
    fn beat(&self, began: Instant) {
        self.board.beat();
        if began.elapsed() >= TOLD_AFTER && self.told_before.borrow().is_none() {
            let message = format!(
                "an epoch is not committed after {} s; the sink answers slowly or not at all: check its brokers. The task \
                 goes on trying and reads nothing meanwhile",
                TOLD_AFTER.as_secs()
            );
            tracing::warn!(task = self.task, message);
            let problem = Stop::new(Reason::SinkFailing, message).problem();
            self.board
                .update(|status| *self.told_before.borrow_mut() = Some(status.problem.replace(problem)));
        }
    }

    /// What was told of the sink is over.
    pub fn recovered(&self) {
        if let Some(before) = self.told_before.take() {
            self.board.update(|status| status.problem = before);
        }
    }

    fn count(&self, sent: &Result<(), TransactionError>) {
        let (outcome, kind) = match sent {
            Ok(()) => (TransactionOutcome::Committed, None),
            Err(TransactionError::Aborted(_)) => (TransactionOutcome::Aborted, Some("TransactionAborted")),
            Err(TransactionError::Unknown(_)) => (TransactionOutcome::Unknown, Some("OutcomeUnknown")),
            Err(TransactionError::Fenced(_)) => (TransactionOutcome::Fenced, None),
            // What follows from it is counted as what it is.
            Err(TransactionError::TooLarge { .. } | TransactionError::Stop(_)) => (TransactionOutcome::Aborted, None),
        };
        let metrics = &self.context.metrics;
        metrics.transaction(self.task, outcome);
        if let Some(kind) = kind {
            metrics.error(self.task, ErrorClass::Retry, kind, 1);
        }
    }

    fn send(&self, epoch: &Epoch<'_>, documents: &[Document], sending_since: Instant) -> Result<(), TransactionError> {
        let Some(producer) = &self.producer else {
            return Err(TransactionError::Unknown("no producer".to_owned()));
        };
        let control = self.to_control(documents);
        let alive = || self.beat(sending_since);
        let is_epoch = epoch.outputs.is_some();
        self.lose(is_epoch, Place::RequestLost)?;
        let began = Instant::now();
        let produced = Cell::new(began);
        let before_commit = || {
            produced.set(Instant::now());
            if is_epoch {
                self.context.failpoints.pass(Place::BeforeCommit);
            }
        };
        let published = match (&epoch.outputs, self.delivery) {
            // The position first: the client adds the partitions it knows of to the transaction as soon as there is one,
            // and those that come to its queue after all results only with a second request, when that was answered.
            (Some((buffer, plan)), Delivery::ExactlyOnce) => {
                producer.publish(control.chain(buffer.records(plan)), &alive, &before_commit)
            }
            (None, Delivery::ExactlyOnce) => producer.publish(control, &alive, &before_commit),
            (outputs, Delivery::AtLeastOnce) => {
                let produced = match outputs {
                    Some((buffer, plan)) => producer.publish_plain(buffer.records(plan), &alive),
                    None => Ok(()),
                };
                produced.and_then(|()| {
                    before_commit();
                    // The position says that everything before it is there.
                    producer.publish_plain(control, &alive)
                })
            }
        };
        if is_epoch && published.is_ok() {
            self.stages.took(Stage::Produce, produced.get() - began);
            self.stages.took(Stage::Commit, produced.get().elapsed());
            self.lose(is_epoch, Place::AnswerLost)?;
        }
        published
    }

    /// Where a test asks for it, an outcome that nobody knows.
    fn lose(&self, is_epoch: bool, place: Place) -> Result<(), TransactionError> {
        match is_epoch && self.context.failpoints.strikes(place) {
            true => Err(TransactionError::Unknown(format!("failpoint {}", place.name()))),
            false => Ok(()),
        }
    }

    /// Makes room for a topic that refused a record, so that the epoch is not tried for ever.
    fn make_room(&mut self, epoch: &mut Epoch<'_>, topic: &str) -> Result<(), End> {
        // Batches were made for the bounds that start-up found.
        if Topology::observe(self.context)?.batch_bytes() < self.batch_bytes {
            return Err(End::Again(format!("topic {topic} takes less than it did")));
        }
        // Bounds are unknown to whoever may not describe a topic: small batches first, for no record may be the large one.
        if self.batch_bytes > BATCH_BYTES_LEAST {
            self.batch_bytes = (self.batch_bytes / 4).max(BATCH_BYTES_LEAST);
            return Ok(());
        }
        if let Some((buffer, plan)) = &mut epoch.outputs
            && plan.lower_bound(topic)
        {
            buffer.refuse_too_large(plan);
            return Ok(());
        }
        let message = format!("topic {topic} refuses records within its bound; raise its max.message.bytes");
        Err(Stop::new(Reason::SpecInvalid, message).into())
    }

    /// Finds out whether the epoch was committed. `false`: it was not, send it again.
    fn settle(&mut self, epoch: &Epoch<'_>) -> Result<bool, End> {
        self.init_again()?;
        let committed = self.read_control()?.position;
        let view = self.board.view();
        if let Some(position) = &committed
            && position.generation > view.generation
        {
            return Err(End::Released {
                generation: position.generation,
            });
        }
        let after = match self.delivery {
            Delivery::ExactlyOnce => after_unknown(view.named, committed.as_ref(), epoch.sent, epoch.built_on),
            Delivery::AtLeastOnce => at_least_once::after_unknown(view.named, committed.as_ref(), epoch.sent),
        };
        match after {
            AfterUnknown::Committed => Ok(true),
            AfterUnknown::SendAgain => Ok(false),
            AfterUnknown::Release => Err(End::Left),
            AfterUnknown::StartUp => Err(End::Again("somebody else committed meanwhile".to_owned())),
        }
    }
}

/// Wait behind this attempt.
fn send_again_after(attempt: u32) -> Duration {
    Duration::from_millis(10)
        .saturating_mul(1 << attempt.min(8))
        .min(SEND_AGAIN_LONGEST)
}

/// What goes to the control topic.
fn documents(epoch: &Epoch<'_>, task: u32) -> Vec<Document> {
    let birth = epoch.birth.map(|birth| {
        let key = key_bytes(&ControlKey::Birth { task });
        (key, Some(value_bytes(birth)))
    });
    let position = (key_bytes(&ControlKey::Position { task }), Some(value_bytes(epoch.sent)));
    birth
        .into_iter()
        .chain(decision_documents(epoch, task))
        .chain([position])
        .collect()
}

/// The decisions of an epoch, the last of them with the number that the position has come to, and the tombstones of old
/// ones.
fn decision_documents(epoch: &Epoch<'_>, task: u32) -> impl Iterator<Item = Document> {
    let key = move |lineage: &String, control_seq| {
        key_bytes(&ControlKey::Decision {
            task,
            lineage: lineage.clone(),
            control_seq,
        })
    };
    let first = (epoch.sent.control_seq + 1).saturating_sub(epoch.decisions.len() as u64);
    let made = epoch.decisions.iter().zip(first..);
    let made = made.map(move |(decision, number)| (key(&epoch.sent.lineage, number), Some(value_bytes(decision))));
    let gone = epoch.tombstones.iter();
    made.chain(gone.map(move |(lineage, number)| (key(lineage, *number), None)))
}
