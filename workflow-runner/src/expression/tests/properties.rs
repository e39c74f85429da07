//! Properties that hold for every text and every tree.

use proptest::prelude::*;

use super::*;
use crate::expression::ast::{Comparison, Node, Offset};
use crate::expression::function::Function;

fn config() -> ProptestConfig {
    // Nothing is left behind: a failure prints its case.
    ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() }
}

/// Text that is nearly an expression.
fn soup() -> impl Strategy<Value = String> {
    let pieces = prop::sample::select(vec![
        "(",
        ")",
        "[",
        "]",
        ".",
        "*",
        ",",
        "!",
        "==",
        "!=",
        "<",
        "<=",
        ">",
        ">=",
        "&&",
        "||",
        "&",
        "|",
        "=",
        "'",
        "''",
        "'a'",
        "\"",
        "a",
        "github",
        "null",
        "true",
        "1",
        "-1",
        "1e5",
        "0x1f",
        ".5",
        "-",
        "+",
        "NaN",
        " ",
        "\n",
        "format",
        "join(",
        "case(",
        "success()",
        "toJSON(",
        "ä",
        "😀",
        "${{",
        "}}",
        "\u{0}",
    ]);
    prop::collection::vec(pieces, 0..40).prop_map(|pieces| pieces.concat())
}

fn literal() -> impl Strategy<Value = Node> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<f64>().prop_map(Value::Number),
        (-1000..1000_i32).prop_map(|number| Value::Number(f64::from(number))),
        ".{0,8}".prop_map(Value::from),
        "[a-z'{}0]{0,6}".prop_map(Value::from),
    ]
    .prop_map(|value| match value {
        // There is one NaN in the language.
        Value::Number(number) if number.is_nan() => Node::Literal(Value::Number(f64::NAN)),
        value => Node::Literal(value),
    })
}

fn context() -> impl Strategy<Value = Node> {
    prop::sample::select(vec!["list", "map", "text", "github", "missing"])
        .prop_map(|name| Node::Context(name.into(), Offset::default()))
}

fn comparison() -> impl Strategy<Value = Comparison> {
    prop::sample::select(vec![
        Comparison::Equal,
        Comparison::NotEqual,
        Comparison::Less,
        Comparison::LessOrEqual,
        Comparison::Greater,
        Comparison::GreaterOrEqual,
    ])
}

/// A function and how many values it is called with.
fn function() -> impl Strategy<Value = (Function, usize)> {
    prop::sample::select(vec![
        (Function::Contains, 2),
        (Function::StartsWith, 2),
        (Function::EndsWith, 2),
        (Function::Format, 3),
        (Function::Join, 1),
        (Function::Join, 2),
        (Function::ToJson, 1),
        (Function::FromJson, 1),
        (Function::Case, 3),
        (Function::Case, 5),
        (Function::HashFiles, 2),
        (Function::Success, 0),
        (Function::Failure, 0),
        (Function::Always, 0),
        (Function::Cancelled, 0),
    ])
}

/// Trees as the parser makes them.
fn tree() -> impl Strategy<Value = Node> {
    prop_oneof![literal(), context()].prop_recursive(6, 64, 5, |node| {
        let boxed = node.clone().prop_map(Box::new);
        let chain = prop::collection::vec(node.clone(), 2..4);
        prop_oneof![
            (function(), prop::collection::vec(node, 5)).prop_map(
                |((function, count), mut values)| {
                    values.truncate(count);
                    Node::Call(function, values, Offset::default())
                }
            ),
            (boxed.clone(), boxed.clone()).prop_map(|(target, index)| Node::Index(target, index)),
            boxed.clone().prop_map(Node::Filter),
            boxed.clone().prop_map(Node::Not),
            (comparison(), boxed.clone(), boxed)
                .prop_map(|(comparison, left, right)| Node::Compare(comparison, left, right)),
            chain.clone().prop_map(|values| flat(values, true)),
            chain.prop_map(|values| flat(values, false)),
        ]
    })
}

