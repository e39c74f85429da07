//! From tokens to a tree.
//!
//! The parser keeps what is not finished on stacks of its own, so that no text, however deeply
//! nested, can exhaust the thread's stack; a tree that is too deep is refused while it grows.

use std::sync::Arc;

use common::limits::EXPRESSION_DEPTH;

use super::ast::{NOT, Node, Offset, Operator};
use super::function::Function;
use super::lexer::{Lexer, Property, Token};
use super::parsed::{Parsed, Use};
use super::scope::shorten;
use super::{ParseError, Value};

/// Parses the text of an expression; an empty one is `null`. The caller bounds its length.
pub(super) fn parse(text: &str) -> Result<Parsed, ParseError> {
    Parser::new(text).run()
}

/// A finished part of the tree.
struct Operand {
    node: Node,
    /// The nodes on the longest way down.
    depth: usize,
}

/// What waits for a value or for its end.
enum Pending {
    Not,
    Binary(Operator),
    Group { offset: usize },
    Call { function: Function, offset: usize, arguments: Vec<Operand> },
    Index { offset: usize },
}

struct Parser<'t> {
    lexer: Lexer<'t>,
    operands: Vec<Operand>,
    pending: Vec<Pending>,
    /// Whether the last value can be followed by `.` or `[`: literals cannot.
    indexable: bool,
    contexts: Vec<Use>,
    functions: Vec<Use>,
    has_status_function: bool,
}

/// What the parser looks for next.
enum Next {
    Value,
    Operator,
    Nothing,
}

impl<'t> Parser<'t> {
    fn new(text: &'t str) -> Self {
        Self {
            lexer: Lexer::new(text),
            operands: Vec::new(),
            pending: Vec::new(),
            indexable: false,
            contexts: Vec::new(),
            functions: Vec::new(),
            has_status_function: false,
        }
    }

    fn run(mut self) -> Result<Parsed, ParseError> {
        let mut next = Next::Value;
        loop {
            next = match next {
                Next::Value => {
                    let (offset, token) = self.lexer.next(true)?;
                    self.value(offset, token)?
                }
                Next::Operator => {
                    let (offset, token) = self.lexer.next(false)?;
                    self.after_value(offset, token)?
                }
                Next::Nothing => break,
            };
        }
        let root = self.operands.pop().map_or(Node::Literal(Value::Null), |operand| operand.node);
        Ok(Parsed {
            root,
            contexts: self.contexts,
            functions: self.functions,
            has_status_function: self.has_status_function,
        })
    }

    /// Takes a token where a value begins.
    fn value(&mut self, offset: usize, token: Token<'t>) -> Result<Next, ParseError> {
        match token {
            Token::Literal(value) => {
                self.push(offset, Node::Literal(value), 1)?;
                self.indexable = false;
                Ok(Next::Operator)
            }
            Token::Name(name) if self.lexer.is_next('(') => self.call(offset, name),
            Token::Name(name) => {
                let name = name.to_ascii_lowercase();
                self.push(offset, Node::Context(Arc::from(&*name), Offset(offset)), 1)?;
                self.contexts.push(Use { name, offset });
                self.indexable = true;
                Ok(Next::Operator)
            }
            Token::Open => {
                self.pending.push(Pending::Group { offset });
                Ok(Next::Value)
            }
            Token::Not => {
                self.pending.push(Pending::Not);
                Ok(Next::Value)
            }
            Token::End if self.pending.is_empty() && self.operands.is_empty() => Ok(Next::Nothing),
            Token::End => {
                Err(ParseError::new(offset, "the expression ends where a value is expected"))
            }
            Token::Close if matches!(self.pending.last(), Some(Pending::Group { .. })) => {
                Err(ParseError::new(offset, "there is no value between \"(\" and \")\""))
            }
            Token::Star => Err(ParseError::new(
                offset,
                "\"*\" stands only after a dot or alone in [ ], as in list.*.name",
            )),
            other => {
                Err(ParseError::new(offset, format!("a value is missing before {}", shown(&other))))
            }
        }
    }

    /// Takes the beginning of a call.
    fn call(&mut self, offset: usize, name: &str) -> Result<Next, ParseError> {
        let function = Function::named(name).map_err(|message| ParseError::new(offset, message))?;
        self.functions.push(Use { name: function.name().to_owned(), offset });
        self.has_status_function |= function.is_status();
        self.lexer.take('(');
        self.pending.push(Pending::Call { function, offset, arguments: Vec::new() });
        if self.lexer.take(')') {
            self.close_call()?;
            return Ok(Next::Operator);
        }
        Ok(Next::Value)
    }

