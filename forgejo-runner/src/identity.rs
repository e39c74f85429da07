//! Who this runner is to an instance: what a registration gives, and what is kept of it.
//!
//! [`stored`] keeps what `solstice forgejo register` got; [`runner_file`] and [`runner_config`] read
//! the two files of forgejo-runner, whose labels [`mapping`] turns into labels of here; [`secret`]
//! makes an identity of a shared secret; [`rest`] asks the instance's REST interface for one.
//! Nothing here shows a token: not in errors, not in warnings.

mod check;
mod duration;
mod file;
pub mod mapping;
pub mod rest;
pub mod runner_config;
pub mod runner_file;
pub mod secret;
pub mod stored;

use reqwest::Url;
use uuid::Uuid;

pub use check::accepted;
pub use file::{one_line, token};

/// Why an identity cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct IdentityError {
    message: String,
    hint: Option<String>,
}

impl IdentityError {
    /// What is wrong, one sentence.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None }
    }

    /// Adds what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// What to do, where something is known.
    #[must_use]
    pub fn advice(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

/// The address of an instance, with the sub-path that it may be under and without a final slash.
///
/// # Errors
/// It is none; a password in it is not repeated.
pub fn address(text: &str) -> Result<Url, String> {
    let mut url = Url::parse(text.trim())
        .map_err(|error| format!("it is not an URL such as https://codeberg.org: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err("write an URL that begins with https:// or http://".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("a name and a password do not belong here; the runner has a token".to_owned());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("write the address of the instance alone, without ? and #".to_owned());
    }
    let path = url.path().trim_end_matches('/').to_owned();
    url.set_path(&path);
    Ok(url)
}

/// A runner's id as servers write it.
///
/// # Errors
/// It is no UUID.
pub fn uuid(text: &str) -> Result<String, String> {
    let parsed = Uuid::parse_str(text.trim());
    let parsed = parsed.map(|uuid| uuid.hyphenated().to_string());
    parsed.map_err(|_| {
        format!("{text:?} is not a UUID, such as 30303131-2232-3333-3434-353536363737")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_lose_their_final_slash_and_keep_their_path() {
        for (text, url) in [
            ("https://codeberg.org", "https://codeberg.org/"),
            ("https://codeberg.org/", "https://codeberg.org/"),
            ("https://example.org/git/", "https://example.org/git"),
            (" http://forge:3000 ", "http://forge:3000/"),
        ] {
            assert_eq!(address(text).map(|url| url.to_string()), Ok(url.to_owned()));
        }
        for (text, expected) in [
            ("codeberg.org", "not an URL such as"),
            ("ssh://codeberg.org", "begins with https:// or http://"),
            ("https://me:hunter2@codeberg.org", "do not belong here"),
            ("https://codeberg.org/?x=1", "without ? and #"),
        ] {
            let error = address(text).expect_err(text);
            assert!(error.contains(expected) && !error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn ids_are_written_as_servers_write_them() {
        let uuid_text = "33834EEF-e758-48c4-a676-1745426747aa";
        assert_eq!(uuid(uuid_text), Ok(uuid_text.to_lowercase()));
        assert!(uuid("7").expect_err("no id").starts_with("\"7\" is not a UUID"));
    }
}
