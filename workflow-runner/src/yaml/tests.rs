//! What the tree looks like, and what is refused.

use common::plan::Location;

use super::{Kind, Node, Style, parse};

fn root(text: &str) -> Node {
    parse(text, "f.yml").unwrap_or_else(|error| panic!("{error}")).root
}

fn refused(text: &str) -> String {
    match parse(text, "f.yml") {
        Ok(document) => panic!("accepted: {:?}", document.root),
        Err(error) => error.to_string(),
    }
}

/// The place of `needle` in the scalar at `key`.
fn place_of(text: &str, key: &str, needle: &str) -> (u32, u32) {
    let document = parse(text, "f.yml").unwrap_or_else(|error| panic!("{error}"));
    let node = document.root.get(key).expect("the key is there");
    let scalar = node.text().expect("a scalar");
    let byte = scalar.find(needle).expect("the needle is in the text");
    let place = node.place(&document.source, scalar[..byte].chars().count());
    (place.line, place.column)
}

#[test]
fn keys_keep_their_order_and_on_stays_text() {
    let node = root("on: push\nb: 1\na: 2\n");
    let keys: Vec<_> =
        node.as_mapping().expect("a mapping").iter().map(|(key, _)| key.text()).collect();
    assert_eq!(keys, [Some("on"), Some("b"), Some("a")]);
}

#[test]
fn plain_scalars_follow_the_core_rules() {
    let node = root(
        "[true, 'true', no, 0x1F, 0o17, 017, 1.50, .5, 1e3, .inf, inf, 1_000, ~, null, '', !!str 1, -7]",
    );
    let items = node.as_sequence().expect("a list");
    let booleans: Vec<_> = items.iter().map(Node::as_bool).take(3).collect();
    assert_eq!(booleans, [Some(true), None, None]);
    let numbers: Vec<_> = items.iter().map(Node::as_number).skip(3).take(9).collect();
    assert_eq!(
        numbers,
        [
            Some(31.0),
            Some(15.0),
            Some(17.0),
            Some(1.5),
            Some(0.5),
            Some(1000.0),
            Some(f64::INFINITY),
            None,
            None
        ]
    );
    let nulls: Vec<_> = items.iter().map(Node::is_null).skip(12).take(3).collect();
    assert_eq!(nulls, [true, true, false]);
    assert_eq!(items[15].as_number(), None);
    assert_eq!(items[3].as_int(), Some(31));
    assert_eq!(items[6].as_int(), None);
    assert_eq!(items[16].as_int(), Some(-7));
}

#[test]
fn places_count_characters_from_one() {
    let node = root("\u{feff}é: ü\r\nb:\r\n  - x\r\n");
    assert_eq!(node.get("é").map(|v| v.location), Some(Location { line: 1, column: 4 }));
    let list = node.get("b").and_then(Node::as_sequence).expect("a list");
    assert_eq!(list[0].location, Location { line: 3, column: 5 });
    assert_eq!(list[0].text(), Some("x"));
}

#[test]
fn nothing_is_null() {
    assert_eq!(root("").kind, Kind::Null);
    assert_eq!(root("# only a comment\n").kind, Kind::Null);
    assert_eq!(root("a:\n").get("a").map(|node| &node.kind), Some(&Kind::Null));
    assert_eq!(root("a: &x\nb: *x\n").get("b").map(Node::is_null), Some(true));
}

#[test]
fn aliases_repeat_values_and_anchors_can_be_redefined() {
    let node = root("a: &x {k: [1, 2]}\nb: *x\nc: &x two\nd: *x\n");
    assert_eq!(node.get("a").map(|v| &v.kind), node.get("b").map(|v| &v.kind));
    assert_eq!(node.get("d").and_then(Node::text), Some("two"));
}

