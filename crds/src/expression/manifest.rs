//! Checks every expression of a manifest and every name that refers to one. Must not judge anything else.

use serde_json::Value;

use super::{Kind, Name, compile};
use crate::validate::SpecError;

/// Functions of aggregates that take numbers only.
const NUMERIC: [&str; 8] = [
    "sum",
    "average",
    "min",
    "max",
    "percentile",
    "variance",
    "stddev",
    "histogram",
];

/// Everything wrong with the expressions of `spec`. What has another shape than expected is the schema's to refuse.
pub(crate) fn check(spec: &Value) -> Vec<SpecError> {
    let mut errors = Vec::new();
    let names = lets(spec, &mut errors);
    if let Some(text) = spec.get("where").and_then(Value::as_str) {
        condition(text, "spec.where", &names, &mut errors);
    }
    for (index, part) in list(spec, "groupBy").enumerate() {
        if let Some(name) = part.get("value").and_then(Value::as_str) {
            let path = format!("spec.groupBy[{index}].value");
            let wrong = |kind| matches!(kind, Kind::List | Kind::Map);
            reference(name, &path, &names, wrong, "a text, a number or a boolean", &mut errors);
        }
    }
    for (index, aggregate) in list(spec, "aggregates").enumerate() {
        let path = format!("spec.aggregates[{index}]");
        check_aggregate(aggregate, &path, &names, &mut errors);
        for (index, member) in list(aggregate, "composite").enumerate() {
            check_aggregate(member, &format!("{path}.composite[{index}]"), &names, &mut errors);
        }
    }
    errors
}

fn check_aggregate(aggregate: &Value, path: &str, names: &[Name], errors: &mut Vec<SpecError>) {
    if let Some(text) = aggregate.get("where").and_then(Value::as_str) {
        condition(text, &format!("{path}.where"), names, errors);
    }
    for (function, body) in aggregate.as_object().into_iter().flatten() {
        values(function, body, &format!("{path}.{function}"), names, errors);
    }
}

/// The names of `let` with their kinds; each may use those before it.
fn lets(spec: &Value, errors: &mut Vec<SpecError>) -> Vec<Name> {
    let mut names: Vec<Name> = Vec::new();
    for (index, entry) in list(spec, "let").enumerate() {
        let text = |member: &str| entry.get(member).and_then(Value::as_str);
        let kind = match text("value").map(|text| compile(text, &names)) {
            Some(Ok(expression)) => expression.kind,
            Some(Err(error)) => {
                errors.push(SpecError::new(format!("spec.let[{index}].value"), error.to_string()));
                Kind::Any
            }
            None => Kind::Any,
        };
        if let Some(name) = text("name") {
            names.push(Name {
                name: name.to_owned(),
                kind,
            });
        }
    }
    names
}

fn list<'a>(object: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    object.get(name).and_then(Value::as_array).into_iter().flatten()
}

fn condition(text: &str, path: &str, names: &[Name], errors: &mut Vec<SpecError>) {
    match compile(text, names) {
        Ok(expression) if expression.kind.fits(Kind::Bool) => {}
        Ok(expression) => errors.push(SpecError::new(
            path,
            format!(
                "gives {}; expected a condition, such as event.status >= 400",
                expression.kind
            ),
        )),
        Err(error) => errors.push(SpecError::new(path, error.to_string())),
    }
}

/// Every `value` of an aggregate's function, however deep, names a `let`.
fn values(function: &str, body: &Value, path: &str, names: &[Name], errors: &mut Vec<SpecError>) {
    for (member, value) in body.as_object().into_iter().flatten() {
        let path = format!("{path}.{member}");
        match value {
            Value::String(name) if member == "value" => {
                let numeric = NUMERIC.contains(&function);
                let wrong = |kind: Kind| numeric && !kind.may_be_number() && kind != Kind::Null;
                reference(name, &path, names, wrong, "a number", errors);
            }
            Value::Object(_) => values(function, value, &path, names, errors),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {}
        }
    }
}

fn reference(
    name: &str,
    path: &str,
    names: &[Name],
    wrong: impl Fn(Kind) -> bool,
    expected: &str,
    errors: &mut Vec<SpecError>,
) {
    match names.iter().find(|known| known.name == name) {
        Some(found) if wrong(found.kind) => errors.push(SpecError::new(
            path,
            format!("{name} of let is {}; expected {expected}", found.kind),
        )),
        Some(_) => {}
        None => {
            let known: Vec<&str> = names.iter().map(|name| name.name.as_str()).collect();
            let known = if known.is_empty() {
                "there is no let".to_owned()
            } else {
                format!("let has {}", known.join(", "))
            };
            errors.push(SpecError::new(
                path,
                format!("found {name}; expected a name of let, and {known}"),
            ));
        }
    }
}
