//! Templates, values of a plan, and conditions.

use common::event::JobResult;
use common::plan::Value as Plan;
use proptest::prelude::*;
use serde_json::json;

use super::segments::{Segment, segments};
use super::*;
use crate::expression::HashFiles;
use crate::expression::tests::{Contexts, show};

fn scope() -> Contexts {
    Contexts::new(&json!({
        "a": "A",
        "zero": 0,
        "map": {"x": 1, "Y": "${{ secrets.CANARY }}"},
        "list": ["one", 2],
        "secrets": {"CANARY": "leaked"},
        "none": null,
    }))
}

fn template(text: &str) -> Plan {
    Plan::Template(text.to_owned())
}

#[test]
fn a_template_is_taken_apart() {
    let text = "ä ${{ a }}${{'}}'}} b ${{ 'it''s }}' }}";
    let expected = [
        Segment::Text("ä "),
        Segment::Expression { text: "a", offset: 6 },
        Segment::Expression { text: "'}}'", offset: 13 },
        Segment::Text(" b "),
        Segment::Expression { text: "'it''s }}'", offset: 26 },
    ];
    assert_eq!(segments(text).unwrap(), expected);
    assert_eq!(
        expressions(text).unwrap(),
        [(6, "a".to_owned()), (13, "'}}'".to_owned()), (26, "'it''s }}'".to_owned())]
    );
    assert_eq!(segments("").unwrap(), []);
    assert_eq!(segments("}} $ {{ }} '").unwrap(), [Segment::Text("}} $ {{ }} '")]);
}

#[test]
fn templates_that_are_not_whole() {
    for (text, offset, message) in [
        ("ä ${{ a", 2, "is not closed with }}"),
        ("${{ a }} ${{ 'b }}", 9, "no closing '"),
        ("${{ a }", 0, "is not closed"),
        ("${{", 0, "is not closed"),
        ("x ${{ }}", 2, "there is no expression between ${{ and }}"),
        ("${{}}", 0, "there is no expression"),
        ("ä: ${{ a b }}", 9, "an operator such as == or && is missing"),
        ("${{ a }}${{ foo() }}", 12, "unknown function \"foo\""),
        ("${{ a ${{ b }} }}", 6, "cannot contain another"),
    ] {
        let error = text_value(text).unwrap_err();
        assert!(error.message.contains(message), "{text}: {error}");
        assert_eq!(error.offset, offset, "{text}: {error}");
    }
}

#[test]
fn text_becomes_a_literal_or_a_template() {
    for text in ["", "plain", "$ {{ a }}", "{{ a }}", "}}"] {
        assert_eq!(text_value(text).unwrap(), Plan::literal(text));
    }
    for text in ["${{ a }}", "x ${{ a }} y", "${{ insert }}"] {
        assert_eq!(text_value(text).unwrap(), template(text));
    }
}

