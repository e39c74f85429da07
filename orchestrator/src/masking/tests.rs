use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use common::event::{LogLine, Stream};
use common::time::Timestamp;
use proptest::prelude::*;

use super::*;

fn check(secrets: &[&str], text: &str, expected: &str) {
    let mut masker = Masker::new(secrets.iter().copied());
    assert_eq!(masker.mask_text(text), expected);
}

fn line(stream: Stream, text: &str) -> LogLine {
    LogLine { time: Timestamp::from_micros(1), stream, text: text.into() }
}

/// The lines that come out when these go in, `!` in front of those on standard error.
fn lines(secrets: &[&str], input: &[&str]) -> Vec<String> {
    let mut masker = Masker::new(secrets.iter().copied());
    let mut lines = LineMasker::default();
    let mut ready = Vec::new();
    for text in input {
        let line = match text.strip_prefix('!') {
            Some(text) => line(Stream::Stderr, text),
            None => line(Stream::Stdout, text),
        };
        lines.push(&mut masker, line, &mut ready);
    }
    lines.flush(&masker, &mut ready);
    assert!(!lines.is_holding());
    ready.iter().map(|line| line.text.to_text().into_owned()).collect()
}

#[test]
fn values_are_replaced_longest_first_and_overlaps_are_joined() {
    check(&["hunter2"], "a hunter2 b", "a *** b");
    check(&["token", "token-long"], "x token-long y token", "x *** y ***");
    check(&["abcd", "cdef"], "xabcdefx", "x***x");
    check(&["", "  ", "\n"], "nothing  here", "nothing  here");
}

#[test]
fn usual_encodings_are_replaced() {
    let secret = "s3cr3t \"value\" & more";
    for prefix in ["", "a", "ab", "x-access-token:"] {
        let text = STANDARD.encode(format!("{prefix}{secret}, then more"));
        let mut masker = Masker::new([secret]);
        let shown = masker.mask_text(&text).into_owned();
        assert!(shown.contains("***"), "{prefix:?}: {text} -> {shown}");
        assert!(shown.len() < text.len() - secret.len(), "{prefix:?}: {text} -> {shown}");
    }
    check(&[secret], "s3cr3t \\\"value\\\" & more", "***");
    check(&[secret], "q=s3cr3t%20%22value%22%20%26%20more", "q=***");
    check(&[secret], "s3cr3t &quot;value&quot; &amp; more", "***");
}

#[test]
fn a_value_of_several_lines_is_masked_line_by_line_and_across_lines() {
    let key = "-----BEGIN KEY-----\nabcdefgh\nQ=\n-----END KEY-----\n";
    assert_eq!(
        lines(
            &[key],
            &["before", "-----BEGIN KEY-----", "abcdefgh", "Q=", "-----END KEY-----", "Q="]
        ),
        ["before", "***", "***", "***", "***", "Q="],
    );
    assert_eq!(lines(&["{\n1\n}"], &["x={", "1", "} y", "1"]), ["x=***", "***", "*** y", "1"]);
    assert_eq!(lines(&["{\n1\n}"], &["x={", "2", "}"]), ["x={", "2", "}"]);
}

#[test]
fn streams_do_not_disturb_each_other_and_keep_their_order() {
    assert_eq!(
        lines(&["{\n1\n}"], &["a{", "!between", "1", "!{", "}", "!1", "!}z"]),
        ["a***", "between", "***", "***", "***", "***", "***z"],
    );
}

#[test]
fn what_is_held_at_a_flush_is_masked_as_far_as_it_matches() {
    assert_eq!(lines(&["{\n1\n}"], &["x={"]), ["x=***"]);
    assert_eq!(lines(&["{\n1\n}"], &["x={", "1"]), ["x=***", "***"]);
}

#[test]
fn a_value_added_later_counts_for_all_later_lines_of_both_streams() {
    let mut masker = Masker::default();
    let mut lines = LineMasker::default();
    let mut ready = Vec::new();
    lines.push(&mut masker, line(Stream::Stdout, "late"), &mut ready);
    assert_eq!(masker.add("late"), Added::Taken);
    lines.push(&mut masker, line(Stream::Stdout, "late"), &mut ready);
    lines.push(&mut masker, line(Stream::Stderr, "late"), &mut ready);
    let shown: Vec<_> = ready.iter().map(|line| line.text.to_text().into_owned()).collect();
    assert_eq!(shown, ["late", "***", "***"]);
}

#[test]
fn a_value_added_in_the_middle_of_another_uncovers_nothing() {
    for is_resumed in [false, true] {
        let mut masker = Masker::new(["{\n1\n}"]);
        let mut lines = LineMasker::default();
        let mut ready = Vec::new();
        lines.push(&mut masker, line(Stream::Stdout, "x={"), &mut ready);
        // What was given out meanwhile still counts as the value's beginning.
        lines.flush(&masker, &mut ready);
        lines.push(&mut masker, line(Stream::Stdout, "1"), &mut ready);
        if is_resumed {
            masker = Masker::new(["another", "{\n1\n}"]);
            lines = LineMasker::resume(lines.held());
        } else {
            masker.add("another");
        }
        lines.push(&mut masker, line(Stream::Stdout, "} y"), &mut ready);
        lines.push(&mut masker, line(Stream::Stdout, "1"), &mut ready);
        let shown: Vec<_> = ready.iter().map(|line| line.text.to_text().into_owned()).collect();
        assert_eq!(shown, ["x=***", "***", "*** y", "1"], "resumed: {is_resumed}");
    }
}

