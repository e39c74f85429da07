//! Every function.

use super::*;

#[test]
fn contains() {
    check_in(
        &json!({"list": ["Push", 1, true, null, {"a": 1}], "map": {"a": "push"}}),
        &[
            ("contains('Hello world', 'WORLD')", "true"),
            ("contains('Hello', 'x')", "false"),
            ("contains('', '')", "true"),
            ("contains('a', '')", "true"),
            ("contains('a', null)", "true"),
            ("contains(null, 'a')", "false"),
            ("contains(12345, 34)", "true"),
            ("contains(true, 'RU')", "true"),
            ("contains('Straße', 'SSE')", "false"),
            ("contains('ÄÖÜ', 'öü')", "true"),
            ("contains(list, 'push')", "true"),
            ("contains(list, 'pus')", "false"),
            ("contains(list, '1')", "true"),
            ("contains(list, 0)", "true"),
            ("contains(list, 2)", "false"),
            ("contains(list, list[4])", "true"),
            ("contains(list, map)", "false"),
            ("contains(map, 'push')", "false"),
            ("contains(map.*, 'push')", "true"),
            ("contains('Array', list)", "false"),
            ("contains(fromJSON('[]'), null)", "false"),
            ("CONTAINS('a', 'A')", "true"),
        ],
    );
}

#[test]
fn starts_and_ends_with() {
    check_in(
        &json!({"list": ["a"], "map": {}}),
        &[
            ("startsWith('Hello', 'HE')", "true"),
            ("startsWith('Hello', 'lo')", "false"),
            ("startsWith('He', 'Hello')", "false"),
            ("startsWith('abc', '')", "true"),
            ("startsWith('abc', null)", "true"),
            ("startsWith(null, '')", "true"),
            ("startsWith(123, 12)", "true"),
            ("startsWith(true, 'T')", "true"),
            ("startsWith('Äpfel', 'ä')", "true"),
            ("startsWith(list, 'A')", "false"),
            ("startsWith('Array', list)", "false"),
            ("startsWith(map, '')", "false"),
            ("endsWith('Hello', 'LLO')", "true"),
            ("endsWith('Hello', 'he')", "false"),
            ("endsWith('lo', 'Hello')", "false"),
            ("endsWith('abc', '')", "true"),
            ("endsWith(0.5, '.5')", "true"),
            ("endsWith('grün', 'ÜN')", "true"),
            ("endsWith(list, 'y')", "false"),
            ("endsWith('Object', map)", "false"),
        ],
    );
}

