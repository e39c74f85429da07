//! `solstice expression`.

use crate::place::{Place, place};

/// Contexts with something of each kind in them.
const CONTEXTS: &str = r#"{
    "github": {"ref": "refs/heads/main", "event": {"list": [1, 2.50, 1e21, true, null]}},
    "Own": {"text": "${{ secrets.CANARY }}"}
}"#;

#[track_caller]
fn prints(place: &Place, arguments: &[&str], expected: &str) {
    let arguments = [&["expression"][..], arguments].concat();
    let done = place.solstice(&arguments);
    assert_eq!((done.stderr.as_str(), done.code), ("", 0), "{arguments:?}");
    assert_eq!(done.stdout, expected, "{arguments:?}");
    assert!(!done.created);
}

#[test]
fn a_value_is_printed_as_json() {
    let place = place();
    for (expression, expected) in [
        ("", "null\n"),
        ("'it''s'", "\"it's\"\n"),
        ("1.50", "1.5\n"),
        ("1 < 2", "true\n"),
        ("fromJSON('[1,{\"a\":[]}]')", "[\n  1,\n  {\n    \"a\": []\n  }\n]\n"),
        ("NaN", "NaN\n"),
        ("Infinity", "Infinity\n"),
        ("-1", "-1\n"),
        ("github.ref", "null\n"),
        ("secrets", "{}\n"),
    ] {
        prints(&place, &[expression], expected);
    }
    prints(&place, &["--", "-Infinity"], "-Infinity\n");
}

#[test]
fn the_contexts_are_those_of_the_file() {
    let place = place().file("contexts.json", CONTEXTS);
    let with = ["--context", "contexts.json"];
    for (expression, expected) in [
        ("GitHub.REF", "\"refs/heads/main\"\n"),
        ("toJSON(github.event.list[1])", "\"2.5\"\n"),
        ("github.event.list[2]", "1E+21\n"),
        ("own.text", "\"${{ secrets.CANARY }}\"\n"),
        ("github == github", "true\n"),
    ] {
        prints(&place, &[with[0], with[1], expression], expected);
    }
    let done = place.solstice(&["expression", with[0], with[1], "true &&\n  runner.os"]);
    assert_eq!(
        done.stderr,
        "error: expression:2:3: the context \"runner\" is not available here: here exist github, \
         Own\n  2 |   runner.os\n    |   ^\n"
    );
    assert_eq!((done.code, done.stdout.as_str()), (64, ""));
}

#[test]
fn status_functions_answer_by_the_status() {
    let place = place();
    let every = "format('{0} {1} {2} {3}', success(), failure(), cancelled(), always())";
    for (status, expected) in [
        ("success", "\"true false false true\"\n"),
        ("failure", "\"false true false true\"\n"),
        ("cancelled", "\"false false true true\"\n"),
    ] {
        prints(&place, &["--status", status, every], expected);
    }
    prints(&place, &["success()"], "true\n");
    let done = place.solstice(&["expression", "--status", "skipped", "1"]);
    assert_eq!(done.code, 64, "{}", done.stderr);
}

#[test]
fn files_are_hashed_below_the_working_directory() {
    // The digest of the digest of each file (forgejo-runner-protocol 8.5).
    let place = place().file("a.lock", "hello\n").file("b.lock", "world\n");
    let done = place.solstice(&["expression", "hashFiles('*.lock') != hashFiles('a.lock')"]);
    assert_eq!((done.stdout.as_str(), done.stderr.as_str()), ("true\n", ""));
    prints(&place, &["hashFiles('none')"], "\"\"\n");
}

#[test]
fn an_error_has_its_place() {
    place().refuses(
        &["expression", "true || succes()"],
        "error: expression:1:9: unknown function \"succes\": did you mean \"success\"?\n  1 | true \
         || succes()\n    |         ^\n",
    );
    let done = place().solstice(&["expression", "1 == fromJSON('{')"]);
    let start = "error: expression:1:6: fromJSON cannot read its text: ";
    assert!(done.stderr.starts_with(start), "{}", done.stderr);
    assert!(done.stderr.ends_with("\n  1 | 1 == fromJSON('{')\n    |      ^\n"), "{}", done.stderr);
    assert_eq!((done.code, done.stdout.as_str()), (64, ""));
}

#[test]
fn a_file_of_contexts_that_is_none() {
    let place = place().file("list.json", "[]").file("text.json", "hello");
    place.refuses(
        &["expression", "--context", "list.json", "1"],
        "error: list.json holds a list, but must be an object of contexts\nhint: write it as \
         {\"github\": {\"ref\": \"refs/heads/main\"}}\n",
    );
    place.refuses(
        &["expression", "--context", "text.json", "1"],
        "error: text.json is not JSON: expected value at line 1 column 1\n",
    );
    place.refuses(
        &["expression", "--context", "none.json", "1"],
        "error: cannot read none.json: No such file or directory (os error 2)\n",
    );
}
