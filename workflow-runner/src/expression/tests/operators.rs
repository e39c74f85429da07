//! Operators, index and filters.

use super::*;

/// A value of each kind, with those whose number is another's.
const OPERANDS: [&str; 11] =
    ["null", "true", "false", "0", "1", "''", "'1'", "'x'", "list", "map", "NaN"];

/// For each of [`OPERANDS`] on the left, with which of them on the right `==` holds.
const EQUAL: [&str; 11] = [
    "10110100000",
    "01001010000",
    "10110100000",
    "10110100000",
    "01001010000",
    "10110100000",
    "01001010000",
    "00000001000",
    "00000000100",
    "00000000010",
    "00000000000",
];

/// The same for `<`.
const LESS: [&str; 11] = [
    "01001010000",
    "00000000000",
    "01001010000",
    "01001010000",
    "00000000000",
    "01001011000",
    "00000001000",
    "00000000000",
    "00000000000",
    "00000000000",
    "00000000000",
];

#[test]
fn comparisons_of_every_pair_of_kinds() {
    let scope = Contexts::new(&json!({"list": [1], "map": {"a": 1}}));
    let holds =
        |table: &[&str; 11], left: usize, right: usize| table[left].as_bytes()[right] == b'1';
    for (l, left) in OPERANDS.iter().enumerate() {
        for (r, right) in OPERANDS.iter().enumerate() {
            let equal = holds(&EQUAL, l, r);
            let less = holds(&LESS, l, r);
            let greater = holds(&LESS, r, l);
            for (operator, expected) in [
                ("==", equal),
                ("!=", !equal),
                ("<", less),
                ("<=", less || equal),
                (">", greater),
                (">=", greater || equal),
            ] {
                let expression = format!("{left} {operator} {right}");
                let value = evaluate(&expression, &scope).unwrap();
                assert_eq!(show(&value), expected.to_string(), "{expression}");
            }
        }
    }
}

#[test]
fn truth_and_operands_of_every_kind() {
    let scope = Contexts::new(&json!({"list": [], "map": {}}));
    for (operand, truthy) in [
        ("null", false),
        ("false", false),
        ("true", true),
        ("0", false),
        ("-0", false),
        ("NaN", false),
        ("1", true),
        ("Infinity", true),
        ("''", false),
        ("'0'", true),
        ("'false'", true),
        ("' '", true),
        ("list", true),
        ("map", true),
    ] {
        let itself = show(&evaluate(operand, &scope).unwrap());
        let other = r#""other""#;
        for (expression, expected) in [
            (format!("!{operand}"), (!truthy).to_string()),
            (format!("!!{operand}"), truthy.to_string()),
            (format!("{operand} && 'other'"), if truthy { other } else { &itself }.to_owned()),
            (format!("{operand} || 'other'"), if truthy { &itself } else { other }.to_owned()),
        ] {
            assert_eq!(show(&evaluate(&expression, &scope).unwrap()), expected, "{expression}");
        }
    }
}

