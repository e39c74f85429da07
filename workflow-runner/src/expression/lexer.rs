//! From text to tokens.

use super::ast::{Comparison, Operator, continues_name, is_name, starts_name};
use super::scope::shorten;
use super::{ParseError, Value, number};

/// A piece of an expression.
#[derive(Clone, Debug)]
pub(super) enum Token<'t> {
    /// Null, a boolean, a number or text.
    Literal(Value),
    /// The name of a context or a function.
    Name(&'t str),
    /// `(`
    Open,
    /// `)`
    Close,
    /// `[`
    OpenIndex,
    /// `]`
    CloseIndex,
    /// `,`
    Comma,
    /// `.`
    Dot,
    /// `*`
    Star,
    /// `!`
    Not,
    /// An operator between two values.
    Operator(Operator),
    /// Nothing is left.
    End,
}

/// What follows a dot.
pub(super) enum Property<'t> {
    /// A name.
    Name(&'t str),
    /// `*`
    Star,
}

/// Reads tokens from the front of a text.
pub(super) struct Lexer<'t> {
    rest: &'t str,
    /// Characters before `rest`.
    offset: usize,
}

impl<'t> Lexer<'t> {
    /// Starts at the front of a text.
    pub(super) fn new(text: &'t str) -> Self {
        Self { rest: text, offset: 0 }
    }

    /// The next token and the characters before it. Where a value is expected, a dot begins a
    /// number.
    pub(super) fn next(&mut self, value_expected: bool) -> Result<(usize, Token<'t>), ParseError> {
        self.skip_space();
        let offset = self.offset;
        let Some(first) = self.rest.chars().next() else {
            return Ok((offset, Token::End));
        };
        let token = match first {
            '(' => self.symbol(1, Token::Open),
            ')' => self.symbol(1, Token::Close),
            '[' => self.symbol(1, Token::OpenIndex),
            ']' => self.symbol(1, Token::CloseIndex),
            ',' => self.symbol(1, Token::Comma),
            '*' => self.symbol(1, Token::Star),
            '.' if !value_expected => self.symbol(1, Token::Dot),
            '!' | '<' | '>' | '=' | '&' | '|' => self.operator()?,
            '\'' => self.string()?,
            '0'..='9' | '.' => self.number()?,
            '+' | '-' if value_expected => self.number()?,
            c if starts_name(c) => self.name(),
            c => return Err(ParseError::new(offset, unexpected_character(c, self.rest))),
        };
        Ok((offset, token))
    }

    /// What stands after a dot, and the characters before it.
    pub(super) fn property(&mut self) -> Result<(usize, Property<'t>), ParseError> {
        self.skip_space();
        let offset = self.offset;
        if self.take('*') {
            return Ok((offset, Property::Star));
        }
        if self.rest.starts_with(starts_name) {
            return Ok((offset, Property::Name(self.take_while(continues_name))));
        }
        let hint = "a name begins with a letter or \"_\"; write other keys as ['key']";
        Err(ParseError::new(offset, format!("a name or \"*\" is missing after \".\": {hint}")))
    }

    /// Takes this character if it comes next after white space.
    pub(super) fn take(&mut self, c: char) -> bool {
        self.skip_space();
        let found = self.rest.starts_with(c);
        if found {
            self.advance(c.len_utf8());
        }
        found
    }

    /// Takes `*]` if it comes next.
    pub(super) fn take_star_index(&mut self) -> bool {
        let Some(after_star) = self.rest.trim_start().strip_prefix('*') else { return false };
        let Some(after) = after_star.trim_start().strip_prefix(']') else { return false };
        self.advance(self.rest.len() - after.len());
        true
    }

    /// Whether this character comes next after white space.
    pub(super) fn is_next(&self, c: char) -> bool {
        self.rest.trim_start().starts_with(c)
    }

    fn skip_space(&mut self) {
        self.advance(self.rest.len() - self.rest.trim_start().len());
    }

