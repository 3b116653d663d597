//! Members, indices, literals of lists and maps, functions and macros. Must not hold operators.

use super::{Parser, Typed, must_be, pair};
use crate::expression::Problem;
use crate::expression::kind::Kind;
use crate::expression::lexer::TokenKind;
use crate::expression::node::{Comprehension, Function, Macro, Node};

/// Macros by the names that CEL gives them.
const MACROS: [(&str, Macro); 6] = [
    ("all", Macro::All),
    ("exists", Macro::Exists),
    ("exists_one", Macro::ExistsOne),
    ("existsOne", Macro::ExistsOne),
    ("filter", Macro::Filter),
    ("map", Macro::Map),
];

impl Parser<'_> {
    /// A primary with the members, indices and methods behind it.
    pub(super) fn member(&mut self, negative: bool) -> Result<Typed, Problem> {
        let mut value = self.primary(negative)?;
        loop {
            if self.take(".")? {
                let at = self.token.at;
                let name = self.selector()?;
                value = if self.is("(") {
                    self.method(at, &name, value)?
                } else {
                    container(&value, &[Kind::Map], &format!(".{name}"))?;
                    let begin = value.at;
                    self.branch(begin, Kind::Any, vec![value], |mut nodes| {
                        Some(Node::Member(Box::new(nodes.pop()?), name))
                    })?
                };
            } else if self.take("[")? {
                container(&value, &[Kind::Map, Kind::List], "[…]")?;
                let index = self.expression()?;
                self.expect("]")?;
                let begin = value.at;
                value = self.branch(begin, Kind::Any, vec![value, index], |nodes| {
                    Some(Node::Index(pair(nodes)?))
                })?;
            } else if self.is("{") {
                return Err(Problem::new(
                    self.token.at,
                    "messages with fields are not supported; write a map {'name': value}",
                ));
            } else {
                return Ok(value);
            }
        }
    }

    pub(super) fn list(&mut self) -> Result<Typed, Problem> {
        let at = self.advance()?.at;
        let parts = self.elements("]")?;
        self.branch(at, Kind::List, parts, |nodes| Some(Node::List(nodes)))
    }

    pub(super) fn map(&mut self) -> Result<Typed, Problem> {
        let at = self.advance()?.at;
        let mut parts = Vec::new();
        while !self.take("}")? {
            let key = self.expression()?;
            if !matches!(key.kind, Kind::Any | Kind::Text | Kind::Int | Kind::Bool) {
                return Err(Problem::new(key.at, format!("a key of a map cannot be {}", key.kind)));
            }
            self.expect(":")?;
            parts.push(key);
            parts.push(self.expression()?);
            if !self.take(",")? {
                self.expect("}")?;
                break;
            }
        }
        self.branch(at, Kind::Map, parts, |nodes| {
            let mut nodes = nodes.into_iter();
            let mut entries = Vec::new();
            while let (Some(key), Some(value)) = (nodes.next(), nodes.next()) {
                entries.push((key, value));
            }
            Some(Node::Map(entries))
        })
    }

    /// Expressions with commas between up to a closing symbol; a comma behind the last is allowed.
    fn elements(&mut self, close: &str) -> Result<Vec<Typed>, Problem> {
        let mut parts = Vec::new();
        while !self.take(close)? {
            parts.push(self.expression()?);
            if !self.take(",")? {
                self.expect(close)?;
                break;
            }
        }
        Ok(parts)
    }

    /// `name(…)`, at the opening bracket.
    pub(super) fn global_call(&mut self, at: usize, name: &str) -> Result<Typed, Problem> {
        self.expect("(")?;
        let mut arguments = self.elements(")")?;
        match name {
            "has" => return self.has(at, arguments),
            "dyn" if arguments.len() == 1 => {
                let mut value = arguments.remove(0);
                value.kind = Kind::Any;
                return Ok(value);
            }
            "matches" if arguments.len() == 2 => {
                let pattern = arguments.remove(1);
                return self.matches(at, arguments.remove(0), pattern);
            }
            _ => {}
        }
        let function = Function::ALL.into_iter().find(|function| function.name() == name);
        match function {
            Some(function) if function.is_global() => self.call(at, function, arguments),
            Some(_) => Err(Problem::new(at, format!("{name} is a method; write a.{name}(…)"))),
            None => Err(unknown(at, name)),
        }
    }

    /// `value.name(…)`, at the opening bracket.
    fn method(&mut self, at: usize, name: &str, value: Typed) -> Result<Typed, Problem> {
        self.expect("(")?;
        if let Some((_, kind)) = MACROS.into_iter().find(|(known, _)| *known == name) {
            return self.comprehension(at, kind, value);
        }
        let mut arguments = self.elements(")")?;
        if name == "matches" && arguments.len() == 1 {
            return self.matches(at, value, arguments.remove(0));
        }
        let function = Function::ALL.into_iter().find(|function| function.name() == name);
        match function {
            Some(function) if function.is_method() => {
                arguments.insert(0, value);
                self.call(at, function, arguments)
            }
            Some(_) => Err(Problem::new(at, format!("{name} is no method; write {name}(…)"))),
            None => Err(unknown(at, name)),
        }
    }

    fn call(&mut self, at: usize, function: Function, arguments: Vec<Typed>) -> Result<Typed, Problem> {
        let name = function.name();
        if arguments.len() != function.arguments() {
            return Err(Problem::new(at, format!("{name} has a wrong number of arguments")));
        }
        let kinds: Vec<Kind> = arguments.iter().map(|argument| argument.kind).collect();
        let kind = Kind::of_call(function, &kinds).ok_or_else(|| {
            let found: Vec<String> = kinds.iter().map(Kind::to_string).collect();
            Problem::new(at, format!("{name} does not exist for {}", found.join(" and ")))
        })?;
        self.branch(at, kind, arguments, |nodes| Some(Node::Call(function, nodes)))
    }

    fn matches(&mut self, at: usize, value: Typed, pattern: Typed) -> Result<Typed, Problem> {
        must_be(&value, Kind::Text, "what matches looks at")?;
        let Node::Text(text) = pattern.node else {
            return Err(Problem::new(
                pattern.at,
                "the pattern of matches must be a text in quotes, known beforehand",
            ));
        };
        if let Err(error) = super::super::pattern(&text) {
            return Err(Problem::new(pattern.at, format!("the pattern of matches: {error}")));
        }
        self.branch(at, Kind::Bool, vec![value], |mut nodes| {
            Some(Node::Matches(Box::new(nodes.pop()?), text))
        })
    }

    fn has(&mut self, at: usize, mut arguments: Vec<Typed>) -> Result<Typed, Problem> {
        let argument = arguments.pop().filter(|_| arguments.is_empty());
        let Some(argument) = argument else {
            return Err(Problem::new(at, "has takes one field, such as has(event.status)"));
        };
        let depth = argument.depth;
        let node = match argument.node {
            Node::Field(path) => Node::HasField(path),
            Node::Member(node, name) => Node::HasMember(node, name),
            _ => {
                return Err(Problem::new(
                    argument.at,
                    "has takes one field, such as has(event.status)",
                ));
            }
        };
        Ok(Typed {
            node,
            kind: Kind::Bool,
            depth,
            at,
        })
    }

    /// `range.kind(x, …)`, behind the opening bracket.
    fn comprehension(&mut self, at: usize, kind: Macro, range: Typed) -> Result<Typed, Problem> {
        let name = kind.name();
        container(&range, &[Kind::List, Kind::Map], name)?;
        let TokenKind::Word(variable) = self.token.kind.clone() else {
            return Err(self.unexpected(&format!("a variable, as in list.{name}(x, x > 1)")));
        };
        self.advance()?;
        self.expect(",")?;
        self.locals.push(variable);
        let mut arguments = self.elements(")")?;
        self.locals.pop();
        let most = if kind == Macro::Map { 2 } else { 1 };
        if arguments.is_empty() || arguments.len() > most {
            return Err(Problem::new(
                at,
                format!("{name} takes a variable and {most} expression(s)"),
            ));
        }
        let conditional = arguments.len() == 2;
        if kind != Macro::Map || conditional {
            must_be(&arguments[0], Kind::Bool, &format!("the condition of {name}"))?;
        }
        arguments.insert(0, range);
        let result = match kind {
            Macro::All | Macro::Exists | Macro::ExistsOne => Kind::Bool,
            Macro::Filter | Macro::Map => Kind::List,
        };
        let local = self.locals.len();
        self.branch(at, result, arguments, |mut nodes| {
            let body = nodes.pop()?;
            let condition = if conditional { nodes.pop() } else { None };
            Some(Node::Comprehension(Box::new(Comprehension {
                kind,
                range: nodes.pop()?,
                condition,
                body,
                local,
            })))
        })
    }
}

fn container(value: &Typed, kinds: &[Kind], what: &str) -> Result<(), Problem> {
    if kinds.iter().any(|kind| value.kind.fits(*kind)) {
        Ok(())
    } else {
        Err(Problem::new(
            value.at,
            format!("{what} does not exist for {}", value.kind),
        ))
    }
}

fn unknown(at: usize, name: &str) -> Problem {
    let supported: Vec<&str> = ["has", "matches"]
        .into_iter()
        .chain(MACROS.into_iter().map(|(name, _)| name))
        .chain(Function::ALL.map(Function::name))
        .collect();
    Problem::new(
        at,
        format!(
            "the function {name} is not supported; supported are {}",
            supported.join(", ")
        ),
    )
}
