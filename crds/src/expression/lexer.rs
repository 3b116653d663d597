//! Text of an expression → tokens. Must not know the grammar.

use super::Problem;

/// A token and where it begins.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Token {
    pub at: usize,
    pub kind: TokenKind,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum TokenKind {
    /// Magnitude of an integer; a minus before it is the parser's.
    Int(u64),
    Double(f64),
    Text(String),
    /// A word that is no keyword.
    Word(String),
    /// A name in backticks; stands behind a dot only.
    Quoted(String),
    Symbol(&'static str),
    End,
}

/// Longest first, so that `<=` is not read as `<`.
const SYMBOLS: [&str; 25] = [
    "&&", "||", "==", "!=", "<=", ">=", "<", ">", "!", "+", "-", "*", "/", "%", "?", ":", ",", ".", "(", ")", "[", "]",
    "{", "}", "=",
];

pub(super) struct Lexer<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Lexer<'a> {
    pub fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// Another lexer that stands where this one does, to look ahead.
    pub fn new_at(other: &Self) -> Self {
        Self {
            text: other.text,
            at: other.at,
        }
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn skip_space(&mut self) {
        loop {
            let rest = self.rest();
            let trimmed = rest.trim_start_matches([' ', '\t', '\n', '\r', '\u{c}']);
            self.at += rest.len() - trimmed.len();
            if !trimmed.starts_with("//") {
                return;
            }
            self.at += trimmed.find('\n').unwrap_or(trimmed.len());
        }
    }

    /// The next token; [`TokenKind::End`] at the end, again and again.
    pub fn next(&mut self) -> Result<Token, Problem> {
        self.skip_space();
        let at = self.at;
        let rest = self.rest();
        let Some(first) = rest.chars().next() else {
            return Ok(Token {
                at,
                kind: TokenKind::End,
            });
        };
        let second_is_digit = rest.as_bytes().get(1).is_some_and(u8::is_ascii_digit);
        let kind = if first.is_ascii_digit() || (first == '.' && second_is_digit) {
            self.number()?
        } else if matches!(first, '"' | '\'') {
            self.string(false)?
        } else if first == '`' {
            self.quoted()?
        } else if first.is_ascii_alphabetic() || first == '_' {
            self.word()?
        } else {
            let symbol = SYMBOLS.into_iter().find(|symbol| rest.starts_with(symbol));
            let symbol = symbol.ok_or_else(|| Problem::new(at, format!("unexpected character {first:?}")))?;
            if symbol == "=" {
                return Err(Problem::new(at, "found =; a comparison is written =="));
            }
            self.at += symbol.len();
            TokenKind::Symbol(symbol)
        };
        Ok(Token { at, kind })
    }

    fn word(&mut self) -> Result<TokenKind, Problem> {
        let rest = self.rest();
        let len = rest
            .find(|next: char| !next.is_ascii_alphanumeric() && next != '_')
            .unwrap_or(rest.len());
        let word = &rest[..len];
        let prefixes = matches!(
            word,
            "r" | "R" | "b" | "B" | "br" | "bR" | "Br" | "BR" | "rb" | "rB" | "Rb" | "RB"
        );
        if prefixes && rest[len..].starts_with(['"', '\'']) {
            if word.contains(['b', 'B']) {
                return Err(Problem::new(self.at, "bytes are not supported; write a text without b"));
            }
            self.at += len;
            return self.string(true);
        }
        self.at += len;
        Ok(TokenKind::Word(word.to_owned()))
    }

    fn quoted(&mut self) -> Result<TokenKind, Problem> {
        let body = &self.rest()[1..];
        let end = body.find(['`', '\n']);
        match end {
            Some(end) if end > 0 && body[end..].starts_with('`') => {
                self.at += end + 2;
                Ok(TokenKind::Quoted(body[..end].to_owned()))
            }
            _ => Err(Problem::new(self.at, "a name in backticks has no end")),
        }
    }

    fn number(&mut self) -> Result<TokenKind, Problem> {
        let at = self.at;
        let rest = self.rest();
        let bytes = rest.as_bytes();
        let digits = |from: usize| from + bytes[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        if let Some(hexadecimal) = rest.strip_prefix("0x").or_else(|| rest.strip_prefix("0X")) {
            let len = hexadecimal
                .find(|next: char| !next.is_ascii_hexdigit())
                .unwrap_or(hexadecimal.len());
            let value = u64::from_str_radix(&hexadecimal[..len], 16)
                .map_err(|_| Problem::new(at, "not a hexadecimal number of at most 64 bits"))?;
            self.at += 2 + len;
            return self.number_end(at, TokenKind::Int(value));
        }
        let mut end = digits(0);
        let mut is_double = false;
        if bytes.get(end) == Some(&b'.') && bytes.get(end + 1).is_some_and(u8::is_ascii_digit) {
            end = digits(end + 1);
            is_double = true;
        }
        if matches!(bytes.get(end), Some(b'e' | b'E')) {
            let sign = usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
            if bytes.get(end + 1 + sign).is_some_and(u8::is_ascii_digit) {
                end = digits(end + 1 + sign);
                is_double = true;
            }
        }
        let token = &rest[..end];
        self.at += end;
        let kind = if is_double {
            let value: f64 = token
                .parse()
                .map_err(|_| Problem::new(at, format!("{token} is no number")))?;
            if !value.is_finite() {
                return Err(Problem::new(at, format!("{token} is beyond the range of a double")));
            }
            TokenKind::Double(value)
        } else {
            let value = token.parse().map_err(|_| {
                Problem::new(
                    at,
                    format!("{token} is beyond the range of an integer; write {token}.0"),
                )
            })?;
            TokenKind::Int(value)
        };
        self.number_end(at, kind)
    }

    fn number_end(&self, at: usize, kind: TokenKind) -> Result<TokenKind, Problem> {
        match self.rest().chars().next() {
            Some('u' | 'U') => Err(Problem::new(
                at,
                "unsigned integers are not supported; write the number without u",
            )),
            Some(next) if next.is_ascii_alphanumeric() || next == '_' => {
                Err(Problem::new(self.at, format!("unexpected {next:?} behind a number")))
            }
            _ => Ok(kind),
        }
    }

    fn string(&mut self, raw: bool) -> Result<TokenKind, Problem> {
        let at = self.at;
        let rest = self.rest();
        let quote = if rest.starts_with("\"\"\"") {
            "\"\"\""
        } else if rest.starts_with("'''") {
            "'''"
        } else {
            &rest[..1]
        };
        self.at += quote.len();
        let mut text = String::new();
        loop {
            let rest = self.rest();
            if rest.starts_with(quote) {
                self.at += quote.len();
                return Ok(TokenKind::Text(text));
            }
            match rest.chars().next() {
                Some('\\') if !raw => text.push(self.escape()?),
                Some('\n') if quote.len() == 1 => return Err(Problem::new(at, "a text has no closing quote")),
                Some(next) => {
                    text.push(next);
                    self.at += next.len_utf8();
                }
                None => return Err(Problem::new(at, "a text has no closing quote")),
            }
        }
    }

    fn escape(&mut self) -> Result<char, Problem> {
        let at = self.at;
        let rest = &self.rest()[1..];
        let numeric = |digits: &str, radix: u32, len: usize| {
            let value = digits
                .get(..len)
                .filter(|digits| digits.chars().all(|digit| digit.is_digit(radix)))
                .and_then(|digits| u32::from_str_radix(digits, radix).ok())
                .and_then(char::from_u32);
            value.ok_or_else(|| Problem::new(at, "not a character in an escape"))
        };
        let (character, len) = match rest.chars().next() {
            Some(plain @ ('\\' | '\'' | '"' | '`' | '?')) => (plain, 1),
            Some('a') => ('\u{7}', 1),
            Some('b') => ('\u{8}', 1),
            Some('f') => ('\u{c}', 1),
            Some('n') => ('\n', 1),
            Some('r') => ('\r', 1),
            Some('t') => ('\t', 1),
            Some('v') => ('\u{b}', 1),
            Some('x' | 'X') => (numeric(&rest[1..], 16, 2)?, 3),
            Some('u') => (numeric(&rest[1..], 16, 4)?, 5),
            Some('U') => (numeric(&rest[1..], 16, 8)?, 9),
            Some('0'..='3') => (numeric(rest, 8, 3)?, 3),
            _ => {
                return Err(Problem::new(
                    at,
                    "unknown escape; write \\\\ for a backslash, or r'…' for a raw text",
                ));
            }
        };
        self.at += 1 + len;
        Ok(character)
    }
}
