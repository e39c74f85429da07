//! The expressions that the simulated server evaluates: those of `runs-on`, names and concurrency
//! groups, and on newer servers the `if` of jobs.
//!
//! It is a small part of the language, and it knows what it does not know: [`Unknown`].

use serde_json::{Map, Value};

use super::status::Status;

/// The server leaves this expression to the runner, or the simulator cannot play it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unknown(pub(super) String);

/// What an expression sees.
#[derive(Clone, Debug, Default)]
pub(super) struct Scope {
    /// Values of contexts. One that is missing is [`Unknown`], not null.
    pub(super) contexts: Map<String, Value>,
    /// How the needed jobs ended.
    pub(super) needs: Vec<Status>,
}

impl Scope {
    /// Adds a context.
    pub(super) fn with(mut self, name: &str, value: Value) -> Self {
        self.contexts.insert(name.to_owned(), value);
        self
    }

    /// Text with every `${{ }}` in it replaced. One that is the whole text keeps its type.
    pub(super) fn template(&self, text: &str) -> Result<Value, Unknown> {
        if let Some(whole) = whole(text) {
            return self.evaluate(whole);
        }
        let mut result = String::new();
        let mut rest = text;
        while let Some((before, inside)) = rest.split_once("${{") {
            let (expression, after) =
                inside.split_once("}}").ok_or_else(|| Unknown(text.to_owned()))?;
            result.push_str(before);
            result.push_str(&display(&self.evaluate(expression)?));
            rest = after;
        }
        result.push_str(rest);
        Ok(Value::String(result))
    }

    /// As [`Scope::template`], as text.
    pub(super) fn text(&self, text: &str) -> Result<String, Unknown> {
        self.template(text).map(|value| display(&value))
    }

    /// Whether a job's `if` holds; without a status function in it only after success
    /// (forgejo-runner-protocol 7.3).
    pub(super) fn condition(&self, text: &str) -> Result<bool, Unknown> {
        let inner = whole(text).unwrap_or(text);
        let value = truth(&self.evaluate(inner)?);
        let names_status = ["success", "failure", "always", "cancelled"]
            .iter()
            .any(|function| inner.contains(&format!("{function}(")));
        Ok(value && (names_status || self.succeeded()))
    }

    fn succeeded(&self) -> bool {
        self.needs.iter().all(|status| *status == Status::Success)
    }

    fn evaluate(&self, text: &str) -> Result<Value, Unknown> {
        let tokens = tokens(text).ok_or_else(|| Unknown(text.to_owned()))?;
        let mut parser = Parser { scope: self, tokens: &tokens, at: 0 };
        let value = parser.or().ok_or_else(|| Unknown(text.to_owned()))?;
        if parser.at == tokens.len() { Ok(value) } else { Err(Unknown(text.to_owned())) }
    }
}

/// The inside of text that is one expression.
fn whole(text: &str) -> Option<&str> {
    let inside = text.trim().strip_prefix("${{")?.strip_suffix("}}")?;
    (!inside.contains("${{")).then_some(inside)
}

/// A value as text (forgejo-runner-protocol 8.5).
pub(super) fn display(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) => match number.as_f64() {
            Some(float) if float.fract() == 0.0 && float.abs() < 1e15 => format!("{float:.0}"),
            _ => number.to_string(),
        },
        Value::Array(_) => "Array".to_owned(),
        Value::Object(_) => "Object".to_owned(),
    }
}

