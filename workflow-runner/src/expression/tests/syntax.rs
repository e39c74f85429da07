//! What does not parse, with its place, and what a parsed expression tells about itself.

use common::limits::{EXPRESSION_CHARACTERS, EXPRESSION_DEPTH};

use super::*;

#[test]
fn errors_have_a_place_and_say_what_to_write() {
    for (text, offset, message) in [
        ("\"main\"", 0, "text stands in single quotes, as in 'main', not in double quotes"),
        ("a == \"b\"", 5, "single quotes"),
        ("a & b", 2, "write && for \"and\""),
        ("a | b", 2, "write || for \"or\""),
        ("a = b", 2, "write == to compare"),
        ("a === b", 4, "write == to compare"),
        ("a + 1", 2, "there is no arithmetic"),
        ("a - 1", 2, "there is no arithmetic"),
        ("a / 1", 2, "there is no arithmetic"),
        ("a % 1", 2, "there is no arithmetic"),
        ("a * 1", 2, "there is no arithmetic"),
        ("1-2", 0, "\"1-2\" is not a number: there is no arithmetic"),
        ("1*2", 0, "there is no arithmetic"),
        ("a ? b : c", 2, "condition && value || other"),
        ("${{ a }}", 0, "cannot contain another ${{ }}"),
        ("a; b", 1, "unexpected character ';'"),
        ("ä", 0, "unexpected character 'ä'"),
        ("'ä' == ö", 7, "unexpected character 'ö'"),
        ("'abc", 0, "the text that begins here has no closing '"),
        ("a == 'it''s", 5, "has no closing '"),
        ("0xZ", 0, "\"0xZ\" is not a number"),
        ("1.2.3", 0, "is not a number"),
        ("12abc", 0, "is not a number"),
        ("0x100000000", 0, "is not a number"),
        ("-", 0, "is not a number"),
        (".", 0, "is not a number"),
        ("a.1", 2, "a name or \"*\" is missing after \".\""),
        ("a.", 2, "a name or \"*\" is missing after \".\""),
        ("a..b", 2, "a name or \"*\" is missing"),
        ("a.'b'", 2, "write other keys as ['key']"),
        ("a.b@r", 3, "unexpected character '@'"),
        ("'a'.b", 3, "a literal has no properties"),
        ("'a'[0]", 3, "a literal has no properties"),
        ("true.a", 4, "a literal has no properties"),
        ("a b", 2, "an operator such as == or && is missing before \"b\""),
        ("a 'b'", 2, "is missing before this text"),
        ("a 1", 2, "is missing before \"1"),
        ("a !b", 2, "is missing before \"!\""),
        ("a (b)", 0, "unknown function \"a\""),
        ("(a) (b)", 4, "is missing before \"(\""),
        ("a &&", 4, "ends where a value is expected"),
        ("!", 1, "ends where a value is expected"),
        ("a ==  ", 6, "ends where a value is expected"),
        ("&& a", 0, "a value is missing before \"&&\""),
        ("a == == b", 5, "a value is missing before \"==\""),
        ("a < > b", 4, "a value is missing before \">\""),
        ("a && )", 5, "a value is missing before \")\""),
        ("!=a", 0, "a value is missing before \"!=\""),
        ("()", 1, "there is no value between \"(\" and \")\""),
        ("a[]", 2, "a value is missing before \"]\""),
        ("a[*", 2, "\"*\" stands only after a dot or alone in [ ]"),
        ("a[* b]", 2, "\"*\" stands only after a dot or alone in [ ]"),
        ("*", 0, "\"*\" stands only after a dot or alone in [ ]"),
        ("(a", 0, "the \"(\" that begins here is not closed"),
        ("a[0", 1, "the \"[\" that begins here is not closed"),
        ("true && format('a', b", 8, "the call of format that begins here is not closed"),
        ("a)", 1, "\")\" has no matching \"(\" before it"),
        ("a]", 1, "\"]\" has no matching \"[\" before it"),
        ("(a]", 2, "\"]\" stands where \")\" is expected"),
        ("a[0)", 3, "\")\" stands where \"]\" is expected"),
        ("a, b", 1, "unexpected \",\""),
        ("(a, b)", 2, "unexpected \",\""),
        ("join(a,)", 7, "a value is missing before \")\""),
        ("join(,a)", 5, "a value is missing before \",\""),
        ("sucess()", 0, "unknown function \"sucess\": did you mean \"success\"?"),
        ("a && Fromjsn('')", 5, "did you mean \"fromJSON\"?"),
        ("xyzzy(1)", 0, "the functions are contains, startsWith, endsWith"),
        ("success", 7, ""),
        ("a.toUpper()", 1, "\"toUpper\" is called like a function, but values have none"),
        ("contains('a')", 0, "contains takes 2 values, not 1"),
        ("contains('a', 'b', 'c')", 0, "contains takes 2 values, not 3"),
        ("1 || startsWith()", 5, "startsWith takes 2 values, not 0"),
        ("format()", 0, "format takes at least 1 value, not 0"),
        ("join()", 0, "join takes 1 or 2 values, not 0"),
        ("toJSON(1, 2)", 0, "toJSON takes one value, not 2"),
        ("hashFiles()", 0, "hashFiles takes at least 1 value, not 0"),
        ("success('a')", 0, "success takes no value, not 1"),
        ("case(true, 1)", 0, "case takes at least 3 values, not 2"),
        ("case(true, 1, false, 2)", 0, "an odd number of values, not 4"),
    ] {
        match Expression::parse(text) {
            Err(error) => {
                assert!(error.message.contains(message), "{text}: {}", error.message);
                assert_eq!(error.offset, offset, "{text}: {}", error.message);
            }
            // A function's name alone is a context that does not exist.
            Ok(_) => assert_eq!(message, "", "{text} parses"),
        }
    }
}

