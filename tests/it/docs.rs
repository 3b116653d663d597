//! The examples of every page of `docs/` and of the README: fragments are accepted, events give the results shown,
//! links lead somewhere, tables of constants are true. What a page shows of the command line is run by the
//! processor's own tests.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use streamagg_crds::manifest::{from_value, read_yaml};
use streamagg_crds::rules::Place;
use streamagg_crds::structure;
use streamagg_processor::core::key::murmur2;
use streamagg_processor::embed::{Record, Stream};

/// A fenced block of a page.
struct Block {
    page: String,
    line: usize,
    language: String,
    text: String,
}

fn root() -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).to_owned()
}

/// README, ARCHITECTURE and the pages of `docs/`, by name.
fn pages() -> Vec<(String, String)> {
    let mut names: Vec<String> = std::fs::read_dir(root().join("docs"))
        .unwrap()
        .map(|entry| format!("docs/{}", entry.unwrap().file_name().to_str().unwrap()))
        .filter(|name| name.ends_with(".md"))
        .collect();
    names.extend(["README.md".to_owned(), "ARCHITECTURE.md".to_owned()]);
    names.sort();
    let read = |name: String| (name.clone(), std::fs::read_to_string(root().join(name)).unwrap());
    names.into_iter().map(read).collect()
}

