//! What changed between two job files, in words for an event. Pure. Must not decide what a change leads to.

use serde_json::{Map, Value};

use crate::controller::desired::Desired;
use crate::controller::observed::{Observed, StatefulSetFacts};
use crate::names;

/// Longest text of one value.
const VALUE_LENGTH_MAX: usize = 60;
/// Longest text of all; an event takes 1,024 bytes.
const LENGTH_MAX: usize = 600;
/// What stands for a field that is not written: the file leaves defaults out.
const DEFAULT: &str = "default";

/// What the template in force and the desired one differ in, as far as a user wrote it: fields of the spec, the image.
/// Secrets are in neither.
pub fn describe(set: &StatefulSetFacts, desired: &Desired, observed: &Observed) -> String {
    changes(set, desired, observed).unwrap_or_else(|| "podTemplate, or what the spec refers to".to_owned())
}

/// The same; absent where nothing was found.
pub fn changes(set: &StatefulSetFacts, desired: &Desired, observed: &Observed) -> Option<String> {
    let mut found = Vec::new();
    if set.image != desired.image {
        found.push(format!("image: {} → {}", set.image, desired.image));
    }
    if let (Some(old), Some(new)) = (live(set, observed), job(desired)) {
        compare("", &old, &new, &mut found);
    }
    (!found.is_empty()).then(|| short(&found))
}

fn short(found: &[String]) -> String {
    let mut text = String::new();
    for (index, one) in found.iter().enumerate() {
        let separator = if index == 0 { "" } else { "; " };
        if text.len() + separator.len() + one.len() > LENGTH_MAX && index > 0 {
            let rest = found.len() - index;
            return format!("{text}; and {rest} more");
        }
        text = format!("{text}{separator}{one}");
    }
    text
}

/// The spec in the job file of the template in force.
fn live(set: &StatefulSetFacts, observed: &Observed) -> Option<Value> {
    let name = set.job_config_map.as_deref()?;
    let mut children = observed.children.iter();
    let map = children.find(|child| child["kind"] == "ConfigMap" && child["metadata"]["name"] == name)?;
    spec(map["data"].get(names::JOB_KEY)?.as_str()?)
}

fn job(desired: &Desired) -> Option<Value> {
    spec(desired.objects.job.data.as_ref()?.get(names::JOB_KEY)?)
}

fn spec(text: &str) -> Option<Value> {
    let mut file: Value = serde_json::from_str(text).ok()?;
    Some(file.get_mut("spec")?.take())
}

fn compare(path: &str, old: &Value, new: &Value, found: &mut Vec<String>) {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => members(path, old, new, found),
        (Value::Array(old), Value::Array(new)) if named(old) && named(new) => elements(path, old, new, found),
        (old, new) if old != new => found.push(format!("{path}: {} → {}", plain(old), plain(new))),
        _ => {}
    }
}

fn members(path: &str, old: &Map<String, Value>, new: &Map<String, Value>, found: &mut Vec<String>) {
    let mut names: Vec<&String> = old.keys().chain(new.keys()).collect();
    names.sort();
    names.dedup();
    for name in names {
        let at = if path.is_empty() {
            name.clone()
        } else {
            format!("{path}.{name}")
        };
        match (old.get(name), new.get(name)) {
            (Some(old), Some(new)) => compare(&at, old, new, found),
            (old, new) => {
                let text = |value: Option<&Value>| value.map_or_else(|| DEFAULT.to_owned(), plain);
                found.push(format!("{at}: {} → {}", text(old), text(new)));
            }
        }
    }
}

/// Lists of named elements are compared by name; an order of its own is a change.
fn elements(path: &str, old: &[Value], new: &[Value], found: &mut Vec<String>) {
    let find = |list: &'_ [Value], name: &str| list.iter().find(|element| element["name"] == name).cloned();
    let before = found.len();
    for element in old {
        let name = element["name"].as_str().unwrap_or_default();
        match find(new, name) {
            Some(new) => compare(&format!("{path}[{name}]"), element, &new, found),
            None => found.push(format!("{path}[{name}] removed")),
        }
    }
    let added = new.iter().filter_map(|element| element["name"].as_str());
    let added = added.filter(|name| find(old, name).is_none());
    found.extend(added.map(|name| format!("{path}[{name}] added")));
    if found.len() == before && old != new {
        found.push(format!("{path}: another order"));
    }
}

fn named(list: &[Value]) -> bool {
    list.iter().all(|element| element["name"].is_string())
}

fn plain(value: &Value) -> String {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    if text.chars().count() <= VALUE_LENGTH_MAX {
        return text;
    }
    let cut: String = text.chars().take(VALUE_LENGTH_MAX - 1).collect();
    format!("{cut}…")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn between(old: &Value, new: &Value) -> Vec<String> {
        let mut found = Vec::new();
        compare("", old, new, &mut found);
        found
    }

    #[test]
    fn each_change_is_named_by_its_path_with_both_values() {
        let old = json!({
            "windows": [{"name": "minute", "tumbling": {"size": "1m"}}, {"name": "hour", "tumbling": {"size": "1h"}}],
            "aggregates": [{"name": "a", "count": {}}], "maxBadRatio": 0.5, "same": {"x": 1},
        });
        let new = json!({
            "windows": [{"name": "minute", "tumbling": {"size": "5m"}}],
            "aggregates": [{"name": "a", "count": {}}, {"name": "b", "sum": {"field": "/x"}}], "where": "a > 1", "same": {"x": 1},
        });
        let expected = [
            "aggregates[b] added",
            "maxBadRatio: 0.5 → default",
            "where: default → a > 1",
            "windows[minute].tumbling.size: 1m → 5m",
            "windows[hour] removed",
        ];
        assert_eq!(between(&old, &new), expected);
        assert_eq!(between(&new, &new), Vec::<String>::new());
        let order = between(
            &json!({"l": [{"name": "a"}, {"name": "b"}]}),
            &json!({"l": [{"name": "b"}, {"name": "a"}]}),
        );
        assert_eq!(order, ["l: another order"]);
        assert_eq!(
            between(&json!({"t": ["a"]}), &json!({"t": ["a", "b"]})),
            [r#"t: ["a"] → ["a","b"]"#]
        );
    }

    #[test]
    fn what_is_long_is_cut_and_what_is_much_is_counted() {
        let long = between(&json!({"where": "a".repeat(200)}), &json!({"where": "b"}));
        assert!(long[0].chars().count() < 90 && long[0].contains('…'), "{long:?}");
        let many: Vec<String> = (0..100).map(|index| format!("field-{index}: 1 → 2")).collect();
        let text = short(&many);
        assert!(text.len() <= LENGTH_MAX + 20 && text.ends_with(" more"), "{text}");
    }
}
