//! From events to the tree, within the budgets.

use std::collections::HashMap;
use std::sync::Arc;

use common::limits::{YAML_DEPTH, YAML_NODES};
use common::plan::Location;
use granit_parser::{Event, Parser, ScalarStyle, Span, StrInput, Tag};

use super::node::{Kind, Node, Scalar, Style, shorten};
use super::source::Source;
use super::syntax;
use crate::diagnostic::Diagnostic;

/// The text of all scalars together after aliases are expanded, in bytes. More is refused: an alias
/// of a long text is as good a bomb as one of a long list.
const EXPANDED_TEXT_BYTES: usize = 4 * common::limits::MIB as usize;

/// Builds the tree of the one document in a source.
pub(super) fn tree(source: &Source) -> Result<Node, Diagnostic> {
    Builder::new(source).document()
}

/// A value that can be repeated by an alias, and what repeating it costs.
struct Anchored {
    node: Node,
    cost: Cost,
}

/// What a subtree counts against the budgets.
#[derive(Clone, Copy, Default)]
struct Cost {
    nodes: usize,
    bytes: usize,
    depth: usize,
}

/// A collection whose end has not come yet.
struct Open {
    node: Node,
    anchor: usize,
    /// The key that waits for its value.
    key: Option<Node>,
    /// Where each key of a mapping stands.
    keys: HashMap<Arc<str>, Location>,
    /// The totals when the collection began.
    before: (usize, usize),
    /// The depth of the deepest child.
    depth: usize,
}

struct Builder<'a> {
    source: &'a Source,
    parser: Parser<'a, StrInput<'a>>,
    open: Vec<Open>,
    anchors: HashMap<usize, Anchored>,
    nodes: usize,
    bytes: usize,
    root: Option<Node>,
}

impl<'a> Builder<'a> {
    fn new(source: &'a Source) -> Self {
        let mut options = granit_parser::Options::default();
        options.set_emit_comments(false);
        Self {
            source,
            parser: Parser::new_from_str_with_options(source.text(), options),
            open: Vec::new(),
            anchors: HashMap::new(),
            nodes: 0,
            bytes: 0,
            root: None,
        }
    }

    fn document(mut self) -> Result<Node, Diagnostic> {
        let mut documents = 0;
        while let Some(next) = self.parser.next_event() {
            let (event, span) = next.map_err(|error| syntax::diagnostic(self.source, &error))?;
            match event {
                Event::DocumentStart(..) => {
                    documents += 1;
                    if documents > 1 {
                        return Err(self
                            .error(&span, "a second YAML document starts here")
                            .hint("a workflow file holds one document: remove the `---`"));
                    }
                }
                Event::StreamEnd => break,
                event => self.event(event, &span)?,
            }
        }
        let end = self.source.text().len();
        Ok(self.root.unwrap_or(Node {
            location: Location { line: 1, column: 1 },
            span: end..end,
            kind: Kind::Null,
        }))
    }

