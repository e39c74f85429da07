//! From tokens to a tree.
//!
//! The parser keeps what is not finished on stacks of its own, so that no text, however deeply
//! nested, can exhaust the thread's stack; a tree that is too deep is refused while it grows.

use std::fmt;
use std::sync::Arc;

use common::limits::{EXPRESSION_CHARACTERS, EXPRESSION_DEPTH};

use super::ast::{NOT, Node, Operator};
use super::evaluate::Evaluator;
use super::function::Function;
use super::lexer::{Lexer, Property, Token};
use super::{Budget, EvaluateError, ParseError, Scope, Value};

/// A parsed expression. Cloning is cheap.
///
/// Its display form is text that parses to an equal expression.
#[derive(Clone, Debug)]
pub struct Expression {
    inner: Arc<Parsed>,
}

#[derive(Debug)]
struct Parsed {
    root: Node,
    contexts: Vec<Use>,
    functions: Vec<Use>,
    has_status_function: bool,
}

/// A place in which an expression uses something by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Use {
    /// The name: of a context in lower case, of a function as it is usually written.
    pub name: String,
    /// Characters of the expression before it.
    pub offset: usize,
}

impl Expression {
    /// Parses the text of an expression, without `${{ }}`. An empty text is `null`.
    ///
    /// # Errors
    /// If the text is not an expression, or exceeds [`EXPRESSION_CHARACTERS`] or
    /// [`EXPRESSION_DEPTH`].
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        if text.chars().nth(EXPRESSION_CHARACTERS).is_some() {
            return Err(ParseError::new(
                EXPRESSION_CHARACTERS,
                format!("the expression has more than {EXPRESSION_CHARACTERS} characters"),
            ));
        }
        let parsed = Parser::new(text).run()?;
        Ok(Self { inner: Arc::new(parsed) })
    }

    /// Evaluates it.
    ///
    /// # Errors
    /// If a context does not exist, a function refuses its values, `hashFiles` must be computed
    /// first, or more than [`common::limits::EVALUATION_BYTES`] would be produced.
    pub fn evaluate(&self, scope: &dyn Scope) -> Result<Value, EvaluateError> {
        self.evaluate_within(scope, &Budget::default())
    }

    /// Evaluates it as a part of something larger, with which it shares the budget.
    ///
    /// # Errors
    /// As [`Self::evaluate`].
    pub fn evaluate_within(
        &self,
        scope: &dyn Scope,
        budget: &Budget,
    ) -> Result<Value, EvaluateError> {
        Evaluator::new(scope, budget).evaluate(&self.inner.root)
    }

    /// Whether it calls `success`, `failure`, `always` or `cancelled`.
    #[must_use]
    pub fn has_status_function(&self) -> bool {
        self.inner.has_status_function
    }

    /// The contexts that it reads, each time with the place.
    #[must_use]
    pub fn contexts(&self) -> &[Use] {
        &self.inner.contexts
    }

    /// The functions that it calls, each time with the place.
    #[must_use]
    pub fn functions(&self) -> &[Use] {
        &self.inner.functions
    }

    /// The names of the contexts that it reads, in lower case, each once.
    #[must_use]
    pub fn contexts_used(&self) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for context in self.contexts() {
            if !names.contains(&context.name) {
                names.push(context.name.clone());
            }
        }
        names
    }

    /// The properties that are read of this context by a literal name, such as the names of
    /// secrets: as written, each once, in the order of the text.
    #[must_use]
    pub fn properties_of(&self, context: &str) -> Vec<String> {
        let mut found = Vec::new();
        collect_properties(&self.inner.root, context, &mut found);
        found
    }

    /// The tree.
    #[cfg(test)]
    pub(super) fn root(&self) -> &Node {
        &self.inner.root
    }
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.root.fmt(f)
    }
}

/// Recursion is bounded by the depth of a tree.
fn collect_properties(node: &Node, context: &str, found: &mut Vec<String>) {
    match node {
        Node::Literal(_) | Node::Context(_) => {}
        Node::Index(target, index) => {
            if let (Node::Context(name), Node::Literal(Value::String(property))) =
                (&**target, &**index)
                && name.eq_ignore_ascii_case(context)
                && !found.iter().any(|known| known.eq_ignore_ascii_case(property))
            {
                found.push(property.to_string());
            }
            collect_properties(target, context, found);
            collect_properties(index, context, found);
        }
        Node::Filter(value) | Node::Not(value) => collect_properties(value, context, found),
        Node::Compare(_, left, right) => {
            collect_properties(left, context, found);
            collect_properties(right, context, found);
        }
        Node::Call(_, values) | Node::And(values) | Node::Or(values) => {
            for value in values {
                collect_properties(value, context, found);
            }
        }
    }
}

/// A finished part of the tree.
struct Operand {
    node: Node,
    /// The nodes on the longest way down.
    depth: usize,
    /// Whether it stands in parentheses, so that a chain does not swallow it.
    grouped: bool,
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
                self.push(offset, Node::Context(Arc::from(&*name)), 1)?;
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
                let (open, symbol) = match self.pending.last() {
                    None => return Ok(Next::Nothing),
                    Some(Pending::Index { offset }) => (*offset, "["),
                    Some(Pending::Group { offset } | Pending::Call { offset, .. }) => {
                        (*offset, "(")
                    }
                    Some(Pending::Not | Pending::Binary(_)) => (offset, "operator"),
                };
                Err(ParseError::new(
                    open,
                    format!("the expression ends before the {symbol:?} that begins here is closed"),
                ))
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
                        format!("\"{name}\" is called like a function, but values have none"),
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
                if let Some(operand) = self.operands.last_mut() {
                    operand.grouped = true;
                }
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
        self.push(offset, Node::Call(function, nodes), depth + 1)?;
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

    /// Joins two values with `&&` or `||`; a chain of one of them is one node, however long.
    fn chain(&mut self, operator: Operator, offset: usize) -> Result<(), ParseError> {
        let (Some(right), Some(mut left)) = (self.operands.pop(), self.operands.pop()) else {
            return Ok(());
        };
        match &mut left.node {
            Node::And(values) if operator == Operator::And && !left.grouped => {
                values.push(right.node);
                let depth = left.depth.max(right.depth + 1);
                return self.push(offset, left.node, depth);
            }
            Node::Or(values) if operator == Operator::Or && !left.grouped => {
                values.push(right.node);
                let depth = left.depth.max(right.depth + 1);
                return self.push(offset, left.node, depth);
            }
            _ => {}
        }
        let depth = left.depth.max(right.depth) + 1;
        let values = vec![left.node, right.node];
        let node = if operator == Operator::And { Node::And(values) } else { Node::Or(values) };
        self.push(offset, node, depth)
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
        self.operands.push(Operand { node, depth, grouped: false });
        Ok(())
    }
}

/// A token for a message.
fn shown(token: &Token<'_>) -> String {
    match token {
        Token::Literal(Value::String(_)) => String::from("this text"),
        Token::Literal(value) => format!("\"{}\"", Node::Literal(value.clone())),
        Token::Name(name) => format!("\"{name}\""),
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
