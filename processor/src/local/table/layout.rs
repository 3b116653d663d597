//! Cells and columns of plain text. Must not know what they mean.

use serde_json::Value;

/// A value for the eye: text as it is, integers in full, other numbers with three decimals.
pub(super) fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text
            .chars()
            .map(|letter| if letter.is_control() { '·' } else { letter })
            .collect(),
        Value::Number(number) if number.is_i64() || number.is_u64() => number.to_string(),
        Value::Number(number) => number
            .as_f64()
            .map_or_else(|| number.to_string(), |number| format!("{number:.3}")),
        Value::Bool(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

/// Lines of equal columns, two spaces apart; the columns from `numbers_from` on are flushed right.
/// A row may be shorter than the header.
pub(super) fn align(header: &[String], rows: &[Vec<String>], numbers_from: usize) -> Vec<String> {
    let width = |column: usize| {
        let cells = std::iter::once(header).chain(rows.iter().map(Vec::as_slice));
        cells
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let line = |row: &[String]| {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, width))| {
            if column < numbers_from {
                format!("{cell:<width$}")
            } else {
                format!("{cell:>width$}")
            }
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    std::iter::once(header)
        .chain(rows.iter().map(Vec::as_slice))
        .map(line)
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn cells_are_for_people() {
        let cells = [
            json!(null),
            json!("a\u{1b}[2J"),
            json!(12),
            json!(1.23456),
            json!(true),
            json!(u64::MAX),
        ];
        let texts: Vec<String> = cells.iter().map(cell).collect();
        assert_eq!(texts, ["-", "a·[2J", "12", "1.235", "true", "18446744073709551615"]);
    }
}
