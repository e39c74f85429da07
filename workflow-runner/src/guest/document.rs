//! Reading the job document.

use std::io::Read;

use common::guest::{ATTACH_VERSION, JobDocument};
use common::limits::JOB_DOCUMENT_BYTES;
use serde::Deserialize;
use serde_json::error::Category;

use super::GuestError;

/// Reads a document to the end of `input`, at most [`JOB_DOCUMENT_BYTES`].
pub(super) fn read(input: impl Read) -> Result<Vec<u8>, GuestError> {
    let mut bytes = Vec::new();
    input
        .take(JOB_DOCUMENT_BYTES as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(GuestError::io("read", "the standard input"))?;
    if bytes.len() > JOB_DOCUMENT_BYTES {
        return Err(GuestError::DocumentTooLong);
    }
    Ok(bytes)
}

/// Parses a document. Its version is looked at first, because the shape of another version may be
/// another.
pub(super) fn parse(bytes: &[u8]) -> Result<JobDocument, GuestError> {
    /// The one field that every version has.
    #[derive(Deserialize)]
    struct Versioned {
        version: u64,
    }

    let Versioned { version } = serde_json::from_slice(bytes).map_err(|error| malformed(&error))?;
    if version != u64::from(ATTACH_VERSION) {
        return Err(GuestError::DocumentVersion { found: version });
    }
    serde_json::from_slice(bytes).map_err(|error| malformed(&error))
}

/// Says where and in which way, but not with which value: it may be a secret.
fn malformed(error: &serde_json::Error) -> GuestError {
    let what = match error.classify() {
        Category::Eof => "it ends early",
        Category::Syntax => "it is not JSON",
        Category::Data | Category::Io => "a field is missing or has another type",
    };
    GuestError::DocumentMalformed { what, line: error.line(), column: error.column() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_the_place_and_quote_nothing() {
        let check = |text: &str| parse(text.as_bytes()).unwrap_err().to_string();
        assert_eq!(
            check(r#"{"version": "hunter2"}"#),
            "the job document cannot be read: a field is missing or has another type at line 1, \
             column 21"
        );
        assert!(check("{\"version\": 1,\n").contains("it ends early at line 2"));
        assert!(check("version: 1").contains("it is not JSON"));
        assert!(check(r#"{"version": 7, "plan": 3}"#).contains("has version 7"));
        assert!(check(r#"{"version": 1}"#).contains("a field is missing"));
    }

    #[test]
    fn a_document_over_the_limit_is_refused_without_reading_all_of_it() {
        let mut endless = std::io::repeat(b' ');
        assert!(matches!(read(&mut endless), Err(GuestError::DocumentTooLong)));
    }
}