fn blocks(page: &str, text: &str) -> Vec<Block> {
    let mut found = Vec::new();
    let mut open: Option<Block> = None;
    for (index, line) in text.lines().enumerate() {
        match (line.trim_start().strip_prefix("```"), &mut open) {
            (Some(language), None) => {
                open = Some(Block {
                    page: page.to_owned(),
                    line: index + 1,
                    language: language.trim().to_owned(),
                    text: String::new(),
                });
            }
            (Some(_), Some(_)) => found.extend(open.take()),
            (None, Some(block)) => block.text.push_str(&format!("{line}\n")),
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "{page}: a block is not closed");
    found
}

/// What a page leaves out of its fragments.
fn base() -> Value {
    json!({
        "apiVersion": "streamagg.io/v1alpha1",
        "kind": "StreamAggregation",
        "metadata": {"name": "example"},
        "spec": {
            "source": {"kafka": {"bootstrapServers": ["kafka:9092"], "topics": ["events"]}, "partitioning": {"byKey": {}}},
            "event": {"timestamp": {"field": "/ts"}, "watermark": {"boundedOutOfOrderness": {"bound": "5s"}}},
            "windows": [{"name": "minute", "tumbling": {"size": "1m"}}],
            "aggregates": [{"name": "requests", "count": {}}],
            "sink": {"kafka": {"topic": "results"}},
        }
    })
}

/// Lays a fragment over the base, members of objects each for itself.
fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (name, value) in from {
                merge(into.entry(name.clone()).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from.clone(),
    }
}

/// The manifest that a YAML block shows, whole or in part; `None` for other objects of a cluster.
fn manifest_of(block: &Block) -> Option<Value> {
    let place = format!("{}:{}", block.page, block.line);
    let value = read_yaml(&block.text).unwrap_or_else(|errors| panic!("{place}: {errors:?}"));
    if value.get("apiVersion").is_some() {
        return (value["kind"] == "StreamAggregation").then_some(value);
    }
    let fields = structure::spec_schema()["properties"].as_object().unwrap();
    let fragment = if value.get("spec").is_some() {
        value
    } else {
        json!({"spec": value})
    };
    for name in fragment["spec"].as_object().unwrap().keys() {
        assert!(
            fields.contains_key(name),
            "{place}: {name} is no field of spec; name another language for the block"
        );
    }
    let mut manifest = base();
    for union in ["timestamp", "watermark"] {
        if fragment.pointer(&format!("/spec/event/{union}")).is_some() {
            manifest["spec"]["event"][union] = json!({});
        }
    }
    merge(&mut manifest, &fragment);
    Some(manifest)
}

/// Result values of a manifest over lines, all windows fired at the end.
fn results(manifest: &Value, lines: &str) -> Vec<String> {
    let seen = RefCell::new(Vec::new());
    let stream = Stream::from_manifest(&manifest.to_string()).unwrap_or_else(|errors| panic!("{errors}"));
    let mut run = stream
        .sink(|result| {
            seen.borrow_mut().push(String::from_utf8(result.value.to_vec())?);
            Ok(())
        })
        .build()
        .unwrap_or_else(|errors| panic!("{errors}"))
        .start(0);
    let records: Vec<Record<'_>> = (0..)
        .zip(lines.lines())
        .map(|(at, line)| Record::new(at, line.as_bytes()))
        .collect();
    run.push(&records).unwrap();
    run.finish().unwrap();
    drop(run);
    seen.into_inner()
}

#[test]
fn every_fragment_of_a_manifest_is_accepted() {
    let mut fragments = 0;
    for (page, text) in pages() {
        for block in blocks(&page, &text).iter().filter(|block| block.language == "yaml") {
            let Some(manifest) = manifest_of(block) else {
                continue;
            };
            if let Err(errors) = from_value(manifest, Place::Laptop) {
                panic!("{page}:{}: {errors:#?}", block.line);
            }
            fragments += 1;
        }
    }
    assert!(fragments >= 6, "only {fragments} fragments were found");
}

#[test]
fn events_of_a_page_give_the_results_beside_them() {
    let (mut examples, mut wrong) = (Vec::new(), Vec::new());
    for (page, text) in pages() {
        let (mut manifest, mut events) = (None, None);
        for block in blocks(&page, &text) {
            match block.language.as_str() {
                "yaml" => manifest = manifest_of(&block),
                "jsonl events" => events = Some(block.text),
                "jsonl results" => {
                    let place = format!("{page}:{}", block.line);
                    let manifest = manifest
                        .as_ref()
                        .unwrap_or_else(|| panic!("{place}: results of no manifest"));
                    let events = events
                        .as_ref()
                        .unwrap_or_else(|| panic!("{place}: results of no events"));
                    let found = results(manifest, events);
                    let expected: Vec<&str> = block.text.lines().collect();
                    if found != expected {
                        wrong.push(format!(
                            "{place} should be
{}
",
                            found.join(
                                "
"
                            )
                        ));
                    }
                    examples.push(page.clone());
                }
                _ => {}
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for page in ["aggregates", "expressions", "keys", "time", "triggers", "windows"] {
        assert!(
            examples.contains(&format!("docs/{page}.md")),
            "docs/{page}.md has no example with results"
        );
    }
}

#[test]
fn json_of_every_page_is_json() {
    for (page, text) in pages() {
        for block in blocks(&page, &text).iter().filter(|block| block.language == "json") {
            for line in block.text.lines() {
                let read = serde_json::from_str::<Value>(line);
                assert!(read.is_ok(), "{page}:{}: {line}", block.line);
            }
        }
    }
}

#[test]
fn links_between_pages_lead_somewhere() {
    let mut links = 0;
    for (page, text) in pages() {
        let prose: String = text.split("```").step_by(2).collect();
        for link in prose.split("](").skip(1).filter_map(|rest| rest.split_once(')')) {
            let target = link.0.split('#').next().unwrap();
            if target.is_empty() || target.contains("://") {
                continue;
            }
            let directory = root().join(&page).parent().unwrap().to_owned();
            assert!(directory.join(target).exists(), "{page}: {target} is not there");
            links += 1;
        }
    }
    assert!(links > 10, "only {links} links were found");
}

#[test]
fn every_page_is_reached_from_the_readme() {
    let pages = pages();
    let readme = &pages.iter().find(|(name, _)| name == "README.md").unwrap().1;
    for (name, _) in pages.iter().filter(|(name, _)| name.starts_with("docs/")) {
        assert!(readme.contains(name.as_str()), "README.md does not name {name}");
    }
}

#[test]
fn the_hashes_of_keys_are_those_of_the_page() {
    let page = std::fs::read_to_string(root().join("docs/keys.md")).unwrap();
    let rows: Vec<Vec<&str>> = page
        .lines()
        .map(|line| {
            line.split('|')
                .map(|cell| cell.trim().trim_matches('`'))
                .collect::<Vec<_>>()
        })
        .filter(|cells| cells.len() == 5 && cells[2].len() == 8 && u32::from_str_radix(cells[2], 16).is_ok())
        .collect();
    assert_eq!(rows.len(), 7);
    for cells in rows {
        let hash = murmur2(cells[1].as_bytes());
        assert_eq!(format!("{hash:08x}"), cells[2], "{}", cells[1]);
        assert_eq!(((hash & 0x7fff_ffff) % 32).to_string(), cells[3], "{}", cells[1]);
    }
}
