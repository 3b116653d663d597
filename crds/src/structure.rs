//! Checks a value against the schema that the API server is given: the same verdict outside a cluster, but with every
//! problem listed and in words for people. Must not hold rules across fields ([`crate::rules`]).
//!
//! It knows the parts of a structural schema that our schema uses, no more; a test names them.

use std::collections::HashMap;
use std::sync::LazyLock;

use regex_lite::Regex;
use serde_json::{Map, Value};

use crate::validate::SpecError;
use crate::value::{Duration, Instant, JsonPointer, Quantity};

/// The generated definition, as it is applied to a cluster. `crdgen` writes it, a test finds drift.
const DEFINITION: &str = include_str!("../generated/streamaggregations.streamagg.io.yaml");

static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
    let definition: Value = serde_yaml::from_str(DEFINITION).unwrap_or_default();
    definition
        .pointer("/spec/versions/0/schema/openAPIV3Schema/properties/spec")
        .cloned()
        .unwrap_or_default()
});

/// The patterns of the schema. To compile one takes longer than all the rest of a check.
static PATTERNS: LazyLock<HashMap<String, Regex>> = LazyLock::new(|| {
    let mut patterns = HashMap::new();
    compile_patterns(&SCHEMA, &mut patterns);
    patterns
});

fn compile_patterns(schema: &Value, patterns: &mut HashMap<String, Regex>) {
    match schema {
        Value::Object(object) => {
            if let Some(pattern) = object.get("pattern").and_then(Value::as_str)
                && let Ok(regex) = Regex::new(pattern)
            {
                patterns.insert(pattern.to_owned(), regex);
            }
            object.values().for_each(|member| compile_patterns(member, patterns));
        }
        Value::Array(elements) => {
            for element in elements {
                compile_patterns(element, patterns);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Whether `text` matches a pattern of the schema, or any other; one that is no pattern is matched by all.
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    match PATTERNS.get(pattern) {
        Some(regex) => regex.is_match(text),
        None => Regex::new(pattern).map_or(true, |regex| regex.is_match(text)),
    }
}

/// Schema of `spec`.
pub fn spec_schema() -> &'static Value {
    &SCHEMA
}

/// Drops nulls of known fields and fills in defaults, as the API server does before it validates.
pub fn fill_defaults(value: &mut Value, schema: &Value) {
    match value {
        Value::Object(object) => fill_object(object, schema),
        Value::Array(elements) => {
            if let Some(items) = schema.get("items") {
                elements.iter_mut().for_each(|element| fill_defaults(element, items));
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn fill_object(object: &mut Map<String, Value>, schema: &Value) {
    for (name, property) in properties(schema) {
        if object.get(name).is_some_and(Value::is_null) {
            object.remove(name);
        }
        if let (false, Some(default)) = (object.contains_key(name), property.get("default")) {
            object.insert(name.clone(), default.clone());
        }
        if let Some(member) = object.get_mut(name) {
            fill_defaults(member, property);
        }
    }
}

/// The reverse of [`fill_defaults`]: what is equal to its default is left out, so that a default added by a later
/// version changes nothing in what remains.
pub fn drop_defaults(value: &mut Value, schema: &Value) {
    match value {
        Value::Object(object) => {
            for (name, property) in properties(schema) {
                if object.contains_key(name) && object.get(name) == property.get("default") {
                    object.remove(name);
                } else if let Some(member) = object.get_mut(name) {
                    drop_defaults(member, property);
                }
            }
        }
        Value::Array(elements) => {
            if let Some(items) = schema.get("items") {
                elements.iter_mut().for_each(|element| drop_defaults(element, items));
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn properties(schema: &Value) -> impl Iterator<Item = (&String, &Value)> {
    schema
        .get("properties")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
}

/// Everything in `value` that its schema does not allow.
pub fn check(value: &Value, schema: &Value, path: &str) -> Vec<SpecError> {
    let mut errors = Vec::new();
    check_node(value, schema, path, &mut errors);
    errors
}

fn check_node(value: &Value, schema: &Value, path: &str, errors: &mut Vec<SpecError>) {
    let flag = |name: &str| schema.get(name).and_then(Value::as_bool).unwrap_or(false);
    if flag("x-kubernetes-int-or-string") {
        match value {
            Value::String(text) => check_text(text, schema, path, errors),
            Value::Number(number) if number.is_i64() => {}
            other => errors.push(SpecError::new(
                path,
                format!("found {}; expected a text or an integer", found(other)),
            )),
        }
        return;
    }
    match (schema.get("type").and_then(Value::as_str).unwrap_or_default(), value) {
        ("object", Value::Object(object)) => check_object(object, schema, path, errors),
        ("array", Value::Array(elements)) => check_array(elements, schema, path, errors),
        ("string", Value::String(text)) => check_text(text, schema, path, errors),
        ("boolean", Value::Bool(_)) => {}
        ("integer", Value::Number(number)) if number.is_i64() => check_range(value, schema, path, errors),
        ("number", Value::Number(_)) => check_range(value, schema, path, errors),
        ("string", Value::Number(_) | Value::Bool(_)) => {
            errors.push(SpecError::new(
                path,
                format!("found {}; expected a text: put it in quotes", found(value)),
            ));
        }
        (expected, other) => errors.push(SpecError::new(
            path,
            format!("found {}; expected {}", found(other), article(expected)),
        )),
    }
}

fn check_object(object: &Map<String, Value>, schema: &Value, path: &str, errors: &mut Vec<SpecError>) {
    let at = |name: &str| {
        if path.is_empty() {
            name.to_owned()
        } else {
            format!("{path}.{name}")
        }
    };
    for name in schema
        .get("required")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
    {
        if !object.contains_key(name) {
            errors.push(SpecError::new(at(name), "is required but missing"));
        }
    }
    let preserve = schema.get("x-kubernetes-preserve-unknown-fields").is_some();
    for (name, member) in object {
        if let Some(property) = schema.get("properties").and_then(|properties| properties.get(name)) {
            check_node(member, property, &at(name), errors);
        } else if let Some(any) = schema.get("additionalProperties") {
            check_node(member, any, &at(name), errors);
        } else if !preserve {
            errors.push(SpecError::new(at(name), unknown(name, schema)));
        }
    }
    check_count(
        object.len(),
        schema,
        ["minProperties", "maxProperties"],
        "members",
        path,
        errors,
    );
}

/// Says which field was meant, where one differs in a letter or in capitals, and otherwise which there are.
fn unknown(name: &str, schema: &Value) -> String {
    let known: Vec<&str> = properties(schema).map(|(name, _)| name.as_str()).collect();
    let meant = known.iter().find(|known| is_near(known, name));
    match meant {
        Some(meant) => format!("unknown field; did you mean {meant}?"),
        None if known.is_empty() => "unknown field; known here: nothing".to_owned(),
        None => format!("unknown field; known here: {}", known.join(", ")),
    }
}

/// Whether two names are equal but for capitals, or but for one letter that is other, missing or too many.
fn is_near(one: &str, other: &str) -> bool {
    let (one, other) = (one.to_lowercase(), other.to_lowercase());
    let start = one.bytes().zip(other.bytes()).take_while(|(a, b)| a == b).count();
    let (one, other) = (&one.as_bytes()[start..], &other.as_bytes()[start..]);
    let rest = |bytes: &[u8], skip: usize| bytes.get(skip..).map(<[u8]>::to_vec);
    one == other
        || rest(one, 1).is_some_and(|rest| rest == other)
        || rest(other, 1).is_some_and(|rest| rest == one)
        || (!one.is_empty() && rest(one, 1) == rest(other, 1))
}

fn check_array(elements: &[Value], schema: &Value, path: &str, errors: &mut Vec<SpecError>) {
    check_count(
        elements.len(),
        schema,
        ["minItems", "maxItems"],
        "elements",
        path,
        errors,
    );
    for (index, element) in elements.iter().enumerate() {
        let at = format!("{path}[{index}]");
        check_node(element, schema.get("items").unwrap_or(&Value::Null), &at, errors);
        let identity = |element: &Value| match schema.get("x-kubernetes-list-type").and_then(Value::as_str) {
            Some("map") => element.get("name").cloned(),
            Some("set") => Some(element.clone()),
            Some(_) | None => None,
        };
        if let Some(own) = identity(element)
            && let Some(first) = elements[..index]
                .iter()
                .position(|other| identity(other).as_ref() == Some(&own))
        {
            errors.push(SpecError::new(
                at,
                format!("{own} is there twice, first at {path}[{first}]; give each once"),
            ));
        }
    }
}

fn check_text(text: &str, schema: &Value, path: &str, errors: &mut Vec<SpecError>) {
    if let Some(allowed) = schema.get("enum").and_then(Value::as_array)
        && !allowed.iter().any(|value| value.as_str() == Some(text))
    {
        let allowed: Vec<&str> = allowed.iter().filter_map(Value::as_str).collect();
        errors.push(SpecError::new(
            path,
            format!("found {text:?}; expected one of {}", allowed.join(", ")),
        ));
    }
    check_count(
        text.chars().count(),
        schema,
        ["minLength", "maxLength"],
        "characters",
        path,
        errors,
    );
    if let Some(pattern) = schema.get("pattern").and_then(Value::as_str)
        && !matches(pattern, text)
    {
        errors.push(SpecError::new(
            path,
            format!("found {text:?}; expected {}", pattern_in_words(pattern)),
        ));
    }
}

fn pattern_in_words(pattern: &str) -> String {
    match pattern {
        Duration::PATTERN => Duration::EXPECTED.to_owned(),
        Instant::PATTERN => Instant::EXPECTED.to_owned(),
        JsonPointer::PATTERN => JsonPointer::EXPECTED.to_owned(),
        Quantity::PATTERN => Quantity::EXPECTED.to_owned(),
        other => format!("a text that matches {other}"),
    }
}

fn check_range(value: &Value, schema: &Value, path: &str, errors: &mut Vec<SpecError>) {
    let bound = |name| schema.get(name).and_then(Value::as_f64);
    let number = value.as_f64().unwrap_or_default();
    if let Some(least) = bound("minimum").filter(|least| number < *least) {
        errors.push(SpecError::new(
            path,
            format!("found {value}; expected at least {least}"),
        ));
    }
    if let Some(most) = bound("maximum").filter(|most| number > *most) {
        errors.push(SpecError::new(path, format!("found {value}; expected at most {most}")));
    }
}

fn check_count(count: usize, schema: &Value, bounds: [&str; 2], of: &str, path: &str, errors: &mut Vec<SpecError>) {
    let bound = |name| {
        schema
            .get(name)
            .and_then(Value::as_u64)
            .and_then(|bound| usize::try_from(bound).ok())
    };
    let [least, most] = bounds.map(bound);
    if let Some(least) = least.filter(|least| count < *least) {
        errors.push(SpecError::new(
            path,
            format!("found {count} {of}; expected at least {least}"),
        ));
    }
    if let Some(most) = most.filter(|most| count > *most) {
        errors.push(SpecError::new(
            path,
            format!("found {count} {of}; expected at most {most}"),
        ));
    }
}

fn found(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => format!("{text:?}"),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    }
}

fn article(kind: &str) -> &str {
    match kind {
        "object" => "an object",
        "array" => "a list",
        "string" => "a text",
        "boolean" => "true or false",
        "integer" => "an integer",
        "number" => "a number",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn keywords(schema: &Value, found: &mut BTreeSet<String>) {
        for (name, value) in schema.as_object().into_iter().flatten() {
            found.insert(name.clone());
            match name.as_str() {
                "properties" => value
                    .as_object()
                    .into_iter()
                    .flatten()
                    .for_each(|(_, child)| keywords(child, found)),
                "items" | "additionalProperties" => keywords(value, found),
                _ => {}
            }
        }
    }

    #[test]
    fn a_name_is_near_when_capitals_or_one_letter_differ() {
        for (near, name) in [
            ("groupBy", "groupby"),
            ("size", "sizes"),
            ("size", "sze"),
            ("size", "sice"),
            ("é", "è"),
            ("a", "a"),
        ] {
            assert!(is_near(near, name) && is_near(name, near), "{near} {name}");
        }
        for (far, name) in [("size", "slide"), ("gap", "max"), ("sink", "skni")] {
            assert!(!is_near(far, name) && !is_near(name, far), "{far} {name}");
        }
        let schema = serde_json::json!({"properties": {"size": {}, "offset": {}}});
        assert_eq!(unknown("Size", &schema), "unknown field; did you mean size?");
        assert_eq!(unknown("gap", &schema), "unknown field; known here: offset, size");
    }

    #[test]
    fn the_schema_uses_no_keyword_that_is_not_checked_here() {
        let known = BTreeSet::from([
            "additionalProperties",
            "default",
            "description",
            "enum",
            "format",
            "items",
            "maxItems",
            "maxLength",
            "maxProperties",
            "maximum",
            "minItems",
            "minLength",
            "minimum",
            "pattern",
            "properties",
            "required",
            "type",
            "x-kubernetes-int-or-string",
            "x-kubernetes-list-map-keys",
            "x-kubernetes-list-type",
            "x-kubernetes-preserve-unknown-fields",
            "x-kubernetes-validations",
        ]);
        let mut used = BTreeSet::new();
        keywords(spec_schema(), &mut used);
        let unknown: Vec<_> = used.iter().filter(|name| !known.contains(name.as_str())).collect();
        assert!(used.contains("properties") && unknown.is_empty(), "{unknown:?}");
    }
}