#[test]
fn what_is_not_needed_is_not_evaluated() {
    check(&[
        ("true || unknown", "true"),
        ("false && unknown", "false"),
        ("1 && '' && unknown", r#""""#),
        ("'' || 0 || 'x' || unknown", r#""x""#),
        ("case(true, 1, unknown.a, unknown.b, unknown)", "1"),
        ("format('{1}', unknown, 'b')", r#""b""#),
    ]);
}

#[test]
fn precedence_and_grouping() {
    check(&[
        ("true || false && false", "true"),
        ("(true || false) && false", "false"),
        ("false && true || true", "true"),
        ("false && (true || true)", "false"),
        ("1 == 1 && 2 == 2", "true"),
        ("1 == 2 || 2 == 2", "true"),
        // (1 < 2) == true, not 1 < (2 == true).
        ("1 < 2 == true", "true"),
        ("2 == 1 < 3", "false"),
        ("1 == 1 < 3", "true"),
        // From the left: (3 > 2) > 1 compares true with 1.
        ("3 > 2 > 1", "false"),
        ("3 > 2 >= 1", "true"),
        ("1 == 1 == 1", "true"),
        ("2 == 2 == 2", "false"),
        ("!false == true", "true"),
        ("!(false == true)", "true"),
        ("!1 < 1", "true"),
        ("!false && false", "false"),
        ("!!'a'", "true"),
        ("((((1))))", "1"),
        ("1&&2||3", "2"),
        ("1==1", "true"),
        ("1!=1", "false"),
        ("1<2", "true"),
        ("-1<-2", "false"),
    ]);
}

#[test]
fn text_is_compared_without_regard_to_case() {
    check(&[
        ("'abcxyz' == 'ABCXYZ'", "true"),
        ("'abcxyz' <= 'ABCXYZ'", "true"),
        ("'abcxyz' < 'ABCXYZ'", "false"),
        // Letters stand before what is between Z and a.
        ("'a' < '['", "true"),
        ("'A' < '_'", "true"),
        ("'ς' == 'Σ'", "true"),
        ("'ς' == 'σ'", "true"),
        ("'ü' == 'Ü'", "true"),
        ("'абв' == 'АБВ'", "true"),
        ("'ß' == 'SS'", "false"),
        ("'i' == 'İ'", "false"),
        ("'i' < 'İ'", "true"),
        ("'ı' == 'I'", "false"),
        ("'ı' > 'I'", "true"),
        ("'ſ' == 's'", "false"),
        ("'é' == 'e'", "false"),
        ("'a' < 'ab'", "true"),
        ("'10' < '9'", "true"),
        ("10 < '9'", "false"),
        // Surrogates stand before the end of the basic plane.
        ("'😀' < '\u{ff01}'", "true"),
    ]);
}

#[test]
fn text_is_coerced_to_numbers() {
    check(&[
        ("1 == ' 1.0 '", "true"),
        ("255 == '0xff'", "true"),
        ("true == '1'", "true"),
        ("true == 'true'", "false"),
        ("null == ''", "true"),
        ("null == 'null'", "false"),
        ("0 == '  '", "true"),
        ("Infinity == 'Infinity'", "true"),
        ("1e2 == '100'", "true"),
        ("'1e2' == '100'", "false"),
        ("NaN != NaN", "true"),
    ]);
}

#[test]
fn objects_are_equal_to_themselves_only() {
    check_in(
        &json!({"a": {"x": []}, "b": {"x": []}}),
        &[
            ("a == A", "true"),
            ("a == b", "false"),
            ("a.x == a['X']", "true"),
            ("a.x == b.x", "false"),
            ("a >= a", "true"),
            ("a > a", "false"),
            ("fromJSON('[]') == fromJSON('[]')", "false"),
            ("a.* == a.*", "false"),
            ("a == 'Object'", "false"),
        ],
    );
}

#[test]
fn members() {
    check_in(
        &json!({
            "m": {
                "name": "n", "_a-1": 1, "true": "t", "format": "f", "": "empty", "1": "one",
                "with space": "s", "null": "N", "nested": {"Deep": {"er": 7}},
            },
            "l": ["zero", "one", ["two"]],
            "s": "text",
        }),
        &[
            ("m.name", r#""n""#),
            ("M.NAME", r#""n""#),
            ("m['name']", r#""n""#),
            ("m [ 'na' ] . name", "null"),
            ("m . name", r#""n""#),
            ("m._a-1", "1"),
            ("m.true", r#""t""#),
            ("m[true]", r#""t""#),
            ("m.null", r#""N""#),
            ("m.format", r#""f""#),
            ("m[null]", r#""empty""#),
            ("m['']", r#""empty""#),
            ("m[1]", r#""one""#),
            ("m['with space']", r#""s""#),
            ("m.nested.deep.ER", "7"),
            ("m['nested']['deep'].er", "7"),
            ("m[l]", "null"),
            ("m.missing.at.all", "null"),
            ("m[m.name]", "null"),
            ("l[0]", r#""zero""#),
            ("l[1.9]", r#""one""#),
            ("l['1']", r#""one""#),
            ("l[true]", r#""one""#),
            ("l[null]", r#""zero""#),
            ("l['']", r#""zero""#),
            ("l[2][0]", r#""two""#),
            ("l[-0.5]", "null"),
            ("l[-1]", "null"),
            ("l[3]", "null"),
            ("l[1e300]", "null"),
            ("l[NaN]", "null"),
            ("l[Infinity]", "null"),
            ("l.length", "null"),
            ("l[m]", "null"),
            ("s.length", "null"),
            ("s[0]", "null"),
            ("('text')[0]", "null"),
            ("(m).name", r#""n""#),
            ("(m || l)['name']", r#""n""#),
            ("fromJSON('{\"a\": 1}').A", "1"),
            ("!m.name", "false"),
        ],
    );
}

#[test]
fn filters() {
    check_in(
        &json!({
            "list": [{"a": 1, "b": [10, 11]}, {"b": [20]}, {"A": 3}, "text", [4, 5]],
            "map": {"x": {"v": 1}, "y": {"v": 2, "w": 3}, "z": 4},
            "empty": {},
            "text": "t",
        }),
        &[
            ("list.*.a", "[1,3]"),
            ("list[*].a", "[1,3]"),
            ("list[ * ].a", "[1,3]"),
            ("list.*['a']", "[1,3]"),
            // An index goes to each value, not to the filtered list.
            ("list.*[0]", "[4]"),
            ("list.*.b", "[[10,11],[20]]"),
            ("list.*.b[0]", "[10,20]"),
            ("list.*.b.*", "[10,11,20]"),
            ("list.*.*", "[1,[10,11],[20],3,4,5]"),
            ("map.*.v", "[1,2]"),
            ("map.*", r#"[{"v":1},{"v":2,"w":3},4]"#),
            ("map.*.missing", "[]"),
            ("empty.*", "[]"),
            ("text.*", "[]"),
            ("text.*.a", "[]"),
            ("empty.missing.*", "[]"),
            // A filtered list stays one through operators that return an operand.
            ("(list.*.b)[0]", "[10,20]"),
            ("(false || list.*.b)[0]", "[10,20]"),
            ("case(true, list.*.b, 1)[0]", "[10,20]"),
            // A text turns it into an ordinary one.
            ("fromJSON(toJSON(list.*.b))[0]", "[10,11]"),
            ("contains(list.*.a, 3)", "true"),
            ("join(list.*.b[0], '+')", r#""10+20""#),
            ("list.*.a && 'yes'", r#""yes""#),
        ],
    );
}
