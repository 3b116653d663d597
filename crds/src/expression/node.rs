//! The tree of an expression and its canonical text, which is the same however the expression was spaced and bracketed.
//! Must not hold where in the text a node stood.

use std::fmt;

/// A part of an expression.
#[derive(Clone, Debug, PartialEq)]
pub enum Node {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// A double.
    Double(f64),
    /// A text.
    Text(String),
    /// A field of the event, by the names (or indices) that lead to it; never empty.
    Field(Vec<String>),
    /// `has(event.a.b)`: whether the field is there, be it null. Never empty.
    HasField(Vec<String>),
    /// A value of `let`: its place in the list, and its name.
    Let(usize, String),
    /// A variable of a macro around this node, counted from the outermost.
    Local(usize),
    /// `!a`.
    Not(Box<Node>),
    /// `-a`.
    Negate(Box<Node>),
    /// `a && b && …`; at least two.
    And(Vec<Node>),
    /// `a || b || …`; at least two.
    Or(Vec<Node>),
    /// `a ? b : c`.
    Conditional(Box<[Node; 3]>),
    /// Arithmetic.
    Operation(Operator, Box<[Node; 2]>),
    /// A comparison.
    Compare(Comparison, Box<[Node; 2]>),
    /// `a[b]`.
    Index(Box<[Node; 2]>),
    /// `a.name`.
    Member(Box<Node>, String),
    /// `has(a.name)`.
    HasMember(Box<Node>, String),
    /// A function with its arguments (the receiver of a method first).
    Call(Function, Vec<Node>),
    /// `a.matches('pattern')`; the pattern is a valid one.
    Matches(Box<Node>, String),
    /// `[a, b]`.
    List(Vec<Node>),
    /// `{k: v}`.
    Map(Vec<(Node, Node)>),
    /// A macro over the elements of a list or the keys of a map.
    Comprehension(Box<Comprehension>),
}

/// `range.kind(x, body)` or `range.map(x, condition, body)`.
#[derive(Clone, Debug, PartialEq)]
pub struct Comprehension {
    /// What it does.
    pub kind: Macro,
    /// What it goes over.
    pub range: Node,
    /// Elements that do not meet it are left out; only of [`Macro::Map`].
    pub condition: Option<Node>,
    /// What is asked of each element, or made of it.
    pub body: Node,
    /// Place of its variable: see [`Node::Local`].
    pub local: usize,
}

/// Macros over elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Macro {
    /// Whether every element meets the condition.
    All,
    /// Whether some element does.
    Exists,
    /// Whether exactly one does.
    ExistsOne,
    /// Those that do.
    Filter,
    /// What is made of each.
    Map,
}

/// Arithmetic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// `+`, of texts and lists too.
    Add,
    /// `-`.
    Subtract,
    /// `*`.
    Multiply,
    /// `/`; of integers towards zero.
    Divide,
    /// `%`, of integers.
    Modulo,
}

/// Comparisons.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// `==`.
    Equal,
    /// `!=`.
    NotEqual,
    /// `<`.
    Less,
    /// `<=`.
    LessEqual,
    /// `>`.
    Greater,
    /// `>=`.
    GreaterEqual,
    /// `in`.
    In,
}

/// Functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Function {
    /// Characters of a text, elements of a list, members of a map.
    Size,
    /// Whether a text begins with another.
    StartsWith,
    /// Whether a text ends with another.
    EndsWith,
    /// Whether a text holds another.
    Contains,
    /// ASCII letters made small.
    LowerAscii,
    /// ASCII letters made large.
    UpperAscii,
    /// To an integer.
    Int,
    /// To a double.
    Double,
    /// To a text.
    Text,
    /// To a boolean.
    Bool,
}

impl Operator {
    /// As written.
    pub fn symbol(self) -> &'static str {
        match self {
            Self::Add => "+",
            Self::Subtract => "-",
            Self::Multiply => "*",
            Self::Divide => "/",
            Self::Modulo => "%",
        }
    }
}

impl Comparison {
    /// As written.
    pub fn symbol(self) -> &'static str {
        match self {
            Self::Equal => "==",
            Self::NotEqual => "!=",
            Self::Less => "<",
            Self::LessEqual => "<=",
            Self::Greater => ">",
            Self::GreaterEqual => ">=",
            Self::In => "in",
        }
    }
}

impl Function {
    /// Every function.
    pub const ALL: [Self; 10] = [
        Self::Size,
        Self::StartsWith,
        Self::EndsWith,
        Self::Contains,
        Self::LowerAscii,
        Self::UpperAscii,
        Self::Int,
        Self::Double,
        Self::Text,
        Self::Bool,
    ];

    /// As written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Size => "size",
            Self::StartsWith => "startsWith",
            Self::EndsWith => "endsWith",
            Self::Contains => "contains",
            Self::LowerAscii => "lowerAscii",
            Self::UpperAscii => "upperAscii",
            Self::Int => "int",
            Self::Double => "double",
            Self::Text => "string",
            Self::Bool => "bool",
        }
    }

    /// Arguments it takes, the receiver of a method among them.
    pub fn arguments(self) -> usize {
        match self {
            Self::StartsWith | Self::EndsWith | Self::Contains => 2,
            Self::Size | Self::LowerAscii | Self::UpperAscii | Self::Int | Self::Double | Self::Text | Self::Bool => 1,
        }
    }

    /// Whether it can be written `function(a)`.
    pub fn is_global(self) -> bool {
        matches!(self, Self::Size | Self::Int | Self::Double | Self::Text | Self::Bool)
    }

    /// Whether it can be written `a.function()`.
    pub fn is_method(self) -> bool {
        matches!(
            self,
            Self::Size | Self::StartsWith | Self::EndsWith | Self::Contains | Self::LowerAscii | Self::UpperAscii
        )
    }
}

