//! `explain` and `schema`: what a manifest means, before it runs. Must not run anything, nor judge the manifest.

mod pod;

use std::fmt::Write as _;

use serde_json::{Value, json};
use streamagg_crds::job_file::pipeline_revision;
use streamagg_crds::resolved::{Resolved, Start, WindowKind};
use streamagg_crds::structure::spec_schema;
use streamagg_crds::v1alpha1::{API_VERSION, KIND};
use streamagg_crds::value::Duration;

use super::manifest::Loaded;

/// Keys for which memory is estimated.
const KEYS: u64 = 100_000;
/// What a row costs beside its values: its place in the index of its pane, and the key's.
const ROW_OVERHEAD_BYTES: u64 = 24;

/// The manifest in words: topics, windows and their panes, state of a key, and where each value came from.
pub(super) fn explain(loaded: &Loaded) -> String {
    let mut out = String::new();
    // Writing to a text cannot fail.
    let _ = write_topics(&mut out, loaded);
    let _ = write_events(&mut out, loaded);
    let _ = write_windows(&mut out, loaded);
    let _ = pod::write_pod(&mut out, loaded);
    let _ = write_values(&mut out, loaded);
    out
}

fn write_topics(out: &mut String, loaded: &Loaded) -> std::fmt::Result {
    let job: &Resolved = &loaded.job;
    let start = match job.source.start {
        Start::Earliest => "its oldest record".to_owned(),
        Start::Latest => "behind its newest record".to_owned(),
        Start::TimestampMs(ms) => format!("the first record not before {ms} ms"),
    };
    let side = |topic: &Option<String>| topic.clone().unwrap_or_else(|| "dropped and counted".to_owned());
    writeln!(out, "job {}, revision {}", job.job_id, pipeline_revision(&loaded.spec))?;
    writeln!(out, "\ntopics")?;
    writeln!(
        out,
        "  events        {} at {}, from {start}",
        job.source.topics.join(", "),
        job.source.bootstrap_servers.join(",")
    )?;
    if let Some(most) = job.source.max_records_per_second {
        writeln!(
            out,
            "                at most {most} records a second are read by a task"
        )?;
    }
    if let Some(shedding) = job.source.load_shedding {
        let (behind_ms, least) = (shedding.when_behind_ms, 1u32 << shedding.halvings_max);
        writeln!(
            out,
            "                a task that is more than {behind_ms} ms behind passes over records: it keeps 1/{least} of them \
             at least\n                and says so in the results (keptShare); run and replay keep all"
        )?;
    }
    writeln!(
        out,
        "  results       {} at {}",
        job.sink.topic,
        job.sink.bootstrap_servers.join(",")
    )?;
    writeln!(out, "  late events   {}", side(&job.late_topic))?;
    writeln!(out, "  dead letters  {}", side(&job.dead_letter_topic))?;
    writeln!(out, "  positions     {}-control", job.job_id)?;
    if let Some(tasks) = job.source.shuffle_partitions {
        writeln!(
            out,
            "  two stages    a task for each partition of {}, and {tasks} that read {}-shuffle",
            job.source.topics.join(" and of "),
            job.job_id
        )?;
    }
    if let Some(drift_ms) = job.source.max_drift_ms {
        let slowest = "waits that is further ahead of the slowest than";
        writeln!(out, "                a partition {slowest} {drift_ms} ms")?;
    }
    Ok(())
}

/// What becomes of an event before it reaches a window.
fn write_events(out: &mut String, loaded: &Loaded) -> std::fmt::Result {
    let spec = &loaded.value["spec"];
    writeln!(out, "\nevents")?;
    let event = &spec["event"];
    match event["timestamp"]["field"].as_str() {
        Some(field) => writeln!(out, "  time          {field}, {}", text(&event["timestamp"]["unit"]))?,
        None => writeln!(out, "  time          the record's own timestamp")?,
    }
    writeln!(out, "  watermark     {}", members(&event["watermark"]))?;
    for derived in elements(&spec["let"]) {
        writeln!(
            out,
            "  let           {} = {}",
            text(&derived["name"]),
            text(&derived["value"])
        )?;
    }
    if let Some(array) = spec["explode"]["field"].as_str() {
        writeln!(out, "  explode       {array}: one event for each of its elements")?;
    }
    if let Some(condition) = spec["where"].as_str() {
        writeln!(out, "  where         {condition}")?;
    }
    let parts: Vec<String> = elements(&spec["groupBy"]).map(key_part).collect();
    let key = if parts.is_empty() {
        "none: one group for all events".to_owned()
    } else {
        parts.join(", ")
    };
    writeln!(out, "  key           {key}")?;
    let ratio = loaded.job.max_bad_ratio;
    if ratio < 1.0 {
        writeln!(out, "  bad records   more than {ratio} of the last 10,000 end the run")?;
    }
    Ok(())
}

