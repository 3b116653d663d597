//! `explain` and `schema`: what a manifest means, before it runs. Must not run anything, nor judge the manifest.

use std::fmt::Write as _;

use serde_json::{Value, json};
use streamagg_crds::job_file::pipeline_revision;
use streamagg_crds::resolved::{Resolved, Start};
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
    let _ = write_windows(&mut out, loaded);
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
        job.source.topic,
        job.source.bootstrap_servers.join(",")
    )?;
    writeln!(
        out,
        "  results       {} at {}",
        job.sink.topic,
        job.sink.bootstrap_servers.join(",")
    )?;
    writeln!(out, "  late events   {}", side(&job.late_topic))?;
    writeln!(out, "  dead letters  {}", side(&job.dead_letter_topic))?;
    writeln!(out, "  positions     {}-control", job.job_id)
}

fn write_windows(out: &mut String, loaded: &Loaded) -> std::fmt::Result {
    writeln!(out, "\nwindows")?;
    for window in loaded.value["spec"]["windows"].as_array().into_iter().flatten() {
        let name = window["name"].as_str().unwrap_or_default();
        let rest = window
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(member, _)| *member != "name");
        let rest: Vec<String> = rest
            .map(|(member, value)| format!("{member} {}", compact(value)).trim_end().to_owned())
            .collect();
        writeln!(out, "  {name}: {}", rest.join(", "))?;
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
        if !in_panes.contains(&window.name) {
            writeln!(
                out,
                "  {}: a row of {row_bytes} bytes for each of its instances that is open",
                window.name
            )?;
        }
    }
    writeln!(
        out,
        "  about {bytes} bytes in panes, and its name; {KEYS} such keys: {} MiB",
        (bytes * KEYS) >> 20
    )
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
    collect(&loaded.value["spec"], "spec", &mut leaves);
    for (path, value) in leaves {
        writeln!(out, "  {path} = {value} ({})", origin(loaded, &path))?;
    }
    Ok(())
}

/// The last override that set the value or something around it; else the manifest; else a default.
fn origin(loaded: &Loaded, path: &str) -> String {
    let covers = |set: &str| {
        path.strip_prefix(set)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    };
    let set = loaded.overridden.iter().rev().find(|(set, _)| covers(set));
    if let Some((_, origin)) = set {
        return origin.to_string();
    }
    let pointer = format!("/{}", path.replace('[', "/").replace(']', "").replace('.', "/"));
    match loaded.written.pointer(&pointer) {
        Some(_) => "manifest".to_owned(),
        None => "default".to_owned(),
    }
}

fn collect(value: &Value, path: &str, leaves: &mut Vec<(String, String)>) {
    match value {
        Value::Object(members) if !members.is_empty() => {
            for (name, member) in members {
                collect(member, &format!("{path}.{name}"), leaves);
            }
        }
        Value::Array(elements) if !elements.is_empty() => {
            for (index, element) in elements.iter().enumerate() {
                collect(element, &format!("{path}[{index}]"), leaves);
            }
        }
        leaf => leaves.push((path.to_owned(), leaf.to_string())),
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
        "type": "object",
        "required": ["apiVersion", "kind", "metadata", "spec"],
        "properties": {
            "apiVersion": {"const": API_VERSION},
            "kind": {"const": KIND},
            "metadata": {"type": "object", "required": ["name"]},
            "spec": spec_schema(),
        },
    });
    format!("{document:#}\n")
}