#[test]
fn a_character_of_a_scalar_is_found_in_every_style() {
    assert_eq!(place_of("k: one two\n", "k", "two"), (1, 8));
    assert_eq!(place_of("k: 'it''s two'\n", "k", "two"), (1, 11));
    assert_eq!(place_of("k: \"a\\tb\\u0041 two\"\n", "k", "two"), (1, 16));
    assert_eq!(place_of("k: |\n  one\n\n    two\n", "k", "two"), (4, 5));
    assert_eq!(place_of("k: |2- # note | here\n    one\n  two\n", "k", "two"), (3, 3));
    assert_eq!(place_of("k: |\r\n  one\r\n  two\r\n", "k", "two"), (3, 3));
    assert_eq!(place_of("k: >\n  one\n  two\n", "k", "two"), (3, 3));
    assert_eq!(place_of("k: one\n  two\n", "k", "two"), (2, 3));
    assert_eq!(place_of("k: \"one \\\n  two\"\n", "k", "two"), (2, 3));
    assert_eq!(place_of("k: &a !!str one two\n", "k", "two"), (1, 17));
    assert_eq!(place_of("a: &x 'one two'\nk: *x\n", "k", "two"), (1, 12));
}

#[test]
fn the_place_past_the_end_is_the_end() {
    let document = parse("k: 'one'\n", "f.yml").expect("it parses");
    let node = document.root.get("k").expect("the key is there");
    assert_eq!(node.place(&document.source, 3), Location { line: 1, column: 8 });
}

#[test]
fn styles_are_kept() {
    let node = root("- a\n- 'a'\n- \"a\"\n- |\n  a\n- >\n  a\n");
    let styles: Vec<_> = node
        .as_sequence()
        .expect("a list")
        .iter()
        .map(|node| match &node.kind {
            Kind::Scalar(scalar) => scalar.style,
            other => panic!("{other:?}"),
        })
        .collect();
    let all =
        [Style::Plain, Style::SingleQuoted, Style::DoubleQuoted, Style::Literal, Style::Folded];
    assert_eq!(styles, all);
}

#[test]
fn an_alias_bomb_is_refused_before_it_is_expanded() {
    let mut lines = vec![String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]")];
    for level in 1..30 {
        let items = [format!("*a{}", level - 1).as_str(); 10].join(", ");
        lines.push(format!("a{level}: &a{level} [{items}]"));
    }
    let text = lines.join("\n");
    let shown = refused(&text);
    assert!(shown.starts_with("f.yml:5:10: "), "{shown}");
    assert!(shown.contains("more than 20000 values once its aliases are expanded"), "{shown}");
}

#[test]
fn a_bomb_of_text_is_refused() {
    let text = format!("a: &a {}\nb: [{}]\n", "x".repeat(500_000), vec!["*a"; 100].join(", "));
    let shown = refused(&text);
    assert!(shown.contains("bytes of text once its aliases"), "{shown}");
}

#[test]
fn an_alias_inside_its_own_value_is_refused() {
    assert!(refused("a: &a [*a]\n").contains("inside the value that it repeats"));
}

#[test]
fn depth_is_bounded_also_through_aliases() {
    let deep = format!("{}{}", "[".repeat(101), "]".repeat(101));
    assert!(refused(&deep).contains("nested more than 100 levels deep"));
    let fits = format!("{}{}", "[".repeat(99), "]".repeat(99));
    assert_eq!(parse(&fits, "f.yml").map(|_| ()), Ok(()));
    let half = format!("{}{}", "[".repeat(60), "]".repeat(60));
    let text = format!("a: &a {half}\nb: {}*a{}\n", "[".repeat(60), "]".repeat(60));
    assert!(refused(&text).contains("nested more than 100 levels deep"));
    assert!(refused(&"- ".repeat(5_000)).contains("nested more than 100 levels deep"));
    assert!(refused(&"[".repeat(5_000)).contains("nested more than 100 levels deep"));
}

#[test]
fn a_large_file_is_refused_with_both_sizes() {
    let shown = refused(&"#".repeat(1024 * 1024 + 1));
    assert!(shown.contains("a workflow may have"), "{shown}");
}

#[test]
fn an_equal_key_in_another_mapping_is_no_duplicate() {
    let node = root("a: {x: 1}\nb: {x: 1}\n");
    assert!(node.get("b").and_then(|b| b.get("x")).is_some());
}
