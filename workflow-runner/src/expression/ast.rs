//! The tree of a parsed expression, and its printed form.

use std::fmt;
use std::sync::Arc;

use super::function::Function;
use super::{Value, number};

/// A node of the tree.
#[derive(Clone, Debug)]
pub(super) enum Node {
    /// Null, a boolean, a number or text.
    Literal(Value),
    /// A context by its name in lower case.
    Context(Arc<str>, Offset),
    /// A call; the number of values is one that the function takes.
    Call(Function, Vec<Node>, Offset),
    /// `target.name` and `target[index]`.
    Index(Box<Node>, Box<Node>),
    /// `target.*` and `target[*]`.
    Filter(Box<Node>),
    /// `!value`.
    Not(Box<Node>),
    /// `==`, `<` and so on.
    Compare(Comparison, Box<Node>, Box<Node>),
    /// Two or more values with `&&` between them, none of them such a chain itself.
    And(Vec<Node>),
    /// Two or more values with `||` between them, none of them such a chain itself.
    Or(Vec<Node>),
}

/// The characters of the text before a node, for errors of its evaluation. Two trees that differ in
/// it alone are the same, and print the same.
#[derive(Clone, Copy, Default)]
pub(super) struct Offset(pub(super) usize);

impl fmt::Debug for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("_")
    }
}

/// An operator that gives a boolean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// An operator between two values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    Or,
    And,
    Compare(Comparison),
}

/// How strongly `||` binds. The others bind stronger, in the order of
/// github-runner-protocol 5.8.
const OR: u8 = 1;
const AND: u8 = 2;
const EQUALITY: u8 = 3;
const RELATION: u8 = 4;
/// How strongly `!` binds.
pub(super) const NOT: u8 = 5;
const POSTFIX: u8 = 6;

impl Operator {
    /// How strongly it binds; higher is stronger.
    pub(super) fn precedence(self) -> u8 {
        match self {
            Self::Or => OR,
            Self::And => AND,
            Self::Compare(Comparison::Equal | Comparison::NotEqual) => EQUALITY,
            Self::Compare(_) => RELATION,
        }
    }

    /// As it is written.
    pub(super) fn symbol(self) -> &'static str {
        match self {
            Self::Or => "||",
            Self::And => "&&",
            Self::Compare(Comparison::Equal) => "==",
            Self::Compare(Comparison::NotEqual) => "!=",
            Self::Compare(Comparison::Less) => "<",
            Self::Compare(Comparison::LessOrEqual) => "<=",
            Self::Compare(Comparison::Greater) => ">",
            Self::Compare(Comparison::GreaterOrEqual) => ">=",
        }
    }
}

/// Whether this can stand after a dot: a letter or `_`, then letters, digits, `_` and `-`.
pub(super) fn is_name(text: &str) -> bool {
    text.starts_with(starts_name) && text.chars().all(continues_name)
}

/// Whether a name can begin with this character.
pub(super) fn starts_name(c: char) -> bool {
    c.is_ascii_alphabetic() || c == '_'
}

/// Whether a name can go on with this character.
pub(super) fn continues_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '-'
}

/// Prints text that parses to the same tree.
impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Literal(value) => write_literal(f, value),
            // In small letters these three are literals, whatever they were written like here.
            Self::Context(name, _) if matches!(&**name, "true" | "false" | "null") => {
                f.write_str(&name.to_ascii_uppercase())
            }
            Self::Context(name, _) => f.write_str(name),
            Self::Call(function, arguments, _) => {
                write!(f, "{}(", function.name())?;
                for (place, argument) in arguments.iter().enumerate() {
                    let comma = if place == 0 { "" } else { ", " };
                    write!(f, "{comma}{argument}")?;
                }
                f.write_str(")")
            }
            Self::Index(target, index) => {
                write_operand(f, target, POSTFIX)?;
                match &**index {
                    Self::Literal(Value::String(name)) if is_name(name) => write!(f, ".{name}"),
                    index => write!(f, "[{index}]"),
                }
            }
            Self::Filter(target) => {
                write_operand(f, target, POSTFIX)?;
                f.write_str(".*")
            }
            Self::Not(value) => {
                f.write_str("!")?;
                write_operand(f, value, NOT)
            }
            Self::Compare(comparison, left, right) => {
                let operator = Operator::Compare(*comparison);
                write_operand(f, left, operator.precedence())?;
                write!(f, " {} ", operator.symbol())?;
                write_operand(f, right, operator.precedence() + 1)
            }
            Self::And(values) => write_chain(f, values, Operator::And),
            Self::Or(values) => write_chain(f, values, Operator::Or),
        }
    }
}

fn write_chain(f: &mut fmt::Formatter<'_>, values: &[Node], operator: Operator) -> fmt::Result {
    for (place, value) in values.iter().enumerate() {
        if place > 0 {
            write!(f, " {} ", operator.symbol())?;
        }
        write_operand(f, value, operator.precedence() + 1)?;
    }
    Ok(())
}

/// Writes a node in a place that needs one which binds at least so strongly.
fn write_operand(f: &mut fmt::Formatter<'_>, node: &Node, least: u8) -> fmt::Result {
    let binds = match node {
        // A literal is whole, but nothing can be read of it without a group.
        Node::Literal(_) => NOT,
        Node::Context(..) | Node::Call(..) | Node::Index(..) | Node::Filter(_) => POSTFIX,
        Node::Not(_) => NOT,
        Node::Compare(comparison, ..) => Operator::Compare(*comparison).precedence(),
        Node::And(_) => AND,
        Node::Or(_) => OR,
    };
    if binds < least { write!(f, "({node})") } else { write!(f, "{node}") }
}

fn write_literal(f: &mut fmt::Formatter<'_>, value: &Value) -> fmt::Result {
    match value {
        Value::Null => f.write_str("null"),
        // The shortest text that reads as the same double, where the language's own form rounds.
        Value::Number(number) if number.is_finite() => write!(f, "{number:?}"),
        Value::Number(number) => f.write_str(&number::format(*number)),
        Value::String(text) => write!(f, "'{}'", text.replace('\'', "''")),
        other => f.write_str(&other.as_text()),
    }
}
