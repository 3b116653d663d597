//! Expressions of a manifest: CEL over `event` and the names of `let`, read, checked and given a canonical text.
//! Must not evaluate them: that is the processor's part.
//!
//! The parser is our own: a manifest comes from anybody, and the parser of the `cel` crate overflows the stack of a
//! thread at some twenty nested parentheses. Here nesting, length and depth are bounded, and whatever this version does
//! not support is refused by name and place before anything runs.

mod kind;
mod lexer;
mod manifest;
mod node;
mod parser;

pub use kind::Kind;
pub(crate) use manifest::check as check_manifest;
pub use node::{Comparison, Comprehension, Function, Macro, Node, Operator, pointer};

/// Longest expression, characters; the schema says the same.
pub const LENGTH_MAX: usize = 4096;
/// Deepest nesting of an expression, in the text and in the tree.
pub const DEPTH_MAX: usize = 48;

/// Largest compiled pattern, bytes.
const PATTERN_SIZE_MAX: usize = 256 << 10;

/// A checked expression.
#[derive(Clone, Debug, PartialEq)]
pub struct Expression {
    /// The tree.
    pub root: Node,
    /// What it gives, as far as that is known before an event is seen.
    pub kind: Kind,
}

/// What is wrong with an expression, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message} (line {line}, column {column})")]
pub struct ExpressionError {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What was found and what would be right.
    pub message: String,
}

/// A name of `let` that an expression may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// The name.
    pub name: String,
    /// What it gives.
    pub kind: Kind,
}

/// Reads and checks an expression that may use `names`.
///
/// # Errors
/// The first thing wrong with it.
pub fn compile(text: &str, names: &[Name]) -> Result<Expression, ExpressionError> {
    parser::parse(text, names).map_err(|problem| {
        let (line, column) = place(text, problem.at);
        ExpressionError {
            line,
            column,
            message: problem.message,
        }
    })
}

/// The compiled pattern of a `matches`: linear in the text it looks at, and of bounded size.
///
/// # Errors
/// What is wrong with it.
pub fn pattern(text: &str) -> Result<regex_lite::Regex, String> {
    regex_lite::RegexBuilder::new(text)
        .size_limit(PATTERN_SIZE_MAX)
        .build()
        .map_err(|error| error.to_string())
}

/// Line and column of a byte offset.
fn place(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (
        before.matches('\n').count() + 1,
        before[line_start..].chars().count() + 1,
    )
}

/// Something wrong at a byte of the text.
#[derive(Clone, Debug)]
struct Problem {
    at: usize,
    message: String,
}

impl Problem {
    fn new(at: usize, message: impl Into<String>) -> Self {
        Self {
            at,
            message: message.into(),
        }
    }
}

#[cfg(test)]
mod tests;