    /// Goes forward by this many bytes, which end at the border of a character.
    fn advance(&mut self, bytes: usize) -> &'t str {
        let (taken, rest) = self.rest.split_at(bytes);
        self.offset += taken.chars().count();
        self.rest = rest;
        taken
    }

    fn take_while(&mut self, matches: impl Fn(char) -> bool) -> &'t str {
        let end = self.rest.find(|c| !matches(c)).unwrap_or(self.rest.len());
        self.advance(end)
    }

    fn symbol(&mut self, bytes: usize, token: Token<'t>) -> Token<'t> {
        self.advance(bytes);
        token
    }

    fn operator(&mut self) -> Result<Token<'t>, ParseError> {
        let operators = [
            Operator::Or,
            Operator::And,
            Operator::Compare(Comparison::Equal),
            Operator::Compare(Comparison::NotEqual),
            // The longer ones before their beginnings.
            Operator::Compare(Comparison::LessOrEqual),
            Operator::Compare(Comparison::Less),
            Operator::Compare(Comparison::GreaterOrEqual),
            Operator::Compare(Comparison::Greater),
        ];
        let found = operators.iter().find(|operator| self.rest.starts_with(operator.symbol()));
        if let Some(operator) = found {
            return Ok(self.symbol(operator.symbol().len(), Token::Operator(*operator)));
        }
        let hint = match self.rest.as_bytes().first() {
            Some(b'!') => return Ok(self.symbol(1, Token::Not)),
            Some(b'&') => "\"&\" is not an operator: write && for \"and\"",
            Some(b'|') => "\"|\" is not an operator: write || for \"or\"",
            _ => "\"=\" is not an operator: write == to compare",
        };
        Err(ParseError::new(self.offset, hint))
    }

    fn string(&mut self) -> Result<Token<'t>, ParseError> {
        let start = self.offset;
        self.advance(1);
        let mut text = String::new();
        loop {
            let Some(end) = self.rest.find('\'') else {
                return Err(ParseError::new(start, "the text that begins here has no closing '"));
            };
            let part = self.advance(end);
            self.advance(1);
            if !self.rest.starts_with('\'') {
                if text.is_empty() {
                    return Ok(Token::Literal(Value::text(part)));
                }
                text.push_str(part);
                return Ok(Token::Literal(Value::from(text)));
            }
            text.push_str(part);
            text.push('\'');
            self.advance(1);
        }
    }

    fn number(&mut self) -> Result<Token<'t>, ParseError> {
        let start = self.offset;
        let text = self.take_while(|c| c == '.' || !ends_token(c));
        let number = number::parse(text);
        if !number.is_nan() {
            return Ok(Token::Literal(Value::Number(number)));
        }
        let hint = if text.trim_start_matches(['+', '-']).contains(['+', '-', '*', '/', '%']) {
            NO_ARITHMETIC
        } else {
            "numbers are written 1, -2.5, 1e3, 0xff or 0o17, and text in single quotes"
        };
        Err(ParseError::new(start, format!("{:?} is not a number: {hint}", shorten(text))))
    }

    fn name(&mut self) -> Token<'t> {
        let name = self.take_while(continues_name);
        debug_assert!(is_name(name));
        match name {
            "null" => Token::Literal(Value::Null),
            "true" => Token::Literal(Value::Bool(true)),
            "false" => Token::Literal(Value::Bool(false)),
            "NaN" => Token::Literal(Value::Number(f64::NAN)),
            "Infinity" => Token::Literal(Value::Number(f64::INFINITY)),
            name => Token::Name(name),
        }
    }
}

/// Said where someone calculates.
const NO_ARITHMETIC: &str = "there is no arithmetic in expressions";

/// Whether a number ends before this character.
fn ends_token(c: char) -> bool {
    c.is_whitespace() || "([]),.!<>=&|'\"".contains(c)
}

/// What to say about a character that begins no token.
fn unexpected_character(c: char, rest: &str) -> String {
    match c {
        '"' => String::from("text stands in single quotes, as in 'main', not in double quotes"),
        '+' | '-' | '/' | '%' => format!("unexpected {c:?}: {NO_ARITHMETIC}"),
        '$' if rest.starts_with("${{") => {
            String::from("an expression cannot contain another ${{ }}: write its content alone")
        }
        '?' => String::from("unexpected '?': write condition && value || other"),
        c => format!("unexpected character {c:?}"),
    }
}
