//! Results by window and key, each with its last pane, and how two such ledgers differ. Must not read or write anything.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Deserialize;
use serde_json::value::RawValue;

/// Which windows are compared.
#[derive(Clone, Debug, Default)]
pub(super) struct Selection {
    /// Names; empty: all.
    pub windows: Vec<String>,
    /// Windows that start here or later, ms.
    pub from_ms: Option<i64>,
    /// Windows that end here or earlier, ms.
    pub to_ms: Option<i64>,
}

impl Selection {
    /// Global windows have neither start nor end: a range never has them.
    fn contains(&self, line: &Line<'_>) -> bool {
        (self.windows.is_empty() || self.windows.contains(&line.window))
            && self
                .from_ms
                .is_none_or(|from| line.start.is_some_and(|start| from <= start))
            && self.to_ms.is_none_or(|to| line.end.is_some_and(|end| end <= to))
    }
}

#[derive(Deserialize)]
struct Line<'a> {
    op: Operation,
    window: String,
    start: Option<i64>,
    end: Option<i64>,
    /// Absent where the job sheds no load.
    #[serde(default, rename = "keptShare")]
    kept_share: Option<f64>,
    #[serde(borrow)]
    key: &'a RawValue,
    #[serde(borrow)]
    values: &'a RawValue,
}

#[derive(Deserialize)]
enum Operation {
    Upsert,
    Retract,
}

/// A window and a key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    window: String,
    start: Option<i64>,
    end: Option<i64>,
    key: String,
}

/// What holds for a window and a key after everything that was entered.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Row {
    /// Values of the last pane, without spaces.
    values: String,
    /// Only the end of the input made it.
    open: bool,
    /// It was made of a share of the records.
    of_a_share: bool,
}

/// Results as a table that is kept up by upserts and retractions.
#[derive(Clone, Debug, Default)]
pub(super) struct Ledger {
    rows: BTreeMap<Place, Row>,
    ended: bool,
}

impl Ledger {
    /// Enters a result's value.
    pub fn enter(&mut self, value: &[u8], selection: &Selection) -> Result<(), String> {
        let line: Line<'_> =
            serde_json::from_slice(value).map_err(|error| format!("is no value of a result: {error}"))?;
        if !selection.contains(&line) {
            return Ok(());
        }
        let place = Place {
            start: line.start,
            end: line.end,
            key: without_spaces(line.key.get()),
            window: line.window,
        };
        match line.op {
            Operation::Retract => {
                self.rows.remove(&place);
            }
            Operation::Upsert => {
                let known = self.rows.get(&place);
                let open = self.ended && known.is_none_or(|row| row.open);
                let values = without_spaces(line.values.get());
                let of_a_share = line.kept_share.is_some_and(|share| share < 1.0);
                let row = Row {
                    values,
                    open,
                    of_a_share,
                };
                self.rows.insert(place, row);
            }
        }
        Ok(())
    }

    /// What is entered from here on was still open when the input ended.
    pub fn input_ends(&mut self) {
        self.ended = true;
    }
}

/// A JSON text without the spaces between its tokens.
fn without_spaces(text: &str) -> String {
    let (mut in_text, mut escaped) = (false, false);
    text.chars()
        .filter(|character| {
            let keep = in_text || !character.is_ascii_whitespace();
            if escaped {
                escaped = false;
            } else if *character == '\\' {
                escaped = in_text;
            } else if *character == '"' {
                in_text = !in_text;
            }
            keep
        })
        .collect()
}

/// What came of comparing what was published with what was derived again.
#[derive(Debug, Default)]
pub(super) struct Comparison<'a> {
    equal: usize,
    /// Derived again when the input ended, and not published: the windows may fire yet.
    open: usize,
    /// Published, and not derived from a part of the input.
    passed_over: usize,
    /// Published of a share of the records: from all of them something else comes.
    of_a_share: usize,
    /// Place, published values, derived values.
    differences: Vec<(&'a Place, Option<&'a str>, Option<&'a str>)>,
}

impl<'a> Comparison<'a> {
    /// Compares; with `partial` what was published and is not derived is passed over.
    pub fn of(published: &'a Ledger, derived: &'a Ledger, partial: bool) -> Self {
        let mut comparison = Self::default();
        for (place, row) in &published.rows {
            if row.of_a_share {
                comparison.of_a_share += 1;
                continue;
            }
            match derived.rows.get(place) {
                Some(other) if other.values == row.values => comparison.equal += 1,
                None if partial => comparison.passed_over += 1,
                other => {
                    let derived = other.map(|row| row.values.as_str());
                    comparison.differences.push((place, Some(&row.values), derived));
                }
            }
        }
        for (place, row) in &derived.rows {
            match published.rows.get(place) {
                Some(_) => {}
                None if row.open => comparison.open += 1,
                None => comparison.differences.push((place, None, Some(&row.values))),
            }
        }
        comparison.differences.sort_by_key(|difference| difference.0);
        comparison
    }

    /// Why the results are not equal; `None` when they are.
    pub fn verdict(&self) -> Option<String> {
        let compared = self.equal + self.differences.len();
        match self.differences.len() {
            0 if compared == 0 => Some(
                "nothing was compared: no published result and no window that the input closes is in the range; look at \
                 --window, --from, --to and --lines"
                    .to_owned(),
            ),
            0 => None,
            differences => Some(format!("{differences} of {compared} results differ")),
        }
    }