    fn event(&mut self, event: Event<'a>, span: &Span) -> Result<(), Diagnostic> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.check_tag(tag.as_deref(), span)?;
                let kind = scalar(&text, style, tag.as_deref(), span);
                let bytes = if kind == Kind::Null { 0 } else { text.len() };
                let cost = Cost { nodes: 1, bytes, depth: 1 };
                self.spend(cost, span, false)?;
                let node = self.node(span, kind);
                self.finish(node, anchor, cost)
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.check_tag(tag.as_deref(), span)?;
                self.begin(span, anchor, Kind::Sequence(Vec::new()))
            }
            Event::MappingStart(_, anchor, tag) => {
                self.check_tag(tag.as_deref(), span)?;
                self.begin(span, anchor, Kind::Mapping(Vec::new()))
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(span),
            Event::Alias(anchor) => self.alias(anchor, span),
            _ => Ok(()),
        }
    }

    fn begin(&mut self, span: &Span, anchor: usize, kind: Kind) -> Result<(), Diagnostic> {
        let before = (self.nodes, self.bytes);
        self.spend(Cost { nodes: 1, bytes: 0, depth: 1 }, span, false)?;
        let node = self.node(span, kind);
        self.open.push(Open { node, anchor, key: None, keys: HashMap::new(), before, depth: 0 });
        Ok(())
    }

    fn end(&mut self, span: &Span) -> Result<(), Diagnostic> {
        let Some(mut done) = self.open.pop() else {
            return Err(self.error(span, "a collection ends that did not begin"));
        };
        let end = span.end.byte_offset().unwrap_or(done.node.span.end);
        done.node.span.end = end.max(done.node.span.end);
        let cost = Cost {
            nodes: self.nodes - done.before.0,
            bytes: self.bytes - done.before.1,
            depth: done.depth + 1,
        };
        self.finish(done.node, done.anchor, cost)
    }

    fn alias(&mut self, anchor: usize, span: &Span) -> Result<(), Diagnostic> {
        let Some(found) = self.anchors.get(&anchor) else {
            return Err(self.error(span, "this alias stands inside the value that it repeats"));
        };
        let cost = found.cost;
        self.spend(cost, span, true)?;
        // Looked up again: the budget is checked before anything is copied.
        let node = self.anchors.get(&anchor).map(|found| found.node.clone());
        match node {
            Some(node) => self.place(node, cost.depth, Some(span)),
            None => Ok(()),
        }
    }

    /// Counts a value against the budgets.
    fn spend(&mut self, cost: Cost, span: &Span, alias: bool) -> Result<(), Diagnostic> {
        self.nodes += cost.nodes;
        self.bytes += cost.bytes;
        let hint = if alias {
            "the aliases repeat too much: write less by anchors"
        } else {
            "split the workflow into several files"
        };
        if self.nodes > YAML_NODES {
            let after = if alias { " once its aliases are expanded" } else { "" };
            let message = format!("the file has more than {YAML_NODES} values{after}");
            return Err(self.error(span, message).hint(hint));
        }
        if self.bytes > EXPANDED_TEXT_BYTES {
            let message = format!(
                "the file has more than {EXPANDED_TEXT_BYTES} bytes of text once its aliases are \
                 expanded"
            );
            return Err(self.error(span, message).hint(hint));
        }
        if self.open.len() + cost.depth > YAML_DEPTH {
            return Err(syntax::too_deep(self.source, self.location(span)));
        }
        Ok(())
    }

    /// A value is complete: remembers it for aliases and puts it into its parent.
    fn finish(&mut self, node: Node, anchor: usize, cost: Cost) -> Result<(), Diagnostic> {
        if anchor != 0 {
            self.anchors.insert(anchor, Anchored { node: node.clone(), cost });
        }
        self.place(node, cost.depth, None)
    }

    /// Puts a complete value into its parent. `alias` is the place of the alias that stands for it.
    fn place(&mut self, node: Node, depth: usize, alias: Option<&Span>) -> Result<(), Diagnostic> {
        let Some(parent) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        parent.depth = parent.depth.max(depth);
        match &mut parent.node.kind {
            Kind::Sequence(items) => items.push(node),
            Kind::Mapping(pairs) => match parent.key.take() {
                Some(key) => pairs.push((key, node)),
                None => {
                    let location = match alias {
                        Some(span) => syntax::location(&span.start),
                        None => node.location,
                    };
                    let text = check_key(self.source, &node, location)?;
                    if let Some(first) = parent.keys.insert(text.clone(), location) {
                        return Err(duplicate(self.source, &text, first, location));
                    }
                    parent.key = Some(node);
                }
            },
            Kind::Null | Kind::Scalar(_) => {}
        }
        Ok(())
    }

    fn check_tag(&self, tag: Option<&Tag>, span: &Span) -> Result<(), Diagnostic> {
        match tag {
            // A single `!` says that the value is not resolved: text.
            Some(tag) if tag.is_custom() && tag.original() != "!" => {
                let message = format!("the tag `{}` has no meaning in a workflow", tag.original());
                let at = syntax::location(&span.tag_start.unwrap_or(span.start));
                Err(self.source.diagnostic(at, message).hint("remove the tag"))
            }
            _ => Ok(()),
        }
    }

    fn node(&self, span: &Span, kind: Kind) -> Node {
        let start = span.start.byte_offset().unwrap_or_default();
        let end = span.end.byte_offset().unwrap_or(start);
        Node { location: self.location(span), span: start..end.max(start), kind }
    }

    fn location(&self, span: &Span) -> Location {
        syntax::location(&span.start)
    }

    fn error(&self, span: &Span, message: impl Into<String>) -> Diagnostic {
        self.source.diagnostic(self.location(span), message)
    }
}

fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>, span: &Span) -> Kind {
    let style = match style {
        ScalarStyle::Plain => Style::Plain,
        ScalarStyle::SingleQuoted => Style::SingleQuoted,
        ScalarStyle::DoubleQuoted => Style::DoubleQuoted,
        ScalarStyle::Literal => Style::Literal,
        ScalarStyle::Folded => Style::Folded,
    };
    let is_text = style != Style::Plain
        || tag.is_some_and(|tag| tag.is_yaml_core_schema_tag("str") || tag.is_custom());
    if span.is_empty() && style == Style::Plain && !is_text {
        return Kind::Null;
    }
    Kind::Scalar(Scalar { text: Arc::from(text), style, is_text })
}

/// The text of a mapping's key, if it can be one.
fn check_key(source: &Source, key: &Node, location: Location) -> Result<Arc<str>, Diagnostic> {
    match &key.kind {
        Kind::Scalar(scalar) if scalar.style == Style::Plain && &*scalar.text == "<<" => Err(source
            .diagnostic(location, "the merge key `<<` is not part of the workflow language")
            .hint("write the keys out, or give the whole mapping an anchor and repeat it by an alias")),
        Kind::Scalar(scalar) => Ok(scalar.text.clone()),
        Kind::Null => Err(source.diagnostic(location, "a key is missing before this `:`")),
        Kind::Sequence(_) | Kind::Mapping(_) => {
            let message = format!("a key must be text, this is {}", key.describe());
            Err(source
                .diagnostic(location, message)
                .hint("text that starts with `{` or `[` needs quotes"))
        }
    }
}

fn duplicate(source: &Source, key: &str, first: Location, second: Location) -> Diagnostic {
    let message = format!(
        "the key {:?} is given twice: the first is at line {}, column {}",
        shorten(key),
        first.line,
        first.column
    );
    source.diagnostic(second, message).hint("remove one of the two, or put them together")
}
