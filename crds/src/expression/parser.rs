//! Tokens → checked tree: the grammar of CEL, with names and kinds judged as they are read.
//! Must not recurse deeper than [`DEPTH_MAX`] allows.

mod calls;
mod names;

use super::kind::Kind;
use super::lexer::{Lexer, Token, TokenKind};
use super::node::{Comparison, Node, Operator};
use super::{DEPTH_MAX, Expression, LENGTH_MAX, Name, Problem};

/// A node with what is known of it.
#[derive(Debug)]
struct Typed {
    node: Node,
    kind: Kind,
    depth: usize,
    /// Where it begins.
    at: usize,
}

impl Typed {
    fn leaf(at: usize, node: Node, kind: Kind) -> Self {
        Self {
            node,
            kind,
            depth: 1,
            at,
        }
    }
}

struct Parser<'a> {
    lexer: Lexer<'a>,
    token: Token,
    names: &'a [Name],
    /// Variables of the macros around.
    locals: Vec<String>,
    nesting: usize,
}

pub(super) fn parse(text: &str, names: &[Name]) -> Result<Expression, Problem> {
    if text.chars().count() > LENGTH_MAX {
        return Err(Problem::new(0, format!("longer than {LENGTH_MAX} characters")));
    }
    let mut lexer = Lexer::new(text);
    let token = lexer.next()?;
    let mut parser = Parser {
        lexer,
        token,
        names,
        locals: Vec::new(),
        nesting: 0,
    };
    let root = parser.expression()?;
    match &parser.token.kind {
        TokenKind::End => Ok(Expression {
            root: root.node,
            kind: root.kind,
        }),
        _ => Err(parser.unexpected("the end of the expression")),
    }
}

