//! The encodings in which a secret commonly appears by accident.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

/// The shortest encoding that is masked: shorter ones occur by chance.
const SHORTEST: usize = 4;

/// The encodings of a value that differ from the value itself.
pub(super) fn encodings(value: &str) -> Vec<Vec<u8>> {
    let mut all: Vec<String> = Vec::new();
    for skip in 0..3 {
        all.extend(base64_at(value.as_bytes(), skip));
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