impl Macro {
    /// As written.
    pub fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Exists => "exists",
            Self::ExistsOne => "exists_one",
            Self::Filter => "filter",
            Self::Map => "map",
        }
    }
}

impl Node {
    /// Calls `visit` for this node and every one below it.
    pub fn walk(&self, visit: &mut impl FnMut(&Node)) {
        visit(self);
        match self {
            Self::Null
            | Self::Bool(_)
            | Self::Int(_)
            | Self::Double(_)
            | Self::Text(_)
            | Self::Field(_)
            | Self::HasField(_)
            | Self::Let(..)
            | Self::Local(_) => {}
            Self::Not(node)
            | Self::Negate(node)
            | Self::Member(node, _)
            | Self::HasMember(node, _)
            | Self::Matches(node, _) => node.walk(visit),
            Self::And(nodes) | Self::Or(nodes) | Self::Call(_, nodes) | Self::List(nodes) => {
                nodes.iter().for_each(|node| node.walk(visit));
            }
            Self::Conditional(nodes) => nodes.iter().for_each(|node| node.walk(visit)),
            Self::Operation(_, nodes) | Self::Compare(_, nodes) | Self::Index(nodes) => {
                nodes.iter().for_each(|node| node.walk(visit));
            }
            Self::Map(entries) => {
                for (key, value) in entries {
                    key.walk(visit);
                    value.walk(visit);
                }
            }
            Self::Comprehension(parts) => {
                parts.range.walk(visit);
                parts.condition.iter().for_each(|node| node.walk(visit));
                parts.body.walk(visit);
            }
        }
    }
}

fn text_literal(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn write_list(out: &mut fmt::Formatter<'_>, nodes: &[Node], between: &str) -> fmt::Result {
    for (index, node) in nodes.iter().enumerate() {
        if index > 0 {
            out.write_str(between)?;
        }
        write!(out, "{node}")?;
    }
    Ok(())
}

/// The canonical text. It is part of the identity of stored state: extend, never change.
impl fmt::Display for Node {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => out.write_str("null"),
            Self::Bool(value) => write!(out, "{value}"),
            Self::Int(value) => write!(out, "{value}"),
            Self::Double(value) => write!(out, "{value:?}"),
            Self::Text(text) => out.write_str(&text_literal(text)),
            Self::Field(path) => write!(out, "event{}", pointer(path)),
            Self::HasField(path) => write!(out, "has(event{})", pointer(path)),
            Self::Let(_, name) => out.write_str(name),
            Self::Local(index) => write!(out, "${index}"),
            Self::Not(node) => write!(out, "!{node}"),
            Self::Negate(node) => write!(out, "-({node})"),
            Self::And(nodes) | Self::Or(nodes) => {
                let symbol = if matches!(self, Self::And(_)) { " && " } else { " || " };
                out.write_str("(")?;
                write_list(out, nodes, symbol)?;
                out.write_str(")")
            }
            Self::Conditional(nodes) => write!(out, "({} ? {} : {})", nodes[0], nodes[1], nodes[2]),
            Self::Operation(operator, nodes) => write!(out, "({} {} {})", nodes[0], operator.symbol(), nodes[1]),
            Self::Compare(comparison, nodes) => write!(out, "({} {} {})", nodes[0], comparison.symbol(), nodes[1]),
            Self::Index(nodes) => write!(out, "{}[{}]", nodes[0], nodes[1]),
            Self::Member(node, name) => write!(out, "{node}[{}]", text_literal(name)),
            Self::HasMember(node, name) => write!(out, "has({node}[{}])", text_literal(name)),
            Self::Call(function, nodes) => {
                write!(out, "{}(", function.name())?;
                write_list(out, nodes, ", ")?;
                out.write_str(")")
            }
            Self::Matches(node, pattern) => write!(out, "matches({node}, {})", text_literal(pattern)),
            Self::List(nodes) => {
                out.write_str("[")?;
                write_list(out, nodes, ", ")?;
                out.write_str("]")
            }
            Self::Map(entries) => {
                out.write_str("{")?;
                for (index, (key, value)) in entries.iter().enumerate() {
                    write!(out, "{}{key}: {value}", if index > 0 { ", " } else { "" })?;
                }
                out.write_str("}")
            }
            Self::Comprehension(parts) => {
                write!(out, "{}.{}(${}, ", parts.range, parts.kind.name(), parts.local)?;
                if let Some(condition) = &parts.condition {
                    write!(out, "{condition}, ")?;
                }
                write!(out, "{})", parts.body)
            }
        }
    }
}

/// JSON pointer of a path.
pub fn pointer(path: &[String]) -> String {
    path.iter()
        .map(|part| format!("/{}", part.replace('~', "~0").replace('/', "~1")))
        .collect()
}