/// A chain without chains of its own kind in it.
fn flat(values: Vec<Node>, and: bool) -> Node {
    let mut links = Vec::new();
    for value in values {
        match value {
            Node::And(inner) if and => links.extend(inner),
            Node::Or(inner) if !and => links.extend(inner),
            other => links.push(other),
        }
    }
    if and { Node::And(links) } else { Node::Or(links) }
}

fn scope() -> Contexts {
    Contexts::new(&json!({
        "list": [1, "two", [3, {"a": 4}], {"a": [5], "B": null}, true],
        "map": {"a": {"b": [6, 7]}, "list": ["x"], "": 8, "'": 9},
        "text": "{\"a\": [1, \"{0}\"]}",
        "github": {"ref": "refs/heads/main"},
    }))
    .hash(HashFiles::Unknown)
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn the_parser_answers_every_text(text in any::<String>()) {
        check_answer(&text)?;
    }

    #[test]
    fn the_parser_answers_every_soup(text in soup()) {
        check_answer(&text)?;
    }

    #[test]
    fn a_printed_tree_parses_to_itself(tree in tree()) {
        let printed = tree.to_string();
        let parsed = Expression::parse(&printed)
            .map_err(|error| TestCaseError::fail(format!("{printed}: {error:?}")))?;
        // Debug output tells every double from every other.
        prop_assert_eq!(format!("{:?}", parsed.root()), format!("{tree:?}"), "{}", printed);
        prop_assert_eq!(parsed.to_string(), printed);
    }

    #[test]
    fn every_tree_has_a_value_or_an_error(tree in tree()) {
        let printed = tree.to_string();
        let parsed = Expression::parse(&printed)
            .map_err(|error| TestCaseError::fail(format!("{printed}: {error:?}")))?;
        match parsed.evaluate(&scope()) {
            Ok(value) => {
                // Also what is done with a value is total.
                drop((value.to_text(), value.is_truthy(), value.to_json()));
            }
            Err(EvaluateError::Parse(error)) => prop_assert!(false, "{printed}: {error}"),
            Err(EvaluateError::Invalid { message, offset }) => {
                prop_assert!(!message.is_empty());
                prop_assert!(offset.is_none_or(|offset| offset < printed.chars().count()));
            }
            Err(EvaluateError::NeedsHash(patterns)) => prop_assert!(!patterns.is_empty()),
        }
    }

    #[test]
    fn numbers_survive_their_text_to_15_digits(number in any::<f64>()) {
        let text = Value::Number(number).to_text();
        let read = Value::from(text.as_str()).to_number();
        if number.is_finite() {
            prop_assert!((read - number).abs() <= number.abs() * 1e-14, "{number:?}: {text}");
            prop_assert_eq!(Value::Number(read).to_text(), text);
        }
    }

    #[test]
    fn what_to_json_writes_from_json_reads(value in any_json()) {
        let value = Value::from_json(&value);
        let text = value.to_json_text().unwrap();
        let literal = Value::from(text.clone());
        let scope = Contexts::new(&json!({"text": literal.to_json()}));
        let read = evaluate("fromJSON(text)", &scope).unwrap();
        prop_assert_eq!(read.to_json_text().unwrap(), text);
    }
}

/// A text parses, or has an error whose place is in it.
fn check_answer(text: &str) -> Result<(), TestCaseError> {
    match Expression::parse(text) {
        Ok(expression) => {
            let printed = expression.to_string();
            let again = Expression::parse(&printed)
                .map_err(|error| TestCaseError::fail(format!("{printed}: {error:?}")))?;
            prop_assert_eq!(format!("{:?}", again.root()), format!("{:?}", expression.root()));
        }
        Err(error) => {
            prop_assert!(error.offset <= text.chars().count(), "{error:?}");
            prop_assert!(!error.message.is_empty());
            prop_assert!(!error.message.ends_with('.'));
        }
    }
    Ok(())
}

fn any_json() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        (-1_000_000..1_000_000_i64).prop_map(Json::from),
        any::<String>().prop_map(Json::from),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Json::from),
            prop::collection::vec((any::<String>(), inner), 0..6)
                .prop_map(|pairs| Json::from(pairs.into_iter().collect::<serde_json::Map<_, _>>())),
        ]
    })
}