#[test]
fn format_fills_in() {
    check_in(
        &json!({"list": [], "map": {}}),
        &[
            ("format('')", r#""""#),
            ("format(null)", r#""""#),
            ("format(null, 'unused')", r#""""#),
            ("format('no place', 'unused')", r#""no place""#),
            ("format('1{0}2', 'a')", r#""1a2""#),
            ("format('{0}{1}{0}', 'a', 'b')", r#""aba""#),
            ("format('{1}{0}', 'a', 'b')", r#""ba""#),
            ("format('{{0}}', 'a')", r#""{0}""#),
            ("format('{{{0}}}', 'a')", r#""{a}""#),
            ("format('{{{{0}}}}', 'a')", r#""{{0}}""#),
            ("format('}}{{')", r#""}{""#),
            ("format('}}{{}}')", r#""}{}""#),
            ("format('ä{0}ö', 'ü')", r#""äüö""#),
            // What is filled in is not read again.
            ("format('{0}', '{1} {{ }}')", r#""{1} {{ }}""#),
            ("format('{0}|{1}|{2}|{3}', null, true, list, map)", r#""|true|Array|Object""#),
            ("format('{0} {1}', 1e21, -0)", r#""1E+21 0""#),
            ("format('{10}', 0,1,2,3,4,5,6,7,8,9,'ten')", r#""ten""#),
            ("format('{00}', 'a')", r#""a""#),
            ("format(5)", r#""5""#),
        ],
    );
}

#[test]
fn format_refuses_wrong_places() {
    let places = [
        "{0", "{0}}", "{0}}}}", "0}", "{{0}", "{{{{0}", "}0{", "}{0}", "{0}{", "{}", "{a}",
        "{ 0 }", "{-1}", "{+0}", "{0:x}", "{", "}",
    ];
    let rows: Vec<String> = places.iter().map(|place| format!("format('{place}', 'a')")).collect();
    let rows: Vec<(&str, &str)> =
        rows.iter().map(|row| (&**row, "format cannot read its text at")).collect();
    check_errors_in(&json!({}), &rows);
    check_errors_in(
        &json!({}),
        &[
            ("format('{0}')", "format asks for {0}, but only 0 values follow"),
            ("format('{0}{1}', 'a')", "format asks for {1}, but only 1 value follows"),
            ("format('{99999999999999999999999999}', 'a')", "format asks for {9999"),
        ],
    );
}

#[test]
fn join() {
    check_in(
        &json!({"list": ["a", 1, true, null, [], {}], "map": {"a": "x", "b": "y"}}),
        &[
            ("join(list)", r#""a,1,true,,Array,Object""#),
            ("join(list, ' + ')", r#""a + 1 + true +  + Array + Object""#),
            ("join(list, '')", r#""a1trueArrayObject""#),
            ("join(list, null)", r#""a1trueArrayObject""#),
            ("join(list, 0)", r#""a010true00Array0Object""#),
            ("join(list, map)", r#""a,1,true,,Array,Object""#),
            ("join(map)", r#""""#),
            ("join(map.*, '/')", r#""x/y""#),
            ("join('text', '-')", r#""text""#),
            ("join(12)", r#""12""#),
            ("join(null)", r#""""#),
            ("join(fromJSON('[]'))", r#""""#),
            ("join(fromJSON('[1]'), 'x')", r#""1""#),
        ],
    );
}

#[test]
fn to_json() {
    let scope = Contexts::new(&json!({
        "m": {"b": 1, "a": [true, null, {}, [], {"x": "y"}, [[2]]], "q\"": ""},
    }));
    for (expression, expected) in [
        ("toJSON(null)", "null"),
        ("toJSON(true)", "true"),
        ("toJSON(1.50)", "1.5"),
        ("toJSON(-0)", "0"),
        ("toJSON(1e20)", "1E+20"),
        ("toJSON(NaN)", "NaN"),
        ("toJSON(-Infinity)", "-Infinity"),
        ("toJSON('')", r#""""#),
        ("toJSON('a\"b\\/\u{8}\u{c}\n\r\tä😀')", r#""a\"b\\/\b\f\n\r\tä😀""#),
        ("toJSON('\u{1}\u{1f}\u{7f}')", "\"\\u0001\\u001f\u{7f}\""),
        ("toJSON('\u{85}\u{2028}\u{2029}')", r#""\u0085\u2028\u2029""#),
        ("toJSON(fromJSON('[]'))", "[]"),
        ("toJSON(fromJSON('{}'))", "{}"),
        ("tojson(fromjson('[1]'))", "[\n  1\n]"),
        (
            "toJSON(m)",
            "{\n  \"b\": 1,\n  \"a\": [\n    true,\n    null,\n    {},\n    [],\n    {\n      \
             \"x\": \"y\"\n    },\n    [\n      [\n        2\n      ]\n    ]\n  ],\n  \"q\\\"\": \
             \"\"\n}",
        ),
    ] {
        assert_eq!(evaluate(expression, &scope).unwrap().to_text(), expected, "{expression}");
    }
}

#[test]
fn from_json() {
    check(&[
        ("fromJSON('null')", "null"),
        ("fromJSON(' true ')", "true"),
        ("fromJSON('-0')", "0"),
        ("fromJSON('-1234.5e1')", "-12345"),
        ("fromJSON('12345678901234567890')", "1.23456789012346E+19"),
        ("fromJSON('\"a\\u00e4\\n\"')", r#""aä\n""#),
        ("fromJSON('\"it''s\"')", r#""it's""#),
        ("fromJSON('[1, [2], {\"a\": null}]')", r#"[1,[2],{"a":null}]"#),
        ("fromJSON('{\"z\": 1, \"a\": 2, \"m\": 3}')", r#"{"z":1,"a":2,"m":3}"#),
        // The later value, in the place of the first.
        ("fromJSON('{\"a\": 1, \"b\": 2, \"A\": 3}')", r#"{"a":3,"b":2}"#),
        ("fromJSON(true)", "true"),
        ("fromJSON(5)", "5"),
        ("fromJSON(toJSON(fromJSON('{\"a\": [1, \"x\"]}'))).a[1]", r#""x""#),
        ("fromJSON('[\"a\"]').*", r#"["a"]"#),
    ]);
    let wrong = [
        "[1,]",
        "{a: 1}",
        "''a''",
        "[1] 2",
        "{\"a\" 1}",
        "nul",
        "NaN",
        "01",
        "\"\\x\"",
        "// a",
        "[1",
        "\"a",
    ];
    for text in wrong {
        check_errors_in(
            &json!({}),
            &[(&format!("fromJSON('{text}')"), "fromJSON cannot read its text: ")],
        );
    }
    check_errors_in(
        &json!({"job": {}}),
        &[
            ("fromJSON('')", "fromJSON cannot read an empty text"),
            ("fromJSON(job.missing)", "what it was given is empty or not set"),
            ("fromJSON(job)", "fromJSON cannot read its text: expected value at line 1 column 1"),
        ],
    );
}

#[test]
fn case() {
    check_in(
        &json!({"github": {"ref": "refs/heads/main"}}),
        &[
            ("case(true, 'first', 'default')", r#""first""#),
            ("case(false, 'first', 'default')", r#""default""#),
            ("case(false, 1, true, 2, 3)", "2"),
            ("case(false, 1, false, 2, 3)", "3"),
            ("case(true, false, true)", "false"),
            ("case(github.ref == 'REFS/heads/main', 'main', 'other')", r#""main""#),
            ("case(true, fromJSON('[1]'), 0)[0]", "1"),
        ],
    );
    check_errors_in(
        &json!({}),
        &[
            ("case('a', 1, 2)", "a condition of case must be true or false, not text"),
            ("case(1, 1, 2)", "not a number"),
            ("case(null, 1, 2)", "not null"),
            ("case(fromJSON('[]'), 1, 2)", "not a list"),
            ("case(false, 1, fromJSON('{}'), 1, 2)", "not a mapping"),
        ],
    );
}

#[test]
fn status_functions() {
    for (status, success, failure, cancelled) in [
        (JobResult::Success, true, false, false),
        (JobResult::Failure, false, true, false),
        (JobResult::Cancelled, false, false, true),
    ] {
        let scope = Contexts::new(&json!({})).status(Some(status));
        for (expression, expected) in [
            ("success()", success),
            ("failure( )", failure),
            ("Cancelled ()", cancelled),
            ("always()", true),
        ] {
            let value = evaluate(expression, &scope).unwrap();
            assert_eq!(show(&value), expected.to_string(), "{expression} when {status:?}");
        }
    }
    let scope = Contexts::new(&json!({})).status(None);
    for name in ["success", "failure", "cancelled", "always"] {
        let error = evaluate(&format!("{name}()"), &scope).unwrap_err().to_string();
        assert!(error.contains(&format!("{name} is not available here")), "{error}");
    }
}

#[test]
fn hash_files() {
    let expression = "'x' && hashFiles('**/*.lock', format('{0}.toml', 1))";
    let patterns = vec![String::from("**/*.lock"), String::from("1.toml")];

    let unknown = Contexts::new(&json!({})).hash(HashFiles::Unknown);
    assert_eq!(evaluate(expression, &unknown).unwrap_err(), EvaluateError::NeedsHash(patterns));
    assert_eq!(evaluate("false && hashFiles('a')", &unknown).unwrap().to_text(), "false");

    let known = Contexts::new(&json!({})).hash(HashFiles::Known(String::from("abc")));
    assert_eq!(evaluate(expression, &known).unwrap().to_text(), "abc");

    let error = evaluate(expression, &Contexts::new(&json!({}))).unwrap_err();
    assert!(error.to_string().contains("hashFiles is not available here: "), "{error}");
}

#[test]
fn the_option_of_hash_files() {
    let unknown = Contexts::new(&json!({})).hash(HashFiles::Unknown);
    assert_eq!(
        evaluate("hashFiles('--Follow-Symbolic-Links', 'a')", &unknown).unwrap_err(),
        EvaluateError::NeedsHash(vec![String::from("--follow-symbolic-links"), "a".to_owned()])
    );
    let error = evaluate("hashFiles('--follow', 'a')", &unknown).unwrap_err().to_string();
    assert!(error.contains("its only one is --follow-symbolic-links"), "{error}");
}

#[test]
fn contexts_that_do_not_exist() {
    check_errors_in(
        &json!({"github": {}, "env": {}}),
        &[
            ("secrets.A", "the context \"secrets\" is not available here: here exist github, env"),
            ("Githb.ref", "the context \"githb\" does not exist: did you mean github?"),
            ("github.ref == main", "text stands in single quotes ('main')"),
        ],
    );
}

#[test]
fn what_is_produced_is_bounded() {
    let ten = "{0}{0}{0}{0}{0}{0}{0}{0}{0}{0}";
    let mut text = String::from("'0123456789'");
    for _ in 0..7 {
        text = format!("format('{ten}', {text})");
    }
    let mut json = String::from("'\"\"\"\"'");
    for _ in 0..30 {
        json = format!("toJSON({json})");
    }
    let large = "0".repeat(4 << 20);
    let list = format!("[{}]", vec!["0"; 1 << 20].join(","));
    let contexts = json!({"large": large, "lists": vec![vec![0; 1000]; 1000], "list": list});
    check_errors_in(
        &contexts,
        &[
            (&text, "larger than 10 MiB"),
            (&json, "larger than 10 MiB"),
            ("join(fromJSON(format('[{0}]', '0,0,0,0')), large)", "larger than 10 MiB"),
            ("join(lists.*.*, large)", "larger than 10 MiB"),
            ("format('{0}{1}', toJSON(lists), toJSON(lists))", "larger than 10 MiB"),
            ("fromJSON(list)", "larger than 10 MiB"),
            ("toJSON(lists.*.*) || lists.*.*", "larger than 10 MiB"),
        ],
    );
    // What is only passed on costs nothing.
    check_in(
        &contexts,
        &[("large == large && large && large && contains(large, '00') && !large", "false")],
    );
}

#[test]
fn json_nests_to_a_limit() {
    let nested = |depth: usize| format!("fromJSON('{}{}')", "[".repeat(depth), "]".repeat(depth));
    let scope = Contexts::new(&json!({}));
    assert!(evaluate(&nested(100), &scope).is_ok());
    for depth in [101, 127, 128, 5000] {
        let error = evaluate(&nested(depth), &scope).unwrap_err().to_string();
        assert!(error.contains("deeper than 100 levels"), "{depth}: {error}");
    }
    let mut deep = Value::Null;
    for _ in 0..150 {
        deep = Value::array([deep]);
    }
    let error = deep.to_json_text().unwrap_err().to_string();
    assert!(error.contains("deeper than 100 levels"), "{error}");
}
