//! Numbers: from text and to text.

/// The significant digits of a number as text.
const DIGITS: i32 = 15;

/// The number that a text stands for: trimmed; empty is 0, decimal with sign, fraction and exponent,
/// `0x` and `0o` with the bits of a 32-bit signed integer, `Infinity`; everything else is NaN
/// (github-runner-protocol 5.8).
pub(super) fn parse(text: &str) -> f64 {
    let text = text.trim();
    if text.is_empty() {
        return 0.0;
    }
    if is_decimal(text) {
        return text.parse().unwrap_or(f64::NAN);
    }
    if let Some(digits) = text.strip_prefix("0x") {
        return parse_integer(digits, 16);
    }
    if let Some(digits) = text.strip_prefix("0o") {
        return parse_integer(digits, 8);
    }
    let (sign, name) = match text.strip_prefix('-') {
        Some(name) => (-1.0, name),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    };
    if name.eq_ignore_ascii_case("infinity") { sign * f64::INFINITY } else { f64::NAN }
}

/// A number as text: 15 significant digits; an exponent (`1E+15`, `1E-05`) only from 10^15 on and
/// below 10^-4; zero has no sign (github-runner-protocol 5.8).
pub(super) fn format(number: f64) -> String {
    if number.is_nan() {
        return String::from("NaN");
    }
    if number.is_infinite() {
        return String::from(if number > 0.0 { "Infinity" } else { "-Infinity" });
    }
    if number.fract() == 0.0 && number.abs() < 1e15 {
        // Exact: such a number has fewer than 50 bits. It also drops the sign of -0.
        return (number as i64).to_string();
    }
    let scientific = format!("{number:.14e}");
    let (mantissa, exponent) =
        scientific.split_once('e').expect("the format with an exponent has an exponent");
    let exponent: i32 = exponent.parse().expect("the exponent of a double is a small integer");
    let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    let digits = digits.trim_end_matches('0');
    let sign = if number < 0.0 { "-" } else { "" };
    if !(-4..DIGITS).contains(&exponent) {
        return exponential(sign, digits, exponent);
    }
    if exponent < 0 {
        let zeros = "0".repeat(exponent.unsigned_abs() as usize - 1);
        return format!("{sign}0.{zeros}{digits}");
    }
    let whole = exponent as usize + 1;
    if digits.len() <= whole {
        return format!("{sign}{digits:0<whole$}");
    }
    format!("{sign}{}.{}", &digits[..whole], &digits[whole..])
}

/// The form with an exponent, which has a sign and at least two digits.
fn exponential(sign: &str, digits: &str, exponent: i32) -> String {
    let (first, rest) = digits.split_at(1);
    let point = if rest.is_empty() { "" } else { "." };
    let exponent_sign = if exponent < 0 { '-' } else { '+' };
    format!("{sign}{first}{point}{rest}E{exponent_sign}{:02}", exponent.unsigned_abs())
}

/// Whether the text is `[sign] digits [. digits] [e [sign] digits]` with at least one digit before
/// the exponent.
fn is_decimal(text: &str) -> bool {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (unsigned, None),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let exponent_is_right = exponent.is_none_or(|exponent| {
        let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        !digits.is_empty() && all_digits(digits)
    });
    exponent_is_right
        && all_digits(whole)
        && all_digits(fraction)
        && !(whole.is_empty() && fraction.is_empty())
}

/// Digits as the bits of a 32-bit signed integer, so that `0xffffffff` is -1; NaN if there are
/// others or more.
fn parse_integer(digits: &str, radix: u32) -> f64 {
    // The standard library would accept a sign.
    if digits.starts_with('+') {
        return f64::NAN;
    }
    u32::from_str_radix(digits, radix).map_or(f64::NAN, |bits| f64::from(bits.cast_signed()))
}
