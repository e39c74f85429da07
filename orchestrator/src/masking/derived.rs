//! The encodings in which a secret commonly appears by accident.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

/// The shortest encoding that is masked: shorter ones occur by chance.
const SHORTEST: usize = 4;

/// The columns at which `openssl base64` and `base64` wrap their lines.
const WRAP_COLUMNS: [usize; 2] = [64, 76];

/// The part of a long base64 text that is recognised by itself.
const WINDOW: usize = 20;

/// How far such parts lie from each other.
const WINDOW_STEP: usize = 4;

/// The encodings of a value that differ from the value itself.
pub(super) fn encodings(value: &str) -> Vec<Vec<u8>> {
    let mut all: Vec<String> = Vec::new();
    for skip in 0..3 {
        for text in base64_at(value.as_bytes(), skip) {
            all.extend(pieces(&text, skip == 0));
            all.push(text);
        }
    }
    all.push(json(value));
    all.push(percent(value));
    all.push(xml(value));
    all.push(value.replace('\'', "''"));
    all.push(value.replace('"', "\\\""));
    all.push(value.trim_matches('"').to_owned());
    all.retain(|text| text.len() >= SHORTEST && text != value);
    all.into_iter().map(String::into_bytes).collect()
}

/// The characters of a base64 text that depend on this value alone, when `skip` bytes (modulo 3)
/// stand before it.
fn base64_at(value: &[u8], skip: usize) -> Vec<String> {
    // The first characters mix with the bytes before, the last with those behind.
    let first = [0, 2, 3][skip];
    let mut padded = vec![0; skip];
    padded.extend_from_slice(value);
    let whole_bits = padded.len() * 8 / 6;
    [STANDARD_NO_PAD.encode(&padded), URL_SAFE_NO_PAD.encode(&padded)]
        .into_iter()
        .filter_map(|text| text.get(first..whole_bits).map(str::to_owned))
        .collect()
}

/// What is left of a long base64 text when it is wrapped into lines: by `base64` and `openssl` from
/// its beginning, and anywhere when something stands before the value. The windows overlap, so that
/// they join to all but the ends of a line's part.
fn pieces(text: &str, from_start: bool) -> Vec<String> {
    if text.len() <= WRAP_COLUMNS[0] {
        return Vec::new();
    }
    let windows = (0..=text.len() - WINDOW).step_by(WINDOW_STEP).map(|at| &text[at..at + WINDOW]);
    let mut all: Vec<String> = windows.map(str::to_owned).collect();
    if from_start {
        for columns in WRAP_COLUMNS {
            let lines = text.as_bytes().chunks(columns);
            all.extend(lines.map(|line| String::from_utf8_lossy(line).into_owned()));
        }
    }
    all
}

fn json(value: &str) -> String {
    let quoted = serde_json::Value::from(value).to_string();
    quoted[1..quoted.len() - 1].to_owned()
}

fn percent(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            text.push('%');
            text.push_str(&hex_byte(byte));
        }
    }
    text
}

fn hex_byte(byte: u8) -> String {
    format!("{byte:02X}")
}

fn xml(value: &str) -> String {
    value
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
        .replace('\'', "&apos;")
}
