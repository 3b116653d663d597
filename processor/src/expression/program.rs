//! A checked tree → a program whose fields are slots, whose constants are folded and whose patterns are compiled.
//! Must not evaluate.

use std::sync::Arc;

use regex_lite::Regex;
use streamagg_crds::expression::{self, Comparison, Function, Macro, Node, Operator};

use super::value::{Value, find};
use crate::core::json::FieldTree;

/// An expression, ready to be evaluated over the slots of a field tree.
#[derive(Clone, Debug)]
pub struct Program {
    pub(super) root: Code,
}

#[derive(Clone, Debug)]
pub(super) enum Code {
    Constant(Value<'static>),
    Field(usize),
    /// The field, and the field that holds it.
    HasField(usize, Option<usize>),
    Let(usize),
    Local(usize),
    Not(Box<Code>),
    Negate(Box<Code>),
    And(Vec<Code>),
    Or(Vec<Code>),
    Conditional(Box<[Code; 3]>),
    Operation(Operator, Box<[Code; 2]>),
    Compare(Comparison, Box<[Code; 2]>),
    Index(Box<[Code; 2]>),
    HasMember(Box<[Code; 2]>),
    Call(Function, Vec<Code>),
    Matches(Box<Code>, Arc<Regex>),
    List(Vec<Code>),
    Map(Vec<(Code, Code)>),
    Comprehension(Box<ComprehensionCode>),
}

#[derive(Clone, Debug)]
pub(super) struct ComprehensionCode {
    pub kind: Macro,
    pub range: Code,
    pub condition: Option<Code>,
    pub body: Code,
}

impl Program {
    /// Compiles a tree; the fields it uses get slots of `fields`.
    pub fn compile(root: &Node, fields: &mut FieldTree) -> Self {
        Self {
            root: compile(root, fields),
        }
    }
}

fn slot(path: &[String], fields: &mut FieldTree) -> usize {
    fields.add(&expression::pointer(path))
}

fn compile(node: &Node, fields: &mut FieldTree) -> Code {
    let mut one = |node: &Node| Box::new(compile(node, fields));
    match node {
        Node::Null => Code::Constant(Value::Null),
        Node::Bool(value) => Code::Constant(Value::Bool(*value)),
        Node::Int(value) => Code::Constant(Value::Int(*value)),
        Node::Double(value) => Code::Constant(Value::Double(*value)),
        Node::Text(text) => Code::Constant(Value::text(text.clone())),
        Node::Field(path) => Code::Field(fields.add_whole(&expression::pointer(path))),
        Node::HasField(path) => {
            let parent = path
                .split_last()
                .map(|(_, parent)| parent)
                .filter(|parent| !parent.is_empty());
            Code::HasField(slot(path, fields), parent.map(|parent| slot(parent, fields)))
        }
        Node::Let(index, _) => Code::Let(*index),
        Node::Local(index) => Code::Local(*index),
        Node::Not(node) => Code::Not(one(node)),
        Node::Negate(node) => Code::Negate(one(node)),
        Node::And(nodes) => Code::And(all(nodes, fields)),
        Node::Or(nodes) => Code::Or(all(nodes, fields)),
        Node::Conditional(nodes) => {
            let [condition, yes, no] = nodes.as_ref();
            Code::Conditional(Box::new([*one(condition), *one(yes), *one(no)]))
        }
        Node::Operation(operator, nodes) => Code::Operation(*operator, two(nodes, fields)),
        Node::Compare(comparison, nodes) => Code::Compare(*comparison, two(nodes, fields)),
        Node::Index(nodes) => Code::Index(two(nodes, fields)),
        Node::Member(node, name) => Code::Index(Box::new([*one(node), Code::Constant(Value::text(name.clone()))])),
        Node::HasMember(node, name) => {
            Code::HasMember(Box::new([*one(node), Code::Constant(Value::text(name.clone()))]))
        }
        Node::Call(function, nodes) => Code::Call(*function, all(nodes, fields)),
        Node::Matches(node, pattern) => match expression::pattern(pattern) {
            Ok(regex) => Code::Matches(one(node), Arc::new(regex)),
            // The checker compiled the same pattern, so this is never reached; null makes the event a dead letter.
            Err(_) => Code::Not(Box::new(Code::Constant(Value::Null))),
        },
        Node::List(nodes) => fold_list(all(nodes, fields)),
        Node::Map(entries) => fold_map(
            entries
                .iter()
                .map(|(key, value)| (compile(key, fields), compile(value, fields)))
                .collect(),
        ),
        Node::Comprehension(parts) => Code::Comprehension(Box::new(ComprehensionCode {
            kind: parts.kind,
            range: compile(&parts.range, fields),
            condition: parts.condition.as_ref().map(|node| compile(node, fields)),
            body: compile(&parts.body, fields),
        })),
    }
}

fn all(nodes: &[Node], fields: &mut FieldTree) -> Vec<Code> {
    nodes.iter().map(|node| compile(node, fields)).collect()
}

fn two(nodes: &[Node; 2], fields: &mut FieldTree) -> Box<[Code; 2]> {
    Box::new([compile(&nodes[0], fields), compile(&nodes[1], fields)])
}

fn constant(code: &Code) -> Option<Value<'static>> {
    match code {
        Code::Constant(value) => Some(value.clone()),
        _ => None,
    }
}

/// `event.x in ['a', 'b']` must not build its list for every event.
fn fold_list(codes: Vec<Code>) -> Code {
    match codes.iter().map(constant).collect::<Option<Vec<_>>>() {
        Some(values) => Code::Constant(Value::List(Arc::from(values))),
        None => Code::List(codes),
    }
}

fn fold_map(codes: Vec<(Code, Code)>) -> Code {
    let mut entries: Vec<(Value<'static>, Value<'static>)> = Vec::new();
    for (key, value) in &codes {
        match (constant(key), constant(value)) {
            // A key twice is an error of the evaluation.
            (Some(key), Some(value)) if find(&entries, &key).is_none() => entries.push((key, value)),
            (_, _) => return Code::Map(codes),
        }
    }
    Code::Constant(Value::Map(Arc::from(entries)))
}