impl Parser<'_> {
    fn advance(&mut self) -> Result<Token, Problem> {
        let next = self.lexer.next()?;
        Ok(std::mem::replace(&mut self.token, next))
    }

    fn is(&self, symbol: &str) -> bool {
        matches!(self.token.kind, TokenKind::Symbol(found) if found == symbol)
    }

    /// Takes a symbol if it is next.
    fn take(&mut self, symbol: &str) -> Result<bool, Problem> {
        let found = self.is(symbol);
        if found {
            self.advance()?;
        }
        Ok(found)
    }

    fn expect(&mut self, symbol: &str) -> Result<(), Problem> {
        if self.take(symbol)? {
            Ok(())
        } else {
            Err(self.unexpected(symbol))
        }
    }

    fn unexpected(&self, expected: &str) -> Problem {
        let found = match &self.token.kind {
            TokenKind::Int(number) => number.to_string(),
            TokenKind::Double(number) => format!("{number:?}"),
            TokenKind::Text(_) => "a text".to_owned(),
            TokenKind::Word(word) => word.clone(),
            TokenKind::Quoted(name) => format!("`{name}`"),
            TokenKind::Symbol(symbol) => (*symbol).to_owned(),
            TokenKind::End => "the end of the expression".to_owned(),
        };
        Problem::new(self.token.at, format!("found {found}; expected {expected}"))
    }

    fn expression(&mut self) -> Result<Typed, Problem> {
        self.nesting += 1;
        if self.nesting > DEPTH_MAX {
            return Err(Problem::new(self.token.at, format!("nested deeper than {DEPTH_MAX}")));
        }
        let result = self.conditional();
        self.nesting -= 1;
        result
    }

    fn conditional(&mut self) -> Result<Typed, Problem> {
        let condition = self.junction(true)?;
        if !self.take("?")? {
            return Ok(condition);
        }
        must_be(&condition, Kind::Bool, "the condition before ?")?;
        let yes = self.junction(true)?;
        self.expect(":")?;
        let no = self.expression()?;
        let (kind, at) = (yes.kind.or(no.kind), condition.at);
        self.branch(at, kind, vec![condition, yes, no], |nodes| {
            let [condition, yes, no] = <[Node; 3]>::try_from(nodes).ok()?;
            Some(Node::Conditional(Box::new([condition, yes, no])))
        })
    }

    /// `a || b || …`, or one level down `a && b && …`: flat, so that long ones are not deep.
    fn junction(&mut self, or: bool) -> Result<Typed, Problem> {
        let symbol = if or { "||" } else { "&&" };
        let first = if or { self.junction(false)? } else { self.relation()? };
        if !self.is(symbol) {
            return Ok(first);
        }
        let at = first.at;
        let mut parts = vec![first];
        while self.take(symbol)? {
            parts.push(if or { self.junction(false)? } else { self.relation()? });
        }
        for part in &parts {
            must_be(part, Kind::Bool, &format!("a side of {symbol}"))?;
        }
        self.branch(at, Kind::Bool, parts, |nodes| {
            Some(if or { Node::Or(nodes) } else { Node::And(nodes) })
        })
    }

    fn relation(&mut self) -> Result<Typed, Problem> {
        let mut left = self.sum()?;
        while let Some(comparison) = self.comparison() {
            let at = self.advance()?.at;
            let right = self.sum()?;
            let fits = match comparison {
                Comparison::Equal | Comparison::NotEqual => true,
                Comparison::In => matches!(right.kind, Kind::List | Kind::Map | Kind::Any),
                Comparison::Less | Comparison::LessEqual | Comparison::Greater | Comparison::GreaterEqual => {
                    Kind::can_be_ordered(left.kind, right.kind)
                }
            };
            if !fits {
                return Err(no_overload(at, comparison.symbol(), left.kind, right.kind));
            }
            let begin = left.at;
            left = self.branch(begin, Kind::Bool, vec![left, right], |nodes| {
                Some(Node::Compare(comparison, pair(nodes)?))
            })?;
        }
        Ok(left)
    }

    fn comparison(&self) -> Option<Comparison> {
        match &self.token.kind {
            TokenKind::Symbol("==") => Some(Comparison::Equal),
            TokenKind::Symbol("!=") => Some(Comparison::NotEqual),
            TokenKind::Symbol("<") => Some(Comparison::Less),
            TokenKind::Symbol("<=") => Some(Comparison::LessEqual),
            TokenKind::Symbol(">") => Some(Comparison::Greater),
            TokenKind::Symbol(">=") => Some(Comparison::GreaterEqual),
            TokenKind::Word(word) if word == "in" => Some(Comparison::In),
            _ => None,
        }
    }

    fn sum(&mut self) -> Result<Typed, Problem> {
        let mut left = self.product()?;
        loop {
            let operator = match self.token.kind {
                TokenKind::Symbol("+") => Operator::Add,
                TokenKind::Symbol("-") => Operator::Subtract,
                _ => return Ok(left),
            };
            let at = self.advance()?.at;
            let right = self.product()?;
            left = self.operation(operator, at, left, right)?;
        }
    }

    fn product(&mut self) -> Result<Typed, Problem> {
        let mut left = self.unary()?;
        loop {
            let operator = match self.token.kind {
                TokenKind::Symbol("*") => Operator::Multiply,
                TokenKind::Symbol("/") => Operator::Divide,
                TokenKind::Symbol("%") => Operator::Modulo,
                _ => return Ok(left),
            };
            let at = self.advance()?.at;
            let right = self.unary()?;
            left = self.operation(operator, at, left, right)?;
        }
    }

    fn operation(&mut self, operator: Operator, at: usize, left: Typed, right: Typed) -> Result<Typed, Problem> {
        let kind = Kind::of_operation(operator, left.kind, right.kind)
            .ok_or_else(|| no_overload(at, operator.symbol(), left.kind, right.kind))?;
        let begin = left.at;
        self.branch(begin, kind, vec![left, right], |nodes| {
            Some(Node::Operation(operator, pair(nodes)?))
        })
    }

    fn unary(&mut self) -> Result<Typed, Problem> {
        let at = self.token.at;
        let mut nots = 0usize;
        while self.take("!")? {
            nots += 1;
        }
        let mut minuses = 0usize;
        while nots == 0 && self.take("-")? {
            minuses += 1;
        }
        let folded = matches!(self.token.kind, TokenKind::Int(_) | TokenKind::Double(_));
        let operand = self.member(minuses % 2 == 1)?;
        if nots > 0 {
            must_be(&operand, Kind::Bool, "what follows !")?;
            let even = nots.is_multiple_of(2);
            // `!!a` is kept as two, so that `a` must be a boolean when it is evaluated.
            return self.branch(at, Kind::Bool, vec![operand], |mut nodes| {
                let not = Node::Not(Box::new(nodes.pop()?));
                Some(if even { Node::Not(Box::new(not)) } else { not })
            });
        }
        if minuses == 0 || folded {
            return Ok(Typed { at, ..operand });
        }
        if !operand.kind.may_be_number() {
            return Err(Problem::new(at, format!("- of {} does not exist", operand.kind)));
        }
        let (kind, even) = (operand.kind, minuses.is_multiple_of(2));
        self.branch(at, kind, vec![operand], |mut nodes| {
            let negated = Node::Negate(Box::new(nodes.pop()?));
            Some(if even { Node::Negate(Box::new(negated)) } else { negated })
        })
    }

    fn primary(&mut self, negative: bool) -> Result<Typed, Problem> {
        let at = self.token.at;
        match self.token.kind.clone() {
            TokenKind::Int(magnitude) => {
                self.advance()?;
                let value = if negative {
                    -i128::from(magnitude)
                } else {
                    i128::from(magnitude)
                };
                let value = i64::try_from(value).map_err(|_| {
                    Problem::new(
                        at,
                        format!("{value} is beyond the range of an integer; write {value}.0"),
                    )
                })?;
                Ok(Typed::leaf(at, Node::Int(value), Kind::Int))
            }
            TokenKind::Double(value) => {
                self.advance()?;
                let value = if negative { -value } else { value };
                Ok(Typed::leaf(at, Node::Double(value), Kind::Double))
            }
            TokenKind::Text(text) => {
                self.advance()?;
                Ok(Typed::leaf(at, Node::Text(text), Kind::Text))
            }
            TokenKind::Word(word) => {
                self.advance()?;
                self.word(at, &word)
            }
            TokenKind::Symbol("(") => {
                self.advance()?;
                let inner = self.expression()?;
                self.expect(")")?;
                Ok(inner)
            }
            TokenKind::Symbol("[") => self.list(),
            TokenKind::Symbol("{") => self.map(),
            TokenKind::Symbol(_) | TokenKind::Quoted(_) | TokenKind::End => {
                Err(self.unexpected("a value, such as event.status, 400 or 'text'"))
            }
        }
    }

    /// Puts a node over others and minds the depth.
    fn branch(
        &self,
        at: usize,
        kind: Kind,
        parts: Vec<Typed>,
        build: impl FnOnce(Vec<Node>) -> Option<Node>,
    ) -> Result<Typed, Problem> {
        let depth = 1 + parts.iter().map(|part| part.depth).max().unwrap_or(0);
        let node = build(parts.into_iter().map(|part| part.node).collect());
        match node {
            Some(node) if depth <= DEPTH_MAX => Ok(Typed { node, kind, depth, at }),
            _ => Err(Problem::new(
                at,
                format!("has more than {DEPTH_MAX} operations in a row or nested; split it with let"),
            )),
        }
    }
}

fn pair(nodes: Vec<Node>) -> Option<Box<[Node; 2]>> {
    let [left, right] = <[Node; 2]>::try_from(nodes).ok()?;
    Some(Box::new([left, right]))
}

fn must_be(typed: &Typed, kind: Kind, what: &str) -> Result<(), Problem> {
    if typed.kind.fits(kind) {
        Ok(())
    } else {
        Err(Problem::new(
            typed.at,
            format!("{what} is {}; expected {kind}", typed.kind),
        ))
    }
}

fn no_overload(at: usize, symbol: &str, left: Kind, right: Kind) -> Problem {
    Problem::new(at, format!("{symbol} does not exist between {left} and {right}"))
}
