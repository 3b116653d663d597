//! Finds the nodes of a manifest that a rule's path names. Must not judge them.

use serde_json::Value;

/// A node and where it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Located<'a> {
    /// The node.
    pub node: &'a Value,
    pattern: &'static str,
    /// Of the elements that stand for each `[]` of the pattern.
    indexes: Vec<usize>,
}

impl Located<'_> {
    /// Concrete path, such as `spec.windows[0].name`. Made only for those who ask: nearly every node is as it should be.
    pub fn path(&self) -> String {
        let mut parts = self.pattern.split("[]");
        let mut path = parts.next().unwrap_or_default().to_owned();
        for (index, part) in self.indexes.iter().zip(parts) {
            path = format!("{path}[{index}]{part}");
        }
        path
    }
}

/// The nodes of `root` at `pattern` (segments between dots, `[]` for every element of a list), in order. Nothing where a
/// segment is absent or of another shape.
pub fn locate<'a>(root: &'a Value, pattern: &'static str) -> Vec<Located<'a>> {
    let mut found = Vec::new();
    walk(root, pattern, &mut Vec::new(), &mut |node, indexes| {
        let indexes = indexes.to_vec();
        found.push(Located { node, pattern, indexes });
    });
    found
}

fn walk<'a>(node: &'a Value, rest: &str, indexes: &mut Vec<usize>, found: &mut impl FnMut(&'a Value, &[usize])) {
    if rest.is_empty() {
        found(node, indexes);
        return;
    }
    let (segment, rest) = rest.split_once('.').unwrap_or((rest, ""));
    let Some(name) = segment.strip_suffix("[]") else {
        if let Some(member) = node.get(segment) {
            walk(member, rest, indexes, found);
        }
        return;
    };
    let elements = node.get(name).and_then(Value::as_array);
    for (index, element) in elements.into_iter().flatten().enumerate() {
        indexes.push(index);
        walk(element, rest, indexes, found);
        indexes.pop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_finds_every_element_and_says_where_it_is() {
        let root = serde_json::json!({"spec": {"windows": [{"name": "a"}, {}, {"name": "c"}], "one": 1},
            "a": [{"b": [1]}, {"b": [2, 3]}]});
        let paths = |path| {
            locate(&root, path)
                .into_iter()
                .map(|found| found.path())
                .collect::<Vec<_>>()
        };
        assert_eq!(
            paths("spec.windows[].name"),
            ["spec.windows[0].name", "spec.windows[2].name"]
        );
        assert_eq!(paths("a[].b[]"), ["a[0].b[0]", "a[1].b[0]", "a[1].b[1]"]);
        assert_eq!(locate(&root, "a[].b[]")[2].node, 3);
        assert_eq!(paths("spec.one"), ["spec.one"]);
        assert_eq!(paths("spec.one[]"), [""; 0]);
        assert_eq!(paths(""), [""]);
    }
}