fn key_part(part: &Value) -> String {
    let around = |member: &str, word: &str| Some(format!("{word} {}", part[member].as_str()?));
    let source = ["field", "value"].iter().find_map(|source| part[source].as_str());
    let source = source
        .map(str::to_owned)
        .or_else(|| around("header", "header"))
        .or_else(|| around("metadata", "the record's"));
    let missing = match &part["whenMissing"] {
        rule if rule.get("null").is_some() => "missing: null".to_owned(),
        rule if rule.get("default").is_some() => format!("missing: {}", rule["default"]),
        _ => "missing: dead letter".to_owned(),
    };
    format!("{} = {} ({missing})", text(&part["name"]), source.unwrap_or_default())
}

/// A window in words: its kind, how long it takes events, when it fires, what a firing holds.
fn write_window(out: &mut String, window: &Value) -> std::fmt::Result {
    const AROUND: [&str; 4] = ["name", "allowedLateness", "trigger", "panes"];
    let kinds = window.as_object().into_iter().flatten();
    let kind: Vec<String> = kinds
        .filter(|(member, _)| !AROUND.contains(&member.as_str()))
        .map(|(kind, sizes)| format!("{kind} {}", members(sizes)).trim_end().to_owned())
        .collect();
    let lateness = match window["allowedLateness"].as_str() {
        Some("0s") | None => "no late events".to_owned(),
        Some(lateness) => format!("late events for {lateness} after its end"),
    };
    let trigger = &window["trigger"];
    if let Some(size) = window["count"]["size"].as_i64() {
        let slide = window["count"]["slide"].as_i64().unwrap_or(size);
        let name = text(&window["name"]);
        return writeln!(
            out,
            "  {name}: the last {size} events of a key, after every {slide} of them"
        );
    }
    let repeat = |when: &str, repeat: &Value| {
        let every = match (repeat["everyEvents"].as_i64(), repeat["every"].as_str()) {
            (Some(1), _) => "after every event".to_owned(),
            (Some(events), _) => format!("after every {events} events"),
            (None, Some(time)) => format!("every {time} of processing time"),
            (None, None) => return None,
        };
        Some(format!("{when} {every}"))
    };
    let fires = [
        repeat("early", &trigger["early"]),
        (trigger["onTime"] != false).then(|| "on time".to_owned()),
        repeat("late", &trigger["late"]),
        (trigger["final"] == true).then(|| "finally".to_owned()),
    ];
    let fires: Vec<String> = fires.into_iter().flatten().collect();
    writeln!(
        out,
        "  {}: {}; {lateness}; fires {}; {} panes",
        text(&window["name"]),
        kind.join(" "),
        fires.join(", "),
        text(&window["panes"]).to_lowercase(),
    )
}