    /// Takes a token where a value has ended.
    fn after_value(&mut self, offset: usize, token: Token<'t>) -> Result<Next, ParseError> {
        match token {
            Token::Dot => self.dot(offset),
            Token::OpenIndex => self.open_index(offset),
            Token::Operator(operator) => {
                self.reduce(operator.precedence(), offset)?;
                self.pending.push(Pending::Binary(operator));
                Ok(Next::Value)
            }
            Token::Comma => {
                self.reduce(0, offset)?;
                let argument = self.operands.pop();
                match (self.pending.last_mut(), argument) {
                    (Some(Pending::Call { arguments, .. }), Some(argument)) => {
                        arguments.push(argument);
                        Ok(Next::Value)
                    }
                    _ => Err(ParseError::new(
                        offset,
                        "unexpected \",\": it stands between the values of a function only",
                    )),
                }
            }
            Token::Close => self.close(offset),
            Token::CloseIndex => self.close_index(offset),
            Token::End => {
                self.reduce(0, offset)?;
                match self.pending.last() {
                    Some(Pending::Group { offset }) => Err(unclosed(*offset, "\"(\"")),
                    Some(Pending::Index { offset }) => Err(unclosed(*offset, "\"[\"")),
                    Some(Pending::Call { function, offset, .. }) => {
                        Err(unclosed(*offset, &format!("call of {}", function.name())))
                    }
                    // Operators were applied above.
                    Some(Pending::Not | Pending::Binary(_)) | None => Ok(Next::Nothing),
                }
            }
            Token::Star => Err(ParseError::new(
                offset,
                "unexpected \"*\": there is no arithmetic in expressions",
            )),
            other => Err(ParseError::new(
                offset,
                format!("an operator such as == or && is missing before {}", shown(&other)),
            )),
        }
    }

    fn dot(&mut self, offset: usize) -> Result<Next, ParseError> {
        self.check_indexable(offset)?;
        match self.lexer.property()? {
            (_, Property::Star) => self.wrap(offset, |target| Node::Filter(Box::new(target)))?,
            (_, Property::Name(name)) => {
                let index = Box::new(Node::Literal(Value::text(name)));
                self.wrap(offset, |target| Node::Index(Box::new(target), index))?;
                if self.lexer.is_next('(') {
                    return Err(ParseError::new(
                        offset,
                        format!(
                            "\"{}\" is called like a function, but values have none",
                            shorten(name)
                        ),
                    ));
                }
            }
        }
        Ok(Next::Operator)
    }

    fn open_index(&mut self, offset: usize) -> Result<Next, ParseError> {
        self.check_indexable(offset)?;
        if self.lexer.take_star_index() {
            self.wrap(offset, |target| Node::Filter(Box::new(target)))?;
            return Ok(Next::Operator);
        }
        self.pending.push(Pending::Index { offset });
        Ok(Next::Value)
    }

    fn check_indexable(&self, offset: usize) -> Result<(), ParseError> {
        if self.indexable {
            return Ok(());
        }
        Err(ParseError::new(offset, "a literal has no properties; nothing can be read of it"))
    }

    /// Takes `)`.
    fn close(&mut self, offset: usize) -> Result<Next, ParseError> {
        self.reduce(0, offset)?;
        match self.pending.last_mut() {
            Some(Pending::Group { .. }) => {
                self.pending.pop();
            }
            Some(Pending::Call { arguments, .. }) => {
                arguments.extend(self.operands.pop());
                self.close_call()?;
            }
            Some(Pending::Index { .. }) => {
                return Err(ParseError::new(offset, "\")\" stands where \"]\" is expected"));
            }
            _ => return Err(ParseError::new(offset, "\")\" has no matching \"(\" before it")),
        }
        self.indexable = true;
        Ok(Next::Operator)
    }

    /// Makes a node of the call on top, whose values are complete.
    fn close_call(&mut self) -> Result<(), ParseError> {
        let Some(Pending::Call { function, offset, arguments }) = self.pending.pop() else {
            return Ok(());
        };
        function
            .check_count(arguments.len())
            .map_err(|message| ParseError::new(offset, message))?;
        let depth = arguments.iter().map(|argument| argument.depth).max().unwrap_or(0);
        let nodes = arguments.into_iter().map(|argument| argument.node).collect();
        self.push(offset, Node::Call(function, nodes, Offset(offset)), depth + 1)?;
        self.indexable = true;
        Ok(())
    }