    /// The differences, at most `show` of them, and a line that counts everything.
    pub fn report(&self, show: usize) -> String {
        let mut out = String::new();
        // Writing to a text cannot fail.
        for (place, published, derived) in self.differences.iter().take(show) {
            let bound = |bound: Option<i64>| bound.map_or("…".to_owned(), |ms| ms.to_string());
            let _ = writeln!(
                out,
                "{} [{}, {}) {}\n  published   {}\n  re-derived  {}",
                place.window,
                bound(place.start),
                bound(place.end),
                place.key,
                published.unwrap_or("nothing"),
                derived.unwrap_or("nothing"),
            );
        }
        let hidden = self.differences.len().saturating_sub(show);
        if hidden > 0 {
            let _ = writeln!(out, "… and {hidden} more; --show {} shows all", self.differences.len());
        }
        let _ = write!(out, "{} equal, {} different", self.equal, self.differences.len());
        for (count, what) in [
            (self.open, "still open when the input ends"),
            (self.passed_over, "published and not of this part of the input"),
            (
                self.of_a_share,
                "published of a share of the records and not compared (keptShare)",
            ),
        ] {
            if count > 0 {
                let _ = write!(out, ", {count} {what}");
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(op: &str, start: i64, values: &str) -> String {
        format!(
            r#"{{"op":"{op}","window":"w","start":{start},"end":{},"key":{{"k":"a"}},"pane":{{"index":0,"timing":"OnTime","final":true,"revision":0}},"values":{values}}}"#,
            start + 10
        )
    }

    fn ledger(lines: &[String]) -> Ledger {
        let mut ledger = Ledger::default();
        for line in lines {
            match line.as_str() {
                "end" => ledger.input_ends(),
                line => ledger.enter(line.as_bytes(), &Selection::default()).unwrap(),
            }
        }
        ledger
    }

    #[test]
    fn what_was_published_of_a_share_of_the_records_is_counted_and_not_compared() {
        let of = |share: &str, start| {
            line("Upsert", start, r#"{"n":1}"#).replace(r#","values""#, &format!(r#","keptShare":{share},"values""#))
        };
        let published = ledger(&[of("0.25", 0), of("1", 10)]);
        let derived = ledger(&[of("1", 0).replace(r#""n":1"#, r#""n":4"#), of("1", 10)]);
        let comparison = Comparison::of(&published, &derived, false);
        assert_eq!(comparison.verdict(), None);
        let report = comparison.report(10);
        assert_eq!(
            report,
            "1 equal, 0 different, 1 published of a share of the records and not compared (keptShare)"
        );
    }

    #[test]
    fn the_last_pane_counts_and_a_retraction_takes_back() {
        let published = ledger(&[
            line("Upsert", 0, r#"{"n":1}"#),
            line("Upsert", 0, r#"{ "n" : 2 }"#),
            line("Upsert", 10, r#"{"n":1}"#),
            line("Retract", 10, r#"{"n":1}"#),
        ]);
        let derived = ledger(&[line("Upsert", 0, r#"{"n":2}"#)]);
        let comparison = Comparison::of(&published, &derived, false);
        assert_eq!(
            (comparison.verdict(), comparison.report(5)),
            (None, "1 equal, 0 different".to_owned())
        );
    }

    #[test]
    fn what_differs_is_shown_up_to_a_limit() {
        let published = ledger(&[line("Upsert", 0, r#"{"n":1}"#), line("Upsert", 20, r#"{"n":3}"#)]);
        let derived = ledger(&[
            line("Upsert", 0, r#"{"n":2}"#),
            line("Upsert", 10, r#"{"n":5}"#),
            "end".to_owned(),
            line("Upsert", 10, r#"{"n":6}"#),
            line("Upsert", 30, r#"{"n":1}"#),
        ]);
        let comparison = Comparison::of(&published, &derived, false);
        assert_eq!(comparison.verdict().unwrap(), "3 of 3 results differ");
        let report = comparison.report(2);
        let expected = "w [0, 10) {\"k\":\"a\"}\n  published   {\"n\":1}\n  re-derived  {\"n\":2}\nw [10, 20) {\"k\":\"a\"}\n  \
                        published   nothing\n  re-derived  {\"n\":6}\n… and 1 more; --show 3 shows all\n0 equal, 3 different, 1 \
                        still open when the input ends";
        assert_eq!(report, expected);
        let partial = Comparison::of(&published, &derived, true);
        assert_eq!(partial.verdict().unwrap(), "2 of 2 results differ");
        assert!(
            partial
                .report(0)
                .contains("1 published and not of this part of the input")
        );
    }

    #[test]
    fn a_selection_leaves_out_other_windows_and_times() {
        let mut ledger = Ledger::default();
        let selections = [
            Selection {
                windows: vec!["v".to_owned()],
                ..Selection::default()
            },
            Selection {
                from_ms: Some(1),
                ..Selection::default()
            },
            Selection {
                to_ms: Some(9),
                ..Selection::default()
            },
        ];
        for selection in selections {
            ledger.enter(line("Upsert", 0, "{}").as_bytes(), &selection).unwrap();
        }
        assert!(ledger.rows.is_empty());
        let nothing = Comparison::of(&ledger, &ledger, false);
        assert!(nothing.verdict().unwrap().contains("nothing was compared"));
        assert!(
            ledger
                .enter(b"{}", &Selection::default())
                .unwrap_err()
                .contains("missing field")
        );
    }

    #[test]
    fn spaces_count_only_in_texts() {
        let text = "{ \"a b\\\" \" : [ 1 ,\n\t2 ] , \"c\\\\\" : \"\" }";
        assert_eq!(without_spaces(text), "{\"a b\\\" \":[1,2],\"c\\\\\":\"\"}");
    }
}
