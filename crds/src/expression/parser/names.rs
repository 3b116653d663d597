//! Names: constants, variables, values of `let`, and paths into the event. Must not hold operators or calls.

use super::{Parser, Typed};
use crate::expression::Problem;
use crate::expression::kind::Kind;
use crate::expression::lexer::{Lexer, TokenKind};
use crate::expression::node::Node;

/// Words that cannot be names of values.
const KEYWORDS: [&str; 18] = [
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

impl Parser<'_> {
    pub(super) fn word(&mut self, at: usize, word: &str) -> Result<Typed, Problem> {
        match word {
            "true" | "false" => return Ok(Typed::leaf(at, Node::Bool(word == "true"), Kind::Bool)),
            "null" => return Ok(Typed::leaf(at, Node::Null, Kind::Null)),
            _ => {}
        }
        if KEYWORDS.contains(&word) {
            return Err(Problem::new(
                at,
                format!("{word} is a word that CEL reserves; it cannot be a name"),
            ));
        }
        if self.is("(") {
            return self.global_call(at, word);
        }
        if let Some(index) = self.locals.iter().rposition(|local| local == word) {
            return Ok(Typed::leaf(at, Node::Local(index), Kind::Any));
        }
        if word == "event" {
            return self.field(at);
        }
        if let Some(index) = self.names.iter().position(|name| name.name == word) {
            let node = Node::Let(index, word.to_owned());
            return Ok(Typed::leaf(at, node, self.names[index].kind));
        }
        let known: Vec<&str> = self.names.iter().map(|name| name.name.as_str()).collect();
        let known = if known.is_empty() {
            "write event.NAME for a field".to_owned()
        } else {
            format!("write event.NAME for a field; let names so far: {}", known.join(", "))
        };
        Err(Problem::new(at, format!("unknown name {word}; {known}")))
    }

    /// `event` was read: the names and constant indices behind it are a path into the event.
    fn field(&mut self, at: usize) -> Result<Typed, Problem> {
        let mut path = Vec::new();
        loop {
            if self.is(".") {
                // A method ends the path; the member loop goes on with it.
                let mut ahead = Lexer::new_at(&self.lexer);
                ahead.next()?;
                if matches!(ahead.next()?.kind, TokenKind::Symbol("(")) && !path.is_empty() {
                    break;
                }
                self.advance()?;
                path.push(self.selector()?);
            } else if self.is("[") {
                let mut ahead = Lexer::new_at(&self.lexer);
                let part = match ahead.next()?.kind {
                    TokenKind::Int(index) => index.to_string(),
                    TokenKind::Text(name) => name,
                    _ => break,
                };
                if !matches!(ahead.next()?.kind, TokenKind::Symbol("]")) {
                    break;
                }
                self.advance()?;
                self.advance()?;
                self.advance()?;
                path.push(part);
            } else {
                break;
            }
        }
        if path.is_empty() {
            return Err(Problem::new(
                at,
                "event as a whole cannot be used; name a field, such as event.status",
            ));
        }
        Ok(Typed::leaf(at, Node::Field(path), Kind::Any))
    }

    /// A name behind a dot.
    pub(super) fn selector(&mut self) -> Result<String, Problem> {
        match &self.token.kind {
            TokenKind::Word(word) if !["true", "false", "null", "in"].contains(&word.as_str()) => {
                let name = word.clone();
                self.advance()?;
                Ok(name)
            }
            TokenKind::Quoted(name) => {
                let name = name.clone();
                self.advance()?;
                Ok(name)
            }
            _ => Err(self.unexpected("the name of a field (write ['name'] for one that is no plain word)")),
        }
    }
}
