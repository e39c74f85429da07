//! Lengths of time as forgejo-runner's settings write them: `3h`, `1m30s`, `100ms`.

use std::time::Duration;

/// The units, with their nanoseconds. Longer names first, so that `ms` is no `m`.
const UNITS: &[(&str, f64)] = &[
    ("ns", 1.0),
    ("us", 1e3),
    ("\u{b5}s", 1e3),
    ("\u{3bc}s", 1e3),
    ("ms", 1e6),
    ("s", 1e9),
    ("m", 60e9),
    ("h", 3600e9),
];

/// The longest one: more than anybody waits for, and little enough for every sum.
const LONGEST: f64 = 1e9 * 3600.0 * 24.0 * 365.0 * 100.0;

/// Reads a length of time; `Ok(None)` for a negative one, which those settings ignore.
pub(super) fn parse(text: &str) -> Result<Option<Duration>, String> {
    let bad = || format!("{text:?} is not a length of time, such as 90s, 30m or 1h30m");
    let (negative, rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let nanoseconds = if rest == "0" { 0.0 } else { sum(rest).ok_or_else(bad)? };
    if nanoseconds > LONGEST {
        return Err(format!("{text:?} is longer than a life"));
    }
    Ok((!negative).then(|| Duration::from_nanos(nanoseconds as u64)))
}

fn sum(mut rest: &str) -> Option<f64> {
    if rest.is_empty() {
        return None;
    }
    let mut total = 0.0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(end);
        let number: f64 = number.parse().ok()?;
        let (unit, tail) = UNITS.iter().find_map(|(name, size)| {
            let tail = tail.strip_prefix(name)?;
            // `m` also begins `ms`, which is found before it.
            Some((size, tail))
        })?;
        total += number * unit;
        rest = tail;
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_read_as_go_writes_them() {
        for (text, milliseconds) in [
            ("3h", 10_800_000),
            ("1m30s", 90_000),
            ("100ms", 100),
            ("1h0m0.5s", 3_600_500),
            ("0", 0),
            ("0s", 0),
        ] {
            assert_eq!(parse(text), Ok(Some(Duration::from_millis(milliseconds))), "{text}");
        }
        assert_eq!(parse("-1s"), Ok(None));
        for bad in ["", "3", "h", "3 h", "3x", "1..5s", "-", "1h3"] {
            assert!(parse(bad).expect_err(bad).contains("not a length of time"), "{bad}");
        }
        assert!(parse("99999999999h").is_err());
    }
}
