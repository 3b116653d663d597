//! The rules across a manifest that its schema cannot say, each once as CEL (for the API server) and once as a function
//! (for the operator and the laptop). Must not hold what a schema can say (types, patterns, bounds).
//!
//! Tests send the same manifests through both forms and demand the same verdict.

mod across;
mod change;
mod place;
mod security;
mod simple;
mod windows;

use std::borrow::Cow;
use std::sync::LazyLock;

use serde_json::Value;

pub use place::{Located, locate};

/// Where a manifest is going to run, and where a rule holds. Each place has the rules of those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// In a process that reads lines: what concerns brokers and pods has nothing to act on.
    Laptop,
    /// In a process that reads and writes Kafka topics; flags say where state is.
    Kafka,
    /// In pods: what a pod needs must be declared.
    Cluster,
}

/// One rule, bound to the nodes of a manifest that `path` names.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Path of its nodes from the root; `[]` stands for every element of a list.
    pub path: Cow<'static, str>,
    /// Path within the node that errors name, such as `.kafka.topics`; empty for the node itself.
    pub field: &'static str,
    /// What is wrong and what to do instead.
    pub message: String,
    /// The rule in CEL over `self` (and `oldSelf`); absent when only Rust can check it.
    pub cel: Option<String>,
    /// The rule as a function.
    pub check: Check,
    /// From where on it holds: a rule of [`Place::Laptop`] holds everywhere.
    pub from: Place,
}

/// A rule as a function. A node of another shape than expected passes: the schema refuses it.
#[derive(Clone, Debug)]
pub enum Check {
    /// Nothing may be there.
    Absent,
    /// Only this value works.
    Only(Value),
    /// Exactly one of these members.
    OneOf(&'static [&'static str]),
    /// Anything else about one node.
    Node(fn(&Value) -> bool),
    /// How a node may change: new, then old.
    Change(fn(&Value, &Value) -> bool),
}

impl Check {
    /// Whether `node` meets the rule; rules about a change pass.
    pub fn holds(&self, node: &Value) -> bool {
        match self {
            Self::Absent => false,
            Self::Only(value) => node == value,
            Self::OneOf(members) => node
                .as_object()
                .is_none_or(|object| members.iter().filter(|name| object.contains_key(**name)).count() == 1),
            Self::Node(check) => check(node),
            Self::Change(_) => true,
        }
    }

    /// Whether the change from `old` to `new` meets the rule; other rules pass.
    pub fn holds_for_change(&self, new: &Value, old: &Value) -> bool {
        match self {
            Self::Change(check) => check(new, old),
            Self::Absent | Self::Only(_) | Self::OneOf(_) | Self::Node(_) => true,
        }
    }
}

/// Path of the members of a composite: what is refused of an aggregate is refused of them.
pub const COMPOSITE_MEMBERS: &str = "spec.aggregates[].composite[]";

static RULES: LazyLock<Vec<Rule>> = LazyLock::new(|| {
    let mut rules = simple::rules();
    rules.extend(across::rules());
    rules.extend(security::rules());
    rules.extend(windows::rules());
    rules.extend(change::rules());
    rules
});

/// Every rule.
pub fn rules() -> &'static [Rule] {
    &RULES
}

/// Fields that the API names but this version refuses, by path, with the first place that refuses them.
pub fn not_yet() -> impl Iterator<Item = (&'static str, Place)> {
    simple::not_yet()
}
