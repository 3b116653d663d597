//! The fluent builder: notes each step, and checks all of them when the pipeline is built.
//! Must not run anything.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use streamagg_crds::v1alpha1::TimeUnit;

use super::aggregates::Aggregate;
use super::declared::{Declared, Phase, duration};
use super::error::{BuildErrors, Misuse, SinkError, Step};
use super::keys::Key;
use super::operators::{Elements, Filter, FlatMap, Map, Operators, Unchanged};
use super::run::Run;
use super::sinks::{DeadLetter, LateEvent, WindowResult};
use super::watermarks::Watermark;
use super::windows::Window;
use crate::pipeline::builder::Plan;
use crate::pipeline::output::Record;
use crate::state::backend::{self, Backend};

/// What a closure of a sink answers.
type Taken = Result<(), SinkError>;
/// The closure that stands where none was given.
type DropResult = fn(&WindowResult<'_>) -> Taken;
type DropLate = fn(&LateEvent<'_>) -> Taken;
type DropDead = fn(&DeadLetter<'_>) -> Taken;

/// Closures that outputs go to.
#[derive(Clone, Debug)]
pub(super) struct Sinks<R, L, D> {
    pub results: R,
    pub late: L,
    pub dead: D,
}

/// A pipeline while it is declared, in the order in which events go: closures over records, what an event is, its
/// group, its windows, its aggregates, and where their results go.
///
/// ```
/// use std::time::Duration;
/// use streamagg_processor::embed::{Aggregate, Stream, TimeUnit, Watermark, Window};
///
/// let problems = Stream::new()
///     .event_time("/ts", TimeUnit::Rfc3339)
///     .watermark(Watermark::monotonic())
///     .window("hour", Window::sliding(Duration::from_secs(3600), Duration::ZERO))
///     .aggregate("tokens", Aggregate::sum("total"))
///     .sink(|_| Ok(()))
///     .build()
///     .err()
///     .map(|errors| errors.to_string())
///     .unwrap_or_default();
/// assert!(problems.contains("window \"hour\": sliding.slide: "), "{problems}");
/// assert!(problems.contains("aggregate \"tokens\": sum.value: "), "{problems}");
/// ```
#[derive(Debug)]
#[must_use = "a stream does nothing until it is built and started"]
pub struct Stream<O = Unchanged, R = DropResult, L = DropLate, D = DropDead> {
    declared: Declared,
    operators: O,
    closures: usize,
    sinks: Sinks<R, L, D>,
    given: [bool; 3],
}

impl Default for Stream {
    fn default() -> Self {
        Self::of(Declared::new())
    }
}

impl Stream {
    /// A stream of JSON events, one a record.
    pub fn new() -> Self {
        Self::default()
    }

    /// What a manifest declares, as YAML or JSON; its source and sinks are left to the program. Steps add to it.
    ///
    /// # Errors
    /// Everything wrong with the manifest.
    pub fn from_manifest(text: &str) -> Result<Self, BuildErrors> {
        Ok(Self::of(Declared::of_manifest(text)?))
    }

    fn of(declared: Declared) -> Self {
        Self {
            declared,
            operators: Unchanged,
            closures: 0,
            sinks: Sinks {
                results: |_| Ok(()),
                late: |_| Ok(()),
                dead: |_| Ok(()),
            },
            given: [false; 3],
        }
    }
}

impl<O: Operators, R, L, D> Stream<O, R, L, D> {
    fn closure<P>(mut self, step: fn(usize) -> Step, wrap: impl FnOnce(O) -> P) -> Stream<P, R, L, D> {
        self.closures += 1;
        self.declared.enter(Phase::Event, &step(self.closures));
        Stream {
            declared: self.declared,
            operators: wrap(self.operators),
            closures: self.closures,
            sinks: self.sinks,
            given: self.given,
        }
    }

    /// Keeps the records for which a closure answers true; what it refuses moves nothing, not even the watermark.
    pub fn filter<F: FnMut(&Record<'_>) -> bool>(self, predicate: F) -> Stream<Filter<O, F>, R, L, D> {
        self.closure(Step::Filter, |before| Filter { before, predicate })
    }

    /// Writes each record anew: a closure appends the new bytes to an empty buffer.
    pub fn map<F: FnMut(&Record<'_>, &mut Vec<u8>)>(self, function: F) -> Stream<Map<O, F>, R, L, D> {
        let buffer = Vec::new();
        self.closure(Step::Map, |before| Map {
            before,
            function,
            buffer,
        })
    }

    /// Makes any number of records of each.
    pub fn flat_map<F: FnMut(&Record<'_>, &mut Elements)>(self, function: F) -> Stream<FlatMap<O, F>, R, L, D> {
        let elements = Elements::default();
        self.closure(Step::FlatMap, |before| FlatMap {
            before,
            function,
            elements,
        })
    }

    fn once(mut self, path: &[&str], value: Value, step: Step) -> Self {
        self.declared.enter(Phase::Event, &step);
        self.declared.set(path, value, step);
        self
    }

    /// The field, by JSON pointer, that holds an event's time, and how it is written.
    pub fn event_time(self, field: &str, unit: TimeUnit) -> Self {
        let value = json!({"field": field, "unit": unit});
        self.once(&["event", "timestamp"], value, Step::EventTime)
    }

    /// An event's time is its record's [`Record::timestamp_ms`].
    pub fn record_time(self) -> Self {
        self.once(&["event", "timestamp"], json!({"record": {}}), Step::EventTime)
    }

    /// How event time is known to have advanced.
    pub fn watermark(self, watermark: Watermark) -> Self {
        self.once(&["event", "watermark"], watermark.0, Step::Watermark)
    }

    /// How far beyond the clock given to [`Run::set_clock`] an event's time may be; what is further is a dead letter.
    pub fn max_future_skew(self, skew: Duration) -> Self {
        self.once(&["event", "maxFutureSkew"], duration(skew), Step::MaxFutureSkew)
    }

    /// A record that is broken outside the fields in use is a dead letter too.
    pub fn strict_json(self) -> Self {
        let format = json!({"json": {"strict": true}});
        self.once(&["source", "format"], format, Step::StrictJson)
    }

    /// Share of dead letters among the last 10,000 records above which a run ends (default: never).
    pub fn max_bad_ratio(self, share: f64) -> Self {
        self.once(&["maxBadRatio"], json!(share), Step::MaxBadRatio)
    }

    /// A value derived from each event by a CEL expression; it may use those before it.
    pub fn derive(mut self, name: &str, expression: &str) -> Self {
        self.declared.enter(Phase::Event, &Step::Derive(name.to_owned()));
        self.declared.push("let", name, json!({"value": expression}));
        self
    }

    /// Makes one event of each element of the array at this JSON pointer; the element stands in the array's place.
    pub fn explode(self, field: &str) -> Self {
        self.once(&["explode"], json!({"field": field}), Step::Explode)
    }

    /// A CEL condition that events have to meet; one that does not moves the watermark and counts nowhere. All derived
    /// values are there, wherever they stand.
    pub fn condition(self, expression: &str) -> Self {
        self.once(&["where"], json!(expression), Step::Condition)
    }

    /// Adds a part to the group key. Without any there is one group.
    pub fn key_by(mut self, name: &str, key: impl Into<Key>) -> Self {
        self.declared.enter(Phase::Key, &Step::KeyBy(name.to_owned()));
        self.declared.push("groupBy", name, key.into().0.into());
        self
    }

    /// Adds a window; each aggregate is computed in each window.
    pub fn window(mut self, name: &str, window: Window) -> Self {
        self.declared.enter(Phase::Window, &Step::Window(Some(name.to_owned())));
        self.declared.push("windows", name, window.body);
        self
    }

    /// Adds an aggregate.
    pub fn aggregate(mut self, name: &str, aggregate: Aggregate) -> Self {
        self.declared
            .enter(Phase::Aggregate, &Step::Aggregate(Some(name.to_owned())));
        self.declared.push("aggregates", name, aggregate.body);
        self
    }

    fn give<R2, L2, D2>(
        mut self,
        place: usize,
        step: Step,
        sinks: impl FnOnce(Sinks<R, L, D>) -> Sinks<R2, L2, D2>,
    ) -> Stream<O, R2, L2, D2> {
        self.declared.enter(Phase::Sink, &step);
        if std::mem::replace(&mut self.given[place], true) {
            self.declared.problem(step, Misuse::Repeated);
        }
        Stream {
            declared: self.declared,
            operators: self.operators,
            closures: self.closures,
            sinks: sinks(self.sinks),
            given: self.given,
        }
    }

    /// Where results go.
    pub fn sink<F: FnMut(&WindowResult<'_>) -> Taken>(self, results: F) -> Stream<O, F, L, D> {
        self.give(0, Step::Sink, |Sinks { late, dead, .. }| Sinks { results, late, dead })
    }

    /// Where events go whose windows are all closed. Without it they are dropped and counted.
    pub fn late_events<F: FnMut(&LateEvent<'_>) -> Taken>(self, late: F) -> Stream<O, R, F, D> {
        self.give(1, Step::LateEvents, |Sinks { results, dead, .. }| Sinks {
            results,
            late,
            dead,
        })
    }

    /// Where records go that are no usable events. Without it they are dropped and counted.
    pub fn dead_letters<F: FnMut(&DeadLetter<'_>) -> Taken>(self, dead: F) -> Stream<O, R, L, F> {
        self.give(2, Step::DeadLetters, |Sinks { results, late, .. }| Sinks {
            results,
            late,
            dead,
        })
    }

    /// Checks every step and compiles the pipeline.
    ///
    /// # Errors
    /// Everything wrong with it, each with its step.
    pub fn build(mut self) -> Result<Pipeline<O, R, L, D>, BuildErrors> {
        if !self.given[0] {
            self.declared.problem(Step::Sink, Misuse::Missing);
        }
        let job = self.declared.resolve()?;
        Ok(Pipeline {
            plan: Arc::new(Plan::compile(&job)),
            operators: self.operators,
            sinks: self.sinks,
        })
    }
}

/// A compiled pipeline. One run is one partition: clone the pipeline for more of them.
#[derive(Clone, Debug)]
pub struct Pipeline<O, R, L, D> {
    pub(super) plan: Arc<Plan>,
    pub(super) operators: O,
    pub(super) sinks: Sinks<R, L, D>,
}

impl<O, R, L, D> Pipeline<O, R, L, D>
where
    O: Operators,
    R: FnMut(&WindowResult<'_>) -> Taken,
    L: FnMut(&LateEvent<'_>) -> Taken,
    D: FnMut(&DeadLetter<'_>) -> Taken,
{
    /// A run without state whose first record stands at `offset` or behind it.
    pub fn start(self, offset: i64) -> Run<O, R, L, D> {
        Run::start(self, offset)
    }

    /// A run that goes on where [`Run::take_changes`] last left `backend`; `None` when nothing was ever saved there.
    ///
    /// # Errors
    /// When the state is damaged, of another format, or of a pipeline that this one cannot follow.
    pub fn restore(self, backend: &dyn Backend) -> Result<Option<Run<O, R, L, D>>, backend::Error> {
        Run::restore(self, backend)
    }
}
