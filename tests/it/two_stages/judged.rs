//! What window tasks have written, as the properties look at it. Must not run anything.

use std::collections::BTreeMap;

use streamagg_tests::oracle::{self, Expected, Shape, Window};

use super::scene::Scene;

/// Takes the share of the records that were kept out of a result of a count window. What it fires over went out together
/// with later events, of which some may have been shed: it may say less than a single task does, never more.
pub fn take_share(scene: &Scene, value: &mut String) -> Option<f64> {
    if window_of(scene, value).shape != Shape::Count {
        return None;
    }
    let from = value.find(r#","keptShare":"#)?;
    let to = from + 1 + value[from + 1..].find(',').expect("values follow");
    let share = value[from + r#","keptShare":"#.len()..to].parse();
    value.replace_range(from..to, "");
    Some(share.expect("a number"))
}

/// Key and value of each result.
pub fn results(published: &[Expected]) -> Vec<(String, String)> {
    let result = |output: &Expected| match output {
        Expected::Result { key, value, .. } => (key.clone(), value.clone()),
        other => panic!("a window task puts out results only: {other:?}"),
    };
    published.iter().map(result).collect()
}

/// Results of windows whose panes depend on nothing but which events they have.
pub fn without_counts(scene: &Scene, results: &[(String, String)]) -> Vec<(String, String)> {
    let counts = |value: &str| window_of(scene, value).shape == Shape::Count;
    results.iter().filter(|(_, value)| !counts(value)).cloned().collect()
}

/// The last values of their windows and keys.
pub fn answer(scene: &Scene, results: &[(String, String)]) -> BTreeMap<String, String> {
    let expected = |(key, value)| Expected::Result { entry: 0, key, value };
    let all: Vec<Expected> = without_counts(scene, results).into_iter().map(expected).collect();
    oracle::batch_answer(&all)
}

pub fn window_of<'a>(scene: &'a Scene, value: &str) -> &'a Window {
    let value: serde_json::Value = serde_json::from_str(value).expect("results are JSON");
    let windows = &mut scene.spec.windows.iter();
    windows
        .find(|window| value["window"] == window.name)
        .expect("one of the spec")
}

pub fn pane_of(value: &str) -> (u64, String, bool) {
    let value: serde_json::Value = serde_json::from_str(value).expect("results are JSON");
    let pane = &value["pane"];
    let timing = pane["timing"].as_str().expect("text").to_owned();
    (
        pane["index"].as_u64().expect("a number"),
        timing,
        pane["final"].as_bool().expect("a bool"),
    )
}

/// Panes of a window and key are counted without a gap, behind a final one there is none, and what is taken back is the last
/// one: the next one follows it, or is the first of another session.
pub fn assert_panes_are_in_order(results: &[(String, String)]) {
    let mut panes: BTreeMap<&str, (u64, bool, bool)> = BTreeMap::new();
    for (key, value) in results {
        let (index, _, is_final) = pane_of(value);
        let takes_back = value.starts_with(r#"{"op":"Retract""#);
        let before = panes.get(key.as_str()).copied();
        let follows = match before {
            None => index == 0 && !takes_back,
            Some((last, ended, false)) if takes_back => !ended && index == last,
            Some((last, ended, was_taken)) => !ended && !takes_back && (index == last + 1 || was_taken && index == 0),
        };
        assert!(follows, "{key}: {value} after pane {before:?}");
        panes.insert(key, (index, is_final, takes_back));
    }
}