#[test]
fn values_are_evaluated() {
    for (value, expected) in [
        (Plan::literal("${{ a }}"), r#""${{ a }}""#),
        (template("${{ zero }}"), "0"),
        (template("${{ map.x == 1 }}"), "true"),
        (template("${{ list }}"), r#"["one",2]"#),
        (template("${{ none }}"), "null"),
        (template(" ${{ zero }}"), r#"" 0""#),
        (template("${{ a }}${{ zero }}"), r#""A0""#),
        (template("<${{ none }}|${{ true }}|${{ list }}|${{ map }}>"), r#""<|true|Array|Object>""#),
        (template("{0} {{ ${{ a }} }}"), r#""{0} {{ A }}""#),
        (template("${{ '}}' }}"), r#""}}""#),
        (Plan::Expression("list[0]".into()), r#""one""#),
        (Plan::Expression(String::new()), "null"),
        (Plan::Sequence(vec![template("${{ zero }}"), Plan::literal("x")]), r#"[0,"x"]"#),
        (Plan::empty_mapping(), "{}"),
    ] {
        assert_eq!(show(&evaluate(&value, &scope()).unwrap()), expected, "{value:?}");
    }
}

#[test]
fn mappings_are_evaluated_in_order() {
    let mapping = Plan::Mapping(vec![
        (Plan::literal("b"), template("${{ zero }}")),
        (template("k-${{ a }}"), Plan::literal("v")),
        (Plan::Expression("1 == 1".into()), Plan::Sequence(Vec::new())),
        (Plan::literal("b"), Plan::literal("later")),
        (Plan::literal("B"), Plan::literal("another")),
    ]);
    let value = evaluate(&mapping, &scope()).unwrap();
    assert_eq!(show(&value), r#"{"b":"later","k-A":"v","true":[],"B":"another"}"#);
    assert_eq!(value.get("K-a").map(show).as_deref(), Some(r#""v""#));
    assert_eq!(value.get("B").map(show).as_deref(), Some(r#""another""#));
}

#[test]
fn a_mapping_is_inserted() {
    for key in [Plan::Insert, template("${{ insert }}")] {
        let mapping = Plan::Mapping(vec![
            (Plan::literal("x"), Plan::literal("before")),
            (key.clone(), Plan::Expression("map".into())),
            (Plan::literal("z"), Plan::literal("after")),
        ]);
        assert_eq!(
            show(&evaluate(&mapping, &scope()).unwrap()),
            r#"{"x":1,"Y":"${{ secrets.CANARY }}","z":"after"}"#
        );
        let wrong = Plan::Mapping(vec![(key, template("${{ list }}"))]);
        let error = evaluate(&wrong, &scope()).unwrap_err().to_string();
        assert_eq!(error, "${{ insert }} needs a mapping, not a list");
    }
    assert!(evaluate(&Plan::Insert, &scope()).is_err());
}

#[test]
fn keys_must_be_text() {
    for (key, message) in [("none", "is null"), ("list", "is a list"), ("map", "is a mapping")] {
        let mapping = Plan::Mapping(vec![(Plan::Expression(key.into()), Plan::literal(""))]);
        let error = evaluate(&mapping, &scope()).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }
}

#[test]
fn a_result_is_never_evaluated_again() {
    for value in [
        template("${{ map.y }}"),
        template("x ${{ map.y }}"),
        Plan::Expression("format('{0}', map.y)".into()),
        Plan::Expression("map.*".into()),
        Plan::Mapping(vec![(template("${{ map.y }}"), template("${{ map.y }}"))]),
    ] {
        let shown = show(&evaluate(&value, &scope()).unwrap());
        assert!(shown.contains("${{ secrets.CANARY }}") && !shown.contains("leaked"), "{shown}");
    }
}

#[test]
fn errors_keep_their_place_in_the_template() {
    let error = evaluate(&template("ää ${{ a }} ${{ b c }}"), &scope()).unwrap_err();
    match error {
        EvaluateError::Parse(error) => assert_eq!(error.offset, 18),
        other => panic!("{other}"),
    }
    let unknown = Contexts::new(&json!({})).hash(HashFiles::Unknown);
    assert_eq!(
        evaluate(&template("key-${{ hashFiles('a', 'b') }}"), &unknown).unwrap_err(),
        EvaluateError::NeedsHash(vec!["a".to_owned(), "b".to_owned()])
    );
}

#[test]
fn a_value_shares_one_budget() {
    let scope = Contexts::new(&json!({"large": "x".repeat(3 << 20)}));
    let part = template("<${{ large }}>");
    assert!(evaluate(&Plan::Sequence(vec![part.clone(); 3]), &scope).is_ok());
    let error = evaluate(&Plan::Sequence(vec![part; 4]), &scope).unwrap_err().to_string();
    assert!(error.contains("larger than 10 MiB"), "{error}");
    // A value that is only passed on is not produced.
    assert!(evaluate(&Plan::Sequence(vec![template("${{ large }}"); 40]), &scope).is_ok());
}

#[test]
fn conditions() {
    // For each condition: whether it holds in a job that succeeds, failed, was cancelled.
    for (text, expected) in [
        (None, [true, false, false]),
        (Some(""), [true, false, false]),
        (Some("  \n"), [true, false, false]),
        (Some("true"), [true, false, false]),
        (Some("false"), [false, false, false]),
        (Some("zero"), [false, false, false]),
        (Some("list"), [true, false, false]),
        (Some("'false'"), [true, false, false]),
        (Some("success()"), [true, false, false]),
        (Some("failure()"), [false, true, false]),
        (Some("cancelled()"), [false, false, true]),
        (Some("always()"), [true, true, true]),
        (Some("!cancelled()"), [true, true, false]),
        (Some("!success()"), [false, true, true]),
        (Some("ALWAYS() && a == 'a'"), [true, true, true]),
        (Some("${{ always() && a == 'b' }}"), [false, false, false]),
        (Some("${{ a == 'a' }}"), [true, false, false]),
        (Some("${{ failure() || a == 'b' }}"), [false, true, false]),
        (Some("contains('always()', a)"), [true, false, false]),
        // Text around an expression makes the whole a text, which is true.
        (Some("${{ false }} "), [true, false, false]),
        (Some("${{ false }}\n"), [true, false, false]),
        (Some("${{ a }} == 'b'"), [true, false, false]),
        (Some("!${{ always() }}"), [true, true, true]),
        (Some("${{ zero }}${{ none }}"), [true, false, false]),
        (Some("${{ none }}${{ '' }}"), [false, false, false]),
    ] {
        let statuses = [JobResult::Success, JobResult::Failure, JobResult::Cancelled];
        let holds = statuses.map(|status| condition(text, &scope().status(Some(status))).unwrap());
        assert_eq!(holds, expected, "{text:?}");
    }
}

#[test]
fn conditions_with_errors() {
    for (text, offset) in [("a b", 2), ("${{ a b }}", 6), ("${{ a", 0), ("${{ }}", 0), ("\"a\"", 0)]
    {
        match condition(Some(text), &scope()) {
            Err(EvaluateError::Parse(error)) => assert_eq!(error.offset, offset, "{text}"),
            other => panic!("{text}: {other:?}"),
        }
    }
    let failed = || scope().status(Some(JobResult::Failure));
    // A condition must parse even where it is not needed, and is not evaluated there.
    assert!(condition(Some("a b"), &failed()).is_err());
    assert!(!condition(Some("unknown.value"), &failed()).unwrap());
    assert!(condition(Some("unknown.value"), &scope()).is_err());
    assert!(condition(Some("${{ always() }}${{ unknown }}"), &scope()).is_err());
    assert!(condition(Some("true"), &scope().status(None)).is_err());
}

#[test]
fn a_condition_tells_whether_it_is_mixed() {
    for (text, mixed) in
        [("", false), ("a", false), ("${{ a }}", false), ("${{ a }} ", true), ("!${{ a }}", true)]
    {
        assert_eq!(Condition::parse(text).unwrap().is_mixed(), mixed, "{text:?}");
    }
    assert_eq!(Condition::parse("${{ a }}${{ zero }}").unwrap().expressions().len(), 2);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_text_is_a_value_or_an_error(pieces in prop::collection::vec(
        prop::sample::select(vec!["${{", "}}", "{", "}", "$", "'", " ", "a", "ä", "==", "\n", "insert"]),
        0..20,
    )) {
        let text = pieces.concat();
        match text_value(&text) {
            Ok(value) => {
                // What passed the check parses when it is evaluated, but for the word of a key.
                if let Err(EvaluateError::Parse(error)) = evaluate(&value, &scope()) {
                    prop_assert!(false, "{text:?}: {error}");
                }
            }
            Err(error) => prop_assert!(error.offset <= text.chars().count(), "{text:?}: {error:?}"),
        }
        if let Err(EvaluateError::Parse(error)) = condition(Some(&text), &scope()) {
            prop_assert!(error.offset <= text.chars().count(), "{text:?}: {error:?}");
        }
    }
}