#[test]
fn too_many_values() {
    let call = |count: usize| format!("format({})", vec!["''"; count].join(","));
    assert!(Expression::parse(&call(255)).is_ok());
    let error = Expression::parse(&call(256)).unwrap_err();
    assert_eq!(error.message, "format takes at most 255 values, not 256");
}

#[test]
fn the_length_is_bounded() {
    let text = format!("'{}'", "ä".repeat(EXPRESSION_CHARACTERS - 2));
    assert!(Expression::parse(&text).is_ok());
    let error = Expression::parse(&format!("{text} ")).unwrap_err();
    assert_eq!(error.offset, EXPRESSION_CHARACTERS);
    assert!(error.message.contains("more than 21000 characters"), "{}", error.message);
}

#[test]
fn the_depth_is_bounded() {
    let path = |depth: usize| format!("a{}", ".b".repeat(depth - 1));
    assert!(Expression::parse(&path(EXPRESSION_DEPTH)).is_ok());
    let error = Expression::parse(&path(EXPRESSION_DEPTH + 1)).unwrap_err();
    assert!(error.message.contains("nests deeper than 50 levels"), "{}", error.message);
    assert_eq!(error.offset, 99);
    for text in [
        "!".repeat(50) + "a",
        format!("{}a{}", "join(".repeat(50), ")".repeat(50)),
        format!("a{}", "[a".repeat(50)) + &"]".repeat(50),
        format!("a{}", " == a".repeat(50)),
    ] {
        let error = Expression::parse(&text).unwrap_err();
        assert!(error.message.contains("nests deeper than 50 levels"), "{}", error.message);
    }
}

#[test]
fn groups_and_chains_are_not_depth() {
    let groups = format!("{}1{}", "(".repeat(10_000), ")".repeat(10_000));
    let chain = vec!["1"; 5_000].join("&&");
    let grouped = format!("{}1{}", "1||(".repeat(3_000), ")".repeat(3_000));
    check(&[(&groups, "1"), (&chain, "1"), (&grouped, "1")]);
}

#[test]
fn no_nesting_exhausts_the_stack() {
    for opening in ["(", "!", "a[", "join(", "a==(", "a&&!(", "-", "[", "a.b[*][", "''", "case(!"] {
        let text = opening.repeat(EXPRESSION_CHARACTERS / opening.len());
        for ending in ["", "a", ")", "]", "'"] {
            let cut = EXPRESSION_CHARACTERS - ending.len();
            let text = format!("{}{ending}", &text[..cut.min(text.len())]);
            assert!(Expression::parse(&text).is_err() || opening == "''", "{opening}");
        }
    }
}

#[test]
fn an_expression_tells_what_it_uses() {
    let text = "Success() && secrets.TOKEN || env[secrets['A']] == secrets.token && GitHub.secrets.x \
                || toJSON(secrets.*.b) || secrets[matrix.x] || secrets['other one'].y";
    let expression = Expression::parse(text).unwrap();
    assert!(expression.has_status_function());
    assert_eq!(expression.properties_of("secrets"), ["TOKEN", "A", "other one"]);
    assert_eq!(expression.properties_of("GitHub"), ["secrets"]);
    assert_eq!(expression.contexts_used(), ["secrets", "env", "github", "matrix"]);
    assert_eq!(expression.contexts()[1], Use { name: String::from("env"), offset: 30 });
    assert_eq!(expression.functions()[1].name, "toJSON");
    assert!(!Expression::parse("github.success").unwrap().has_status_function());
}

#[test]
fn messages_stay_short() {
    let long = "x".repeat(20_000);
    for text in [
        format!("{long}()"),
        format!("1 {long}"),
        format!("a.{long}()"),
        format!("1{long}"),
        format!("'{long}"),
        format!("format('{{{long}')"),
        long.clone(),
    ] {
        let error = evaluate(&text, &Contexts::new(&json!({}))).unwrap_err();
        assert!(error.to_string().len() < 400, "{error:.1000}");
    }
}
