//! Finds the nodes of a manifest that a rule's path names. Must not judge them.

use serde_json::Value;

/// A node and where it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Located<'a> {
    /// Concrete path, such as `spec.windows[0].name`.
    pub path: String,
    /// The node.
    pub node: &'a Value,
}

/// The nodes of `root` at `path` (segments between dots, `[]` for every element of a list), in order. Nothing where a
/// segment is absent or of another shape.
pub fn locate<'a>(root: &'a Value, path: &str) -> Vec<Located<'a>> {
    let mut found = vec![Located {
        path: String::new(),
        node: root,
    }];
    for segment in path.split('.').filter(|segment| !segment.is_empty()) {
        let (name, every) = segment.strip_suffix("[]").map_or((segment, false), |name| (name, true));
        found = found.iter().filter_map(|parent| member(parent, name)).collect();
        if every {
            found = found.iter().flat_map(elements).collect();
        }
    }
    found
}

fn member<'a>(parent: &Located<'a>, name: &str) -> Option<Located<'a>> {
    let node = parent.node.get(name)?;
    let dot = if parent.path.is_empty() { "" } else { "." };
    Some(Located {
        path: format!("{}{dot}{name}", parent.path),
        node,
    })
}

fn elements<'a>(list: &Located<'a>) -> Vec<Located<'a>> {
    let path = &list.path;
    list.node
        .as_array()
        .into_iter()
        .flatten()
        .enumerate()
        .map(|(index, node)| Located {
            path: format!("{path}[{index}]"),
            node,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_finds_every_element_and_says_where_it_is() {
        let root = serde_json::json!({"spec": {"windows": [{"name": "a"}, {}, {"name": "c"}], "one": 1}});
        let paths = |path| {
            locate(&root, path)
                .into_iter()
                .map(|found| found.path)
                .collect::<Vec<_>>()
        };
        assert_eq!(
            paths("spec.windows[].name"),
            ["spec.windows[0].name", "spec.windows[2].name"]
        );
        assert_eq!(paths("spec.one"), ["spec.one"]);
        assert_eq!(paths("spec.one[]"), [""; 0]);
        assert_eq!(paths(""), [""]);
    }
}
