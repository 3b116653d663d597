//! The real LLM inference trace of `config/data` as events for `config/samples/azure-trace.yaml`.
//! Must not know a broker.

use std::path::{Path, PathBuf};

use crate::traffic::{Message, partition_of};

/// Lines of the trace that are read, at most, of each service.
const LINES_MAX: usize = 10_000;

/// Events of both services in order of time, spread by service, and one closing event far behind on every partition.
///
/// # Errors
/// When the trace cannot be read.
pub fn messages(partitions: i32) -> Result<Vec<Message>, String> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/data/azure-llm-inference-2023");
    let mut events = Vec::new();
    for path in csv_files(&directory)? {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().to_lowercase();
        let service = if name.contains("code") { "code" } else { "conv" };
        let text = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        for line in text.lines().skip(1).take(LINES_MAX) {
            let mut parts = line.trim().split(',');
            let (Some(time), Some(context), Some(generated)) = (parts.next(), parts.next(), parts.next()) else {
                return Err(format!("{}: {line:?} has no three columns", path.display()));
            };
            events.push((
                format!("{}Z", time.trim().replace(' ', "T")),
                service,
                context.to_owned(),
                generated.to_owned(),
            ));
        }
    }
    events.sort();
    let value = |time: &str, service: &str, context: &str, generated: &str| {
        format!(r#"{{"ts":"{time}","service":"{service}","context_tokens":{context},"generated_tokens":{generated}}}"#)
    };
    let mut messages: Vec<Message> = (events.iter())
        .map(|(time, service, context, generated)| Message {
            partition: partition_of(service, partitions),
            key: (*service).to_owned(),
            value: value(time, service, context, generated).into_bytes(),
        })
        .collect();
    messages.extend((0..partitions).map(|partition| Message {
        partition,
        key: "closing".to_owned(),
        value: value("2030-01-01T00:00:00Z", &format!("closing-{partition}"), "0", "0").into_bytes(),
    }));
    Ok(messages)
}

fn csv_files(directory: &Path) -> Result<Vec<PathBuf>, String> {
    let entries = std::fs::read_dir(directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    let mut files: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|end| end == "csv"))
        .collect();
    files.sort();
    if files.is_empty() {
        Err(format!("no trace in {}", directory.display()))
    } else {
        Ok(files)
    }
}