fn truth(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(flag) => *flag,
        Value::Number(number) => number.as_f64().is_some_and(|number| number != 0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(_) | Value::Object(_) => true,
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Name(String),
    Literal(Value),
    Sign(&'static str),
}

const SIGNS: [&str; 11] = ["&&", "||", "==", "!=", "!", "(", ")", ".", ",", "[", "]"];

fn tokens(text: &str) -> Option<Vec<Token>> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let taken = if first == '\'' {
            let (literal, taken) = string(rest)?;
            tokens.push(Token::Literal(Value::String(literal)));
            taken
        } else if let Some(sign) = SIGNS.iter().find(|sign| rest.starts_with(**sign)) {
            tokens.push(Token::Sign(sign));
            sign.len()
        } else {
            let end = rest
                .find(|character: char| !(character.is_alphanumeric() || "_-".contains(character)))
                .unwrap_or(rest.len());
            let word = rest.get(..end).filter(|word| !word.is_empty())?;
            tokens.push(match word {
                "true" => Token::Literal(Value::Bool(true)),
                "false" => Token::Literal(Value::Bool(false)),
                "null" => Token::Literal(Value::Null),
                _ => match word.parse::<i64>() {
                    Ok(number) => Token::Literal(number.into()),
                    Err(_) => Token::Name(word.to_owned()),
                },
            });
            end
        };
        rest = rest.get(taken..)?.trim_start();
    }
    Some(tokens)
}

/// The text of a literal in quotes and how many bytes it takes.
fn string(text: &str) -> Option<(String, usize)> {
    let mut literal = String::new();
    let mut characters = text.char_indices().skip(1).peekable();
    while let Some((index, character)) = characters.next() {
        if character != '\'' {
            literal.push(character);
        } else if characters.next_if(|(_, next)| *next == '\'').is_some() {
            literal.push('\'');
        } else {
            return Some((literal, index + 1));
        }
    }
    None
}

struct Parser<'a> {
    scope: &'a Scope,
    tokens: &'a [Token],
    at: usize,
}

impl Parser<'_> {
    fn take(&mut self, sign: &'static str) -> bool {
        let found = self.tokens.get(self.at) == Some(&Token::Sign(sign));
        self.at += usize::from(found);
        found
    }

    fn or(&mut self) -> Option<Value> {
        let mut value = self.and()?;
        while self.take("||") {
            let other = self.and()?;
            value = if truth(&value) { value } else { other };
        }
        Some(value)
    }

    fn and(&mut self) -> Option<Value> {
        let mut value = self.equality()?;
        while self.take("&&") {
            let other = self.equality()?;
            value = if truth(&value) { other } else { value };
        }
        Some(value)
    }

    fn equality(&mut self) -> Option<Value> {
        let value = self.not()?;
        let equal = if self.take("==") {
            true
        } else if self.take("!=") {
            false
        } else {
            return Some(value);
        };
        let other = self.not()?;
        let same = match (&value, &other) {
            (Value::String(one), Value::String(two)) => one.eq_ignore_ascii_case(two),
            (Value::Bool(_), Value::Bool(_))
            | (Value::Null, Value::Null)
            | (Value::Number(_), Value::Number(_)) => value == other,
            // Coercion of different kinds is the runner's business.
            _ => return None,
        };
        Some(Value::Bool(same == equal))
    }

    fn not(&mut self) -> Option<Value> {
        if self.take("!") {
            return self.not().map(|value| Value::Bool(!truth(&value)));
        }
        self.primary()
    }

    fn primary(&mut self) -> Option<Value> {
        if self.take("(") {
            let value = self.or()?;
            return self.take(")").then_some(value);
        }
        let token = self.tokens.get(self.at)?.clone();
        self.at += 1;
        match token {
            Token::Literal(value) => Some(value),
            Token::Name(name) if self.take("(") => self.call(&name),
            Token::Name(name) => self.path(&name),
            Token::Sign(_) => None,
        }
    }

    fn call(&mut self, name: &str) -> Option<Value> {
        let mut arguments = Vec::new();
        if !self.take(")") {
            arguments.push(self.or()?);
            while self.take(",") {
                arguments.push(self.or()?);
            }
            if !self.take(")") {
                return None;
            }
        }
        let needs = &self.scope.needs;
        match (name.to_ascii_lowercase().as_str(), arguments.as_slice()) {
            ("success", []) => Some(Value::Bool(self.scope.succeeded())),
            ("failure", []) => Some(Value::Bool(needs.contains(&Status::Failure))),
            ("always", []) => Some(Value::Bool(true)),
            ("fromjson", [Value::String(json)]) => serde_json::from_str(json).ok(),
            ("contains", [Value::String(text), Value::String(part)]) => {
                Some(Value::Bool(text.to_lowercase().contains(&part.to_lowercase())))
            }
            ("startswith", [Value::String(text), Value::String(part)]) => {
                Some(Value::Bool(text.to_lowercase().starts_with(&part.to_lowercase())))
            }
            _ => None,
        }
    }

    fn path(&mut self, name: &str) -> Option<Value> {
        let name = match name.to_ascii_lowercase().as_str() {
            "forgejo" | "forge" | "gitea" => "github".to_owned(),
            other => other.to_owned(),
        };
        let mut value = self.scope.contexts.get(&name)?.clone();
        loop {
            let key = if self.take(".") {
                let Some(Token::Name(key)) = self.tokens.get(self.at) else { return None };
                self.at += 1;
                Value::String(key.clone())
            } else if self.take("[") {
                let key = self.or()?;
                if !self.take("]") {
                    return None;
                }
                key
            } else {
                return Some(value);
            };
            value = property(&value, &key);
        }
    }
}