/// Aggregates whose rows hold more than a fixed number of bytes.
fn write_growing(out: &mut String, loaded: &Loaded) -> std::fmt::Result {
    const GROWING: [&str; 7] = ["percentile", "distinct", "topK", "first", "last", "argMin", "argMax"];
    let all = elements(&loaded.value["spec"]["aggregates"])
        .flat_map(|aggregate| std::iter::once(aggregate).chain(elements(&aggregate["composite"])));
    let growing: Vec<String> = all
        .filter_map(|aggregate| {
            let function = GROWING.iter().find(|function| aggregate.get(**function).is_some())?;
            Some(format!("{} ({function})", text(&aggregate["name"])))
        })
        .collect();
    if growing.is_empty() {
        return Ok(());
    }
    writeln!(
        out,
        "  beside these bytes, by the values seen: {}; docs/aggregates.md says how much",
        growing.join(", ")
    )
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn elements(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

/// The members of an object, without an offset of nothing.
fn members(object: &Value) -> String {
    let all = object.as_object().into_iter().flatten();
    let shown: Vec<String> = all
        .filter(|(name, value)| !(*name == "offset" && *value == "0s"))
        .map(|(name, value)| match value {
            Value::Object(_) => format!("{name} {}", members(value)).trim_end().to_owned(),
            other => format!("{name} {}", compact(other)),
        })
        .collect();
    shown.join(", ")
}

fn write_windows(out: &mut String, loaded: &Loaded) -> std::fmt::Result {
    writeln!(out, "\nwindows")?;
    for window in elements(&loaded.value["spec"]["windows"]) {
        write_window(out, window)?;
    }
    writeln!(out, "\nstate of a key that has events all the time")?;
    let row_bytes = loaded.plan.row_bytes() as u64 + ROW_OVERHEAD_BYTES;
    let (mut bytes, mut in_panes) = (0, Vec::new());
    for set in loaded.plan.pane_sets() {
        in_panes.extend(set.windows.iter().cloned());
        let kept_ms = set
            .windows
            .iter()
            .map(|name| kept_ms(&loaded.value, name))
            .max()
            .unwrap_or(0);
        let width_ms = u64::try_from(set.width_ms).unwrap_or(1).max(1);
        let behind_ms = u64::try_from(loaded.job.watermark.bound_ms()).unwrap_or(0);
        let rows = (kept_ms + behind_ms).div_ceil(width_ms) + 1;
        bytes += rows * row_bytes;
        writeln!(
            out,
            "  {}: panes of {}, {rows} rows of {row_bytes} bytes",
            set.windows.join(" and "),
            Duration::from_ms(width_ms)
        )?;
    }
    for window in &loaded.job.windows {
        if let WindowKind::Count { size, .. } = window.kind {
            let name = &window.name;
            writeln!(
                out,
                "  {name}: {} rows of {row_bytes} bytes, for as long as the job lives",
                size + 1
            )?;
        } else if !in_panes.contains(&window.name) {
            writeln!(
                out,
                "  {}: a row of {row_bytes} bytes for each of its instances that is open",
                window.name
            )?;
        }
    }
    if bytes > 0 {
        writeln!(
            out,
            "  about {bytes} bytes in panes, and its name; {KEYS} such keys: {} MiB",
            (bytes * KEYS) >> 20
        )?;
    }
    write_growing(out, loaded)
}

/// How long rows of a window are kept: its size and its lateness.
fn kept_ms(manifest: &Value, name: &str) -> u64 {
    let windows = manifest["spec"]["windows"].as_array().into_iter().flatten();
    let window = windows.into_iter().find(|window| window["name"] == name);
    let length = |value: &Value| {
        value
            .as_str()
            .and_then(|text| text.parse::<Duration>().ok())
            .map_or(0, Duration::ms)
    };
    window.map_or(0, |window| {
        let kind = window
            .as_object()
            .into_iter()
            .flatten()
            .find_map(|(_, kind)| kind.get("size"));
        kind.map_or(0, length) + length(&window["allowedLateness"])
    })
}

fn write_values(out: &mut String, loaded: &Loaded) -> std::fmt::Result {
    writeln!(out, "\nvalues, and where each came from")?;
    let mut leaves = Vec::new();
    collect(&loaded.value["spec"], "spec", "/spec", &mut leaves);
    for (path, pointer, value) in leaves {
        writeln!(out, "  {path} = {value} ({})", origin(loaded, &path, &pointer))?;
    }
    Ok(())
}

/// The last override that set the value or something around it; else the manifest; else a default.
fn origin(loaded: &Loaded, path: &str, pointer: &str) -> String {
    let covers = |set: &str| {
        path.strip_prefix(set)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    };
    let set = loaded.overridden.iter().rev().find(|(set, _)| covers(set));
    match (set, loaded.written.pointer(pointer)) {
        (Some((_, origin)), _) => origin.to_string(),
        (None, Some(_)) => "manifest".to_owned(),
        (None, None) => "default".to_owned(),
    }
}

/// Path, JSON pointer and value of everything that is no object or list with something in it.
fn collect(value: &Value, path: &str, pointer: &str, leaves: &mut Vec<(String, String, String)>) {
    match value {
        Value::Object(members) if !members.is_empty() => {
            for (name, member) in members {
                let escaped = name.replace('~', "~0").replace('/', "~1");
                collect(
                    member,
                    &format!("{path}.{name}"),
                    &format!("{pointer}/{escaped}"),
                    leaves,
                );
            }
        }
        Value::Array(elements) if !elements.is_empty() => {
            for (index, element) in elements.iter().enumerate() {
                collect(
                    element,
                    &format!("{path}[{index}]"),
                    &format!("{pointer}/{index}"),
                    leaves,
                );
            }
        }
        leaf => leaves.push((path.to_owned(), pointer.to_owned(), leaf.to_string())),
    }
}

fn compact(value: &Value) -> String {
    value.to_string().replace(['"', '{', '}'], "").replace([',', ':'], " ")
}

/// The JSON schema of a manifest, for editors.
pub(super) fn schema() -> String {
    let document = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": KIND,
        "description": "A manifest of streamagg; `streamagg-processor validate` also checks what no schema can say.",
        "type": "object",
        "required": ["apiVersion", "kind", "metadata", "spec"],
        "properties": {
            "apiVersion": {"const": API_VERSION},
            "kind": {"const": KIND},
            "metadata": {
                "type": "object",
                "required": ["name"],
                "properties": {"name": {"type": "string"}, "namespace": {"type": "string"}},
            },
            "spec": spec_schema(),
        },
    });
    format!("{document:#}\n")
}
