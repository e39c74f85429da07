//! The matrix, by GitHub's rules.

use serde_json::{Value as Json, json};

use super::{job, one_job, refused, scope};
use crate::workflow::expand;

/// The legs of a matrix, and the suffix of each.
fn legs(matrix: &str) -> (Vec<Json>, Vec<String>) {
    let job = job(&format!("strategy:\n  matrix: {matrix}"));
    let legs = expand(&job, &scope()).unwrap_or_else(|error| panic!("{error}"));
    assert!(legs.iter().enumerate().all(|(at, leg)| leg.index == at && leg.total == legs.len()));
    legs.into_iter().map(|leg| (leg.matrix, leg.suffix)).unzip()
}

fn expect(matrix: &str, expected: &Json) {
    assert_eq!(&Json::Array(legs(matrix).0), expected, "{matrix}");
}

/// The error of a matrix that is known to be wrong only when it is evaluated.
fn fails(matrix: &str) -> String {
    let job = job(&format!("strategy:\n  matrix: {matrix}"));
    expand(&job, &scope()).expect_err("it is wrong").to_string()
}

#[test]
fn the_first_name_changes_slowest() {
    expect(
        "{a: [1, 2], b: [x, y]}",
        &json!([{"a": 1, "b": "x"}, {"a": 1, "b": "y"}, {"a": 2, "b": "x"}, {"a": 2, "b": "y"}]),
    );
}

#[test]
fn values_keep_their_types() {
    expect(
        "{a: [true, 1.50, '1', ~, {k: [v]}]}",
        &json!([{"a": true}, {"a": 1.5}, {"a": "1"}, {"a": null}, {"a": {"k": ["v"]}}]),
    );
}

#[test]
fn include_adds_to_the_legs_that_it_fits_and_else_makes_one() {
    // The example of GitHub's own manual for these rules, with other words.
    expect(
        "{f: [a, p], n: [c, d], include: [{col: g}, {col: k, n: c}, {f: a, sh: o}, {f: b}, {f: b, n: c}]}",
        &json!([
            {"f": "a", "n": "c", "col": "k", "sh": "o"},
            {"f": "a", "n": "d", "col": "g", "sh": "o"},
            {"f": "p", "n": "c", "col": "k"},
            {"f": "p", "n": "d", "col": "g"},
            {"f": "b"},
            {"f": "b", "n": "c"},
        ]),
    );
}

#[test]
fn include_alone_makes_the_legs() {
    expect("{include: [{a: 1}, {a: 2, b: 3}]}", &json!([{"a": 1}, {"a": 2, "b": 3}]));
    expect("{include: [{a: 1}, {b: 2}]}", &json!([{"a": 1}, {"b": 2}]));
}

#[test]
fn include_never_changes_an_original_value() {
    expect("{a: [1], include: [{a: 2, b: 3}]}", &json!([{"a": 1}, {"a": 2, "b": 3}]));
}

#[test]
fn exclude_takes_legs_away_before_include_adds() {
    expect(
        "{a: [1, 2], b: [x, y], exclude: [{a: 1}, {a: 2, b: x}], include: [{a: 1}]}",
        &json!([{"a": 2, "b": "y"}, {"a": 1}]),
    );
    expect("{a: [{k: 1, l: 2}, {k: 2}], exclude: [{a: {k: 1}}]}", &json!([{"a": {"k": 2}}]));
}

#[test]
fn expressions_stand_for_the_whole_a_dimension_or_a_value() {
    let whole = "${{ fromJSON(needs.list.outputs.matrix) }}";
    expect(whole, &json!([{"os": "tiny", "n": 1}, {"os": "debian-12", "n": 1}]));
    expect("{a: '${{ fromJSON(needs.list.outputs.names) }}'}", &json!([{"a": "x"}, {"a": "y"}]));
    expect("{a: ['${{ github.ref_name }}-1', 2]}", &json!([{"a": "main-1"}, {"a": 2}]));
    expect("{include: '${{ fromJSON(''[{\"a\": true}]'') }}'}", &json!([{"a": true}]));
}

#[test]
fn a_value_is_evaluated_once() {
    let text = "{a: [\"${{ format('{0}{1}', '$', '{{ secrets.CANARY }}') }}\"]}";
    expect(text, &json!([{"a": "${{ secrets.CANARY }}"}]));
    let nested = r#"{a: "${{ fromJSON('[\"$\\u007b{ secrets.CANARY }}\"]') }}"}"#;
    expect(nested, &json!([{"a": "${{ secrets.CANARY }}"}]));
}

#[test]
fn the_suffix_shows_the_values() {
    let (_, suffixes) = legs("{a: [1, {k: [x, true]}], b: ['', y]}");
    assert_eq!(suffixes, ["(1)", "(1, y)", "(x, true)", "(x, true, y)"]);
    let job = job("name: x");
    let legs = expand(&job, &scope()).expect("no matrix is one leg");
    assert_eq!((legs.len(), legs[0].suffix.as_str(), &legs[0].matrix), (1, "", &Json::Null));
}

#[test]
fn what_is_wrong_is_said_when_it_is_known() {
    let shown = fails("{a: '${{ github.ref_name }}'}");
    assert!(shown.contains("the matrix of job \"a\" needs a list of values for \"a\""), "{shown}");
    assert!(shown.starts_with("ci.yml:6:16:"), "{shown}");
    assert!(fails("${{ fromJSON('[]') }}").contains("must be a mapping"));
    assert!(fails("${{ fromJSON('{\"a\":[]}') }}").contains("no values for \"a\""));
    assert!(fails("${{ fromJSON('{') }}").contains("has no value"));
    assert!(fails("${{ needs.list.outputs.none }}").contains("must be a mapping"));
}

#[test]
fn the_number_of_legs_is_bounded() {
    let list = |count: usize| {
        let values: Vec<_> = (0..count).map(|n| n.to_string()).collect();
        format!("[{}]", values.join(", "))
    };
    assert_eq!(legs(&format!("{{a: {}, b: {}}}", list(16), list(16))).0.len(), 256);
    let text = |matrix: String| one_job(&format!("runs-on: x\nstrategy:\n  matrix: {matrix}"));
    let over = refused(&text(format!("{{a: {}}}", list(257))));
    assert!(over.contains("more than 256 legs"), "{over}");
    let fields: Vec<_> = (0..30).map(|n| format!("k{n}: {}", list(10))).collect();
    let huge = refused(&text(format!("{{{}}}", fields.join(", "))));
    assert!(huge.contains("more than 256 legs"), "{huge}");
    let include: Vec<_> = (0..257).map(|n| format!("{{a: {n}}}")).collect();
    let many = refused(&text(format!("{{include: [{}]}}", include.join(", "))));
    assert!(many.contains("more than 256 legs"), "{many}");
}