/// A property, whose name's case does not count; null if there is none.
fn property(value: &Value, key: &Value) -> Value {
    match (value, key) {
        (Value::Object(entries), Value::String(key)) => entries
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(key))
            .map_or(Value::Null, |(_, value)| value.clone()),
        (Value::Array(items), Value::Number(index)) => index
            .as_u64()
            .and_then(|index| items.get(usize::try_from(index).ok()?))
            .map_or(Value::Null, Value::clone),
        _ => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn scope() -> Scope {
        Scope::default()
            .with("matrix", json!({"os": "linux", "node": 20, "deep": {"list": ["a", "b"]}}))
            .with("vars", json!({"LABELS": "[\"a\", \"b\"]"}))
            .with("inputs", json!({}))
    }

    #[test]
    fn templates_are_filled() {
        let cases = [
            ("plain", json!("plain")),
            ("${{ matrix.os }}-${{ matrix.node }}", json!("linux-20")),
            ("${{ matrix.node }}", json!(20)),
            ("${{ inputs.runner || 'debian' }}", json!("debian")),
            ("${{ fromJSON(vars.LABELS) }}", json!(["a", "b"])),
            ("${{ matrix.deep.list[1] }}", json!("b")),
            ("${{ matrix['os'] == 'LINUX' && 'it''s' }}", json!("it's")),
            ("x ${{ matrix.missing }} y", json!("x  y")),
        ];
        for (text, expected) in cases {
            assert_eq!(scope().template(text), Ok(expected), "{text}");
        }
        assert!(scope().template("${{ secrets.X }}").is_err(), "there is no such context");
        assert!(scope().template("${{ hashFiles('a') }}").is_err());
    }

    #[test]
    fn conditions_hold_after_success_unless_they_ask_for_more() {
        let failed = Scope { needs: vec![Status::Success, Status::Failure], ..scope() };
        let cases = [
            ("true", true, false),
            ("${{ false }}", false, false),
            ("success()", true, false),
            ("failure()", false, true),
            ("always() && matrix.os == 'linux'", true, true),
            ("!failure()", true, false),
            ("matrix.os != 'linux'", false, false),
        ];
        for (text, fine, after_failure) in cases {
            assert_eq!(scope().condition(text), Ok(fine), "{text}");
            assert_eq!(failed.condition(text), Ok(after_failure), "{text} after a failure");
        }
        assert!(scope().condition("env.X == '1'").is_err());
        assert!(scope().condition("secrets.X != ''").is_err());
    }
}