#[test]
fn no_more_is_held_than_any_value_needs() {
    let secret = format!("begin\n{}", "middle\n".repeat(9000));
    let mut masker = Masker::new([secret.as_str()]);
    let mut lines = LineMasker::default();
    let mut ready = Vec::new();
    let long = "m".repeat(60_000);
    let mut check = |stream: Stream, text: &str| {
        lines.push(&mut masker, line(stream, text), &mut ready);
        assert!(lines.pending_bytes() <= 4 * MASK_BYTES);
        ready.drain(..).for_each(|line| assert!(!line.text.to_text().contains("middle")));
    };
    check(Stream::Stdout, "begin");
    for _ in 0..20 {
        check(Stream::Stdout, "middle");
        check(Stream::Stderr, &long);
    }
    for _ in 0..20_000 {
        check(Stream::Stdout, "middle");
    }
}

#[test]
fn a_long_value_in_wrapped_base64_is_not_readable() {
    let token: String = (0..93).map(|n| char::from(b'!' + (n * 7 % 90) as u8)).collect();
    for columns in [64, 76] {
        for prefix in ["", "user:", "x-access-token:"] {
            let encoded = STANDARD.encode(format!("{prefix}{token}"));
            let wrapped: Vec<String> = encoded
                .as_bytes()
                .chunks(columns)
                .map(|line| String::from_utf8(line.to_vec()).unwrap())
                .collect();
            let input: Vec<&str> = wrapped.iter().map(String::as_str).collect();
            let shown = lines(&[&token], &input);
            let left: usize = shown.iter().map(|line| line.replace("***", "").len()).sum();
            // What stands before the token, a seam at each end of a line, and a last line that is
            // too short to be told from anything.
            assert!(left <= prefix.len() * 2 + 24, "{prefix} {columns}: {shown:?}");
        }
    }
}

#[test]
fn white_space_around_a_value_does_not_protect_it_from_masking() {
    check(&["hunter2 "], "a hunter2", "a ***");
    check(&["\nhunter2\n"], "hunter2", "***");
}

#[test]
fn values_that_are_too_large_are_refused() {
    let mut masker = Masker::default();
    assert_eq!(masker.add(&"x".repeat(MASK_BYTES + 1)), Added::TooMany);
    let mut taken = 0;
    while masker.add(&format!("{taken:01000}{}", "y".repeat(MASK_BYTES / 2))) == Added::Taken {
        taken += 1;
    }
    assert!(masker.bytes <= ALL_MASK_BYTES && taken > 3, "{taken}");
}

#[test]
fn a_value_too_many_is_refused() {
    let mut masker = Masker::default();
    for number in 0..MASKS {
        assert_eq!(masker.add(&format!("value-{number:05}")), Added::Taken);
        masker.mask(b"a line between");
    }
    assert_eq!(masker.add("one more"), Added::TooMany);
    assert_eq!(masker.add("value-00001"), Added::Known, "known values cost nothing");
    assert_eq!(masker.mask_text("a value-09999 b"), "a *** b");
}

proptest! {
    #[test]
    fn no_value_survives_and_nothing_else_is_lost(
        secrets in prop::collection::vec("[ab]{1,4}", 1..4),
        text in "[abc]{0,30}",
    ) {
        let mut masker = Masker::default();
        for secret in &secrets {
            masker.add(secret);
        }
        // The slow and obvious way: mark every byte that some value covers.
        let mut covered = vec![false; text.len()];
        for secret in &secrets {
            for start in 0..text.len() {
                if text[start..].starts_with(secret.as_str()) {
                    covered[start..start + secret.len()].fill(true);
                }
            }
        }
        let mut expected = String::new();
        for (index, byte) in text.bytes().enumerate() {
            if !covered[index] {
                expected.push(char::from(byte));
            } else if index == 0 || !covered[index - 1] {
                expected.push_str(REPLACEMENT);
            }
        }
        prop_assert_eq!(masker.mask_text(&text).into_owned(), expected);
    }

    #[test]
    fn splitting_a_value_over_lines_never_shows_its_long_lines(
        value in "[a-z]{3,8}(\n[a-z]{3,8}){1,3}",
        noise in prop::collection::vec("[0-9]{0,5}", 0..5),
    ) {
        let mut input: Vec<&str> = noise.iter().map(String::as_str).collect();
        input.extend(value.lines());
        input.extend(noise.iter().map(String::as_str));
        for shown in lines(&[&value], &input) {
            for part in value.lines() {
                prop_assert!(!shown.contains(part));
            }
        }
    }
}