    /// Takes `]`.
    fn close_index(&mut self, offset: usize) -> Result<Next, ParseError> {
        self.reduce(0, offset)?;
        match self.pending.last() {
            Some(Pending::Index { .. }) => {}
            Some(Pending::Group { .. } | Pending::Call { .. }) => {
                return Err(ParseError::new(offset, "\"]\" stands where \")\" is expected"));
            }
            _ => return Err(ParseError::new(offset, "\"]\" has no matching \"[\" before it")),
        }
        self.pending.pop();
        self.join(offset, |target, index| Node::Index(Box::new(target), Box::new(index)))?;
        self.indexable = true;
        Ok(Next::Operator)
    }

    /// Applies the operators that bind at least so strongly.
    fn reduce(&mut self, least: u8, offset: usize) -> Result<(), ParseError> {
        loop {
            match self.pending.last() {
                Some(Pending::Not) if least <= NOT => {
                    self.pending.pop();
                    self.wrap(offset, |value| Node::Not(Box::new(value)))?;
                }
                Some(Pending::Binary(operator)) if least <= operator.precedence() => {
                    let operator = *operator;
                    self.pending.pop();
                    self.apply(operator, offset)?;
                }
                _ => return Ok(()),
            }
        }
    }

    fn apply(&mut self, operator: Operator, offset: usize) -> Result<(), ParseError> {
        let comparison = match operator {
            Operator::Compare(comparison) => comparison,
            Operator::And | Operator::Or => return self.chain(operator, offset),
        };
        self.join(offset, |left, right| Node::Compare(comparison, Box::new(left), Box::new(right)))
    }

    /// Joins two values with `&&` or `||`. A chain of one of them is one node, however long and
    /// however grouped: its value is the same, and GitHub does not count its length as nesting.
    fn chain(&mut self, operator: Operator, offset: usize) -> Result<(), ParseError> {
        let (Some(right), Some(left)) = (self.operands.pop(), self.operands.pop()) else {
            return Ok(());
        };
        let (mut values, left_depth) = links(left, operator);
        let (right_values, right_depth) = links(right, operator);
        values.extend(right_values);
        let node = if operator == Operator::And { Node::And(values) } else { Node::Or(values) };
        self.push(offset, node, left_depth.max(right_depth))
    }

    /// Replaces the last value by a node around it.
    fn wrap(&mut self, offset: usize, make: impl FnOnce(Node) -> Node) -> Result<(), ParseError> {
        // There is a value wherever this is called: the parser was not looking for one.
        let Some(operand) = self.operands.pop() else { return Ok(()) };
        self.push(offset, make(operand.node), operand.depth + 1)
    }

    /// Replaces the last two values by a node around them.
    fn join(
        &mut self,
        offset: usize,
        make: impl FnOnce(Node, Node) -> Node,
    ) -> Result<(), ParseError> {
        let (Some(right), Some(left)) = (self.operands.pop(), self.operands.pop()) else {
            return Ok(());
        };
        let depth = left.depth.max(right.depth) + 1;
        self.push(offset, make(left.node, right.node), depth)
    }

    fn push(&mut self, offset: usize, node: Node, depth: usize) -> Result<(), ParseError> {
        if depth > EXPRESSION_DEPTH {
            return Err(ParseError::new(
                offset,
                format!("the expression nests deeper than {EXPRESSION_DEPTH} levels"),
            ));
        }
        self.operands.push(Operand { node, depth });
        Ok(())
    }
}

/// The error about something that the expression's end leaves open.
fn unclosed(offset: usize, what: &str) -> ParseError {
    ParseError::new(offset, format!("the {what} that begins here is not closed"))
}

/// What a value adds to a chain of this operator, and how deep the chain is at least with it.
fn links(operand: Operand, operator: Operator) -> (Vec<Node>, usize) {
    match (operand.node, operator) {
        (Node::And(values), Operator::And) | (Node::Or(values), Operator::Or) => {
            (values, operand.depth)
        }
        (node, _) => (vec![node], operand.depth + 1),
    }
}

/// A token for a message.
fn shown(token: &Token<'_>) -> String {
    match token {
        Token::Literal(Value::String(_)) => String::from("this text"),
        Token::Literal(value) => format!("\"{}\"", Node::Literal(value.clone())),
        Token::Name(name) => format!("\"{}\"", shorten(name)),
        Token::Open => String::from("\"(\""),
        Token::Close => String::from("\")\""),
        Token::OpenIndex => String::from("\"[\""),
        Token::CloseIndex => String::from("\"]\""),
        Token::Comma => String::from("\",\""),
        Token::Dot => String::from("\".\""),
        Token::Star => String::from("\"*\""),
        Token::Not => String::from("\"!\""),
        Token::Operator(operator) => format!("\"{}\"", operator.symbol()),
        Token::End => String::from("the end"),
    }
}
