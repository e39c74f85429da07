//! Trees as YAML text in block style, as the server writes payloads.

use std::fmt::Write;

use super::yaml::Node;

/// The text of a document.
pub(super) fn emit(node: &Node) -> String {
    let mut text = String::new();
    match node {
        Node::Map(entries) if !entries.is_empty() => map(&mut text, entries, 0, false),
        Node::List(items) if !items.is_empty() => list(&mut text, items, 0),
        other => {
            inline(&mut text, other, 0);
            text.push('\n');
        }
    }
    text
}

/// The entries of a mapping. The first one goes on where a list item began.
fn map(text: &mut String, entries: &[(String, Node)], depth: usize, continued: bool) {
    for (index, (key, value)) in entries.iter().enumerate() {
        if index > 0 || !continued {
            indent(text, depth);
        }
        name(text, key);
        text.push(':');
        below(text, value, depth);
    }
}

fn list(text: &mut String, items: &[Node], depth: usize) {
    for item in items {
        indent(text, depth);
        text.push('-');
        match item {
            Node::Map(entries) if !entries.is_empty() => {
                text.push(' ');
                map(text, entries, depth + 1, true);
            }
            other => below(text, other, depth),
        }
    }
}

/// A value behind its key or its dash: on the same line or on those below.
fn below(text: &mut String, value: &Node, depth: usize) {
    match value {
        Node::Map(entries) if !entries.is_empty() => {
            text.push('\n');
            map(text, entries, depth + 1, false);
        }
        Node::List(items) if !items.is_empty() => {
            text.push('\n');
            list(text, items, depth + 1);
        }
        other => {
            text.push(' ');
            inline(text, other, depth);
            text.push('\n');
        }
    }
}

fn inline(text: &mut String, node: &Node, depth: usize) {
    match node {
        Node::Plain(plain) if plain.is_empty() => text.push_str("null"),
        // What the parser took without quotes on one line stands without quotes on one line.
        Node::Plain(plain) if !plain.contains('\n') && is_safe(plain) => text.push_str(plain),
        Node::Plain(plain) | Node::Text(plain) => scalar(text, plain, depth),
        Node::List(_) => text.push_str("[]"),
        Node::Map(_) => text.push_str("{}"),
    }
}

/// Text, with as few quotes as it needs.
fn scalar(text: &mut String, content: &str, depth: usize) {
    if is_literal(content) {
        literal(text, content, depth);
    } else {
        name(text, content);
    }
}

/// Text on one line.
fn name(text: &mut String, content: &str) {
    let means_text = Node::Plain(content.to_owned()).value().is_string() && !is_word(content);
    if means_text && is_safe(content) {
        text.push_str(content);
    } else {
        quoted(text, content);
    }
}

/// Words that some reader of YAML 1.1 takes for a bool; `on` is one of them.
fn is_word(content: &str) -> bool {
    ["y", "n", "yes", "no", "on", "off"].iter().any(|word| content.eq_ignore_ascii_case(word))
}

/// Whether it can stand without quotes.
fn is_safe(content: &str) -> bool {
    let bytes = content.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return false };
    let starts = first.is_ascii_alphanumeric() || b"/._$+".contains(first) || {
        *first == b'-' && bytes.get(1).is_some_and(|next| next.is_ascii_alphanumeric())
    };
    starts
        && *last != b' '
        && *last != b':'
        && !content.contains(": ")
        && !content.contains(" #")
        && !content.starts_with("...")
        && content.chars().all(|character| !character.is_control())
}

/// Whether a literal block can hold it: several lines of visible text.
fn is_literal(content: &str) -> bool {
    content.trim_end_matches('\n').contains('\n')
        && !content.starts_with([' ', '\n', '\t'])
        && content
            .chars()
            .all(|character| character == '\n' || character == '\t' || !character.is_control())
        && !content.contains(['\u{85}', '\u{2028}', '\u{2029}', '\u{feff}'])
}

fn literal(text: &mut String, content: &str, depth: usize) {
    let lines = content.trim_end_matches('\n');
    let breaks = content.len() - lines.len();
    text.push_str(match breaks {
        0 => "|-",
        1 => "|",
        _ => "|+",
    });
    for line in lines.split('\n') {
        text.push('\n');
        if !line.is_empty() {
            indent(text, depth + 1);
            text.push_str(line);
        }
    }
    // The caller ends the last line.
    for _ in 1..breaks {
        text.push('\n');
    }
}

fn quoted(text: &mut String, content: &str) {
    text.push('"');
    for character in content.chars() {
        match character {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '\t' => text.push_str("\\t"),
            '\r' => text.push_str("\\r"),
            other if other.is_control() || "\u{2028}\u{2029}\u{feff}".contains(other) => {
                write!(text, "\\u{:04x}", u32::from(other)).expect("a String takes it");
            }
            other => text.push(other),
        }
    }
    text.push('"');
}

fn indent(text: &mut String, depth: usize) {
    for _ in 0..depth {
        text.push_str("  ");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[track_caller]
    fn check(value: &Value) {
        let text = emit(&Node::of(value));
        let read = Node::parse(&text).unwrap_or_else(|error| panic!("{error}:\n{text}"));
        assert_eq!(read.value(), *value, "{text}");
    }

    #[test]
    fn texts_mean_the_same_wherever_they_stand() {
        let texts = [
            "make test",
            "20",
            "3.10",
            "true",
            "null",
            "~",
            "",
            "a: b",
            "a:",
            "a #b",
            "#",
            "*",
            "@x",
            "- a",
            "-",
            "-x",
            "'",
            "\"",
            "${{ matrix.a }}",
            "{a}",
            "%d",
            "!x",
            "&a",
            " a ",
            "a\tb",
            "\u{7}",
            "a\r\nb\r\n",
            "a\n\n  b\nc: d # e\n",
            "a\nb",
            "a\nb\n\n\n",
            "a\n",
            "  a\nb\n",
            "\n",
            "žluť\u{2028}",
            "12:30",
            "---",
            "on",
            "? a",
            "a\n\t b\n",
            "[a",
        ];
        for text in texts {
            check(
                &json!({"key": text, "list": [text, [text]], "after": {"deep": text}, "last": 1}),
            );
            check(&json!({text: {text: 1}}));
        }
    }

    #[test]
    fn trees_mean_the_same() {
        check(&json!({
            "on": {"push": null, "branches": []},
            "map": {},
            "list": [1, "1", 1.5, true, null, ["a", []], {"a": "b", "c": {"d": ["e"]}}, {}],
            "steps": [{"run": "a\nb\n", "env": {"X": "1"}}, {"uses": "a/b@v1"}],
        }));
    }

    #[test]
    fn it_looks_like_what_a_server_writes() {
        let value = json!({
            "name": "ci", "on": {"push": {"branches": ["main"]}}, "env": {"COLOR": "1"},
            "jobs": {"unit": {"steps": [{"id": "t", "run": "a\nb\n"}]}},
        });
        assert_eq!(
            emit(&Node::of(&value)),
            "name: ci\n\"on\":\n  push:\n    branches:\n      - main\nenv:\n  COLOR: \"1\"\njobs:\n  unit:\n    \
             steps:\n      - id: t\n        run: |\n          a\n          b\n"
        );
    }
}
