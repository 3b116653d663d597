//! The declared steps of a pipeline as the `spec` of a manifest, so that its rules are the only ones.
//! Must not hold closures.

use std::time::Duration;

use serde_json::{Map, Value, json};
use streamagg_crds::manifest::{from_value, parse_manifest};
use streamagg_crds::resolved::Resolved;
use streamagg_crds::rules::Place;
use streamagg_crds::v1alpha1::{API_VERSION, KIND};
use streamagg_crds::validate::{self, SpecError};
use streamagg_crds::value;

use super::error::{BuildError, BuildErrors, Misuse, Step};

/// Stands where a manifest names brokers, topics and objects; nothing is ever looked up by it.
const EMBEDDED: &str = "embedded";

/// A duration as the manifest writes it. What is no whole number of milliseconds becomes a text that its rules refuse.
pub(super) fn duration(duration: Duration) -> Value {
    let nanos = duration.as_nanos();
    match u64::try_from(nanos / 1_000_000) {
        Ok(ms) if nanos.is_multiple_of(1_000_000) => json!(value::Duration::from_ms(ms).to_string()),
        Ok(_) | Err(_) => json!(format!("{nanos}ns")),
    }
}

/// A field by JSON pointer, or a derived value by name.
pub(super) fn operand(source: &str) -> Map<String, Value> {
    let member = if source.starts_with('/') { "field" } else { "value" };
    Map::from_iter([(member.to_owned(), json!(source))])
}

/// What a step has to stand before or behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// What an event is.
    Event,
    /// Its group.
    Key,
    /// Its windows.
    Window,
    /// What is computed of it.
    Aggregate,
    /// Where that goes.
    Sink,
}

/// Declared steps, and what is wrong with them so far.
#[derive(Clone, Debug)]
pub(super) struct Declared {
    spec: Value,
    furthest: Option<(Phase, Step)>,
    problems: Vec<BuildError>,
}

impl Declared {
    pub(super) fn new() -> Self {
        Self {
            spec: json!({}),
            furthest: None,
            problems: Vec::new(),
        }
    }

    pub(super) fn of_manifest(text: &str) -> Result<Self, BuildErrors> {
        let manifest = parse_manifest(text).map_err(|errors| {
            let error = |error: SpecError| refused(Step::Manifest, error.path, error.message);
            BuildErrors(errors.into_iter().map(error).collect())
        })?;
        let spec = serde_json::to_value(&manifest.spec)
            .map_err(|error| BuildErrors(vec![refused(Step::Manifest, String::new(), error.to_string())]))?;
        Ok(Self { spec, ..Self::new() })
    }

    pub(super) fn problem(&mut self, step: Step, misuse: Misuse) {
        self.problems.push(BuildError { step, misuse });
    }

    /// Notes that a step stands here.
    pub(super) fn enter(&mut self, phase: Phase, step: &Step) {
        match &self.furthest {
            Some((furthest, behind)) if *furthest > phase => {
                let behind = behind.clone();
                self.problem(step.clone(), Misuse::Misplaced { behind });
            }
            Some((furthest, _)) if *furthest == phase => {}
            Some(_) | None => self.furthest = Some((phase, step.clone())),
        }
    }

    /// Sets what can stand there once.
    pub(super) fn set(&mut self, path: &[&str], value: Value, step: Step) {
        let mut node = &mut self.spec;
        for name in path {
            node = &mut node[*name];
        }
        if node.is_null() {
            *node = value;
        } else {
            self.problem(step, Misuse::Repeated);
        }
    }

    /// Adds to a list of named things.
    pub(super) fn push(&mut self, list: &str, name: &str, mut body: Value) {
        body["name"] = json!(name);
        match &mut self.spec[list] {
            Value::Array(elements) => elements.push(body),
            other => *other = json!([body]),
        }
    }

    /// The job that the steps declare.
    pub(super) fn resolve(mut self) -> Result<Resolved, BuildErrors> {
        for (pointer, step) in [
            ("/event/timestamp", Step::EventTime),
            ("/event/watermark", Step::Watermark),
            ("/windows", Step::Window(None)),
            ("/aggregates", Step::Aggregate(None)),
        ] {
            if self.spec.pointer(pointer).is_none() {
                self.problem(step, Misuse::Missing);
            }
        }
        if !self.problems.is_empty() {
            return Err(BuildErrors(self.problems));
        }
        let source = &mut self.spec["source"];
        if source.get("kafka").is_none() {
            source["kafka"] = json!({"bootstrapServers": [format!("{EMBEDDED}:1")], "topics": [EMBEDDED]});
            source["partitioning"] = json!({"byKey": {}});
        }
        if self.spec.get("sink").is_none() {
            self.spec["sink"] = json!({"kafka": {"topic": format!("{EMBEDDED}-results")}});
        }
        let spec = self.spec.clone();
        let manifest = json!({
            "apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": EMBEDDED}, "spec": self.spec,
        });
        from_value(manifest, Place::Laptop)
            .and_then(|manifest| validate::resolve(&manifest.spec, EMBEDDED, EMBEDDED))
            .map_err(|errors| BuildErrors(errors.into_iter().map(|error| at_step(&spec, error)).collect()))
    }
}

fn refused(step: Step, within: String, message: String) -> BuildError {
    BuildError {
        step,
        misuse: Misuse::Refused { within, message },
    }
}

/// A step of a name.
type NamedStep = fn(String) -> Step;

/// The step that a rule of the manifest found wrong.
fn at_step(spec: &Value, error: SpecError) -> BuildError {
    let path = error.path.strip_prefix("spec.").unwrap_or(&error.path);
    let singles = [
        ("event.timestamp", Step::EventTime),
        ("event.watermark", Step::Watermark),
        ("event.maxFutureSkew", Step::MaxFutureSkew),
        ("explode", Step::Explode),
        ("where", Step::Condition),
        ("maxBadRatio", Step::MaxBadRatio),
        ("source.format", Step::StrictJson),
    ];
    for (prefix, step) in singles {
        if let Some(within) = path.strip_prefix(prefix) {
            return refused(step, within.trim_start_matches('.').to_owned(), error.message);
        }
    }
    let lists: [(&str, NamedStep); 4] = [
        ("let", Step::Derive),
        ("groupBy", Step::KeyBy),
        ("windows", |name| Step::Window(Some(name))),
        ("aggregates", |name| Step::Aggregate(Some(name))),
    ];
    for (list, step) in lists {
        let element = path.strip_prefix(list).and_then(|rest| rest.strip_prefix('['));
        if let Some((index, within)) = element.and_then(|rest| rest.split_once(']')) {
            let name = spec.pointer(&format!("/{list}/{index}/name")).and_then(Value::as_str);
            let step = step(name.unwrap_or_default().to_owned());
            return refused(step, within.trim_start_matches('.').to_owned(), error.message);
        }
        if path == list {
            return refused(step(String::new()), String::new(), error.message);
        }
    }
    refused(Step::Manifest, error.path, error.message)
}
