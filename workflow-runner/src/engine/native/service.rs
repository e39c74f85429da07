//! Asking the job's services.

use std::time::Duration;

use common::call::{CACHE_SERVICE, CallErrorKind, ForwardWish};
use serde::de::DeserializeOwned;
use serde_json::Value as Json;
use tokio::io::AsyncReadExt;
use tokio::time::sleep;

use crate::host::{Answered, Host};

/// An answer in JSON has no more bytes.
const JSON_BYTES: u64 = 16 * 1024 * 1024;

/// The characters of what a service says about its refusal.
const WORDS: usize = 300;

/// How often the forge is asked that does not answer, or fails.
const ATTEMPTS: u32 = 4;

/// How long it has to recover before it is asked again: this, and then twice as long each time.
const PAUSE: Duration = Duration::from_secs(1);

/// A service of the job.
#[derive(Clone, Copy)]
pub(super) struct Service<'a> {
    pub(super) host: &'a dyn Host,
    pub(super) name: &'static str,
}

/// A service that did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    /// It answered by this status, and by these words.
    #[error("{message} ({status})")]
    Status { status: u16, message: String },
    /// It did not answer, or not so that it can be understood.
    #[error("{0}")]
    Broken(String),
    /// It keeps what is asked for at another origin.
    #[error("the forge keeps it at {0}, where this runner does not go")]
    Elsewhere(String),
}

impl Refusal {
    pub(super) fn status(&self) -> Option<u16> {
        match self {
            Self::Status { status, .. } => Some(*status),
            Self::Broken(_) | Self::Elsewhere(_) => None,
        }
    }
}

/// What a request in JSON says of itself.
pub(super) const JSON: &[(&str, &str)] = &[("content-type", "application/json")];

impl Service<'_> {
    /// Asks, and gives whatever is answered with success.
    pub(super) async fn ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Answered, Refusal> {
        let has_body = !body.is_empty();
        let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let mut headers: Vec<(String, String)> = headers.iter().map(pair).collect();
        if has_body {
            headers.push(("content-length".to_owned(), body.len().to_string()));
        }
        let wish = ForwardWish {
            service: self.name.to_owned(),
            method: method.to_owned(),
            path: path.to_owned(),
            headers,
            has_body,
        };
        let mut pause = PAUSE;
        let mut answered = self.host.ask(wish.clone(), body).await;
        for _ in 1..ATTEMPTS {
            let may_recover = match &answered {
                Ok(answered) => matches!(answered.status, 408 | 429 | 500 | 502..=504),
                Err(error) => error.kind == Some(CallErrorKind::Unavailable),
            };
            // The cache is the host's own, and a job goes on without it.
            if !may_recover || self.name == CACHE_SERVICE {
                break;
            }
            sleep(pause).await;
            pause *= 2;
            answered = self.host.ask(wish.clone(), body).await;
        }
        let answered = answered.map_err(|error| Refusal::Broken(error.to_string()))?;
        if (200..300).contains(&answered.status) {
            return Ok(answered);
        }
        let status = answered.status;
        let text = read(answered).await.unwrap_or_default();
        Err(Refusal::Status { status, message: message(&text, self.name) })
    }

    /// Asks in JSON, and is answered so.
    pub(super) async fn call<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &Json,
    ) -> Result<T, Refusal> {
        let answered = self.ask("POST", path, JSON, body.to_string().as_bytes()).await?;
        self.json(answered).await
    }

    /// Reads an answer in JSON.
    pub(super) async fn json<T: DeserializeOwned>(&self, answered: Answered) -> Result<T, Refusal> {
        let bytes = read(answered).await.map_err(Refusal::Broken)?;
        serde_json::from_slice(&bytes).map_err(|error| {
            Refusal::Broken(format!("the answer of the service {} is wrong: {error}", self.name))
        })
    }
}

async fn read(answered: Answered) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let read = answered.body.take(JSON_BYTES + 1).read_to_end(&mut bytes).await;
    read.map_err(|error| error.to_string())?;
    if bytes.len() as u64 > JSON_BYTES {
        return Err(format!("the answer has more than {JSON_BYTES} bytes"));
    }
    Ok(bytes)
}

/// What a service says about its refusal: each has a word of its own for it.
fn message(text: &[u8], name: &str) -> String {
    let json: Json = serde_json::from_slice(text).unwrap_or_default();
    let found = ["message", "msg", "error"].into_iter().find_map(|key| json.get(key)?.as_str());
    let words =
        || String::from_utf8_lossy(text).lines().next().unwrap_or_default().trim().to_owned();
    let found = found.map_or_else(words, str::to_owned);
    match found.chars().take(WORDS).collect::<String>() {
        words if words.is_empty() || words.starts_with('<') => {
            format!("the service {name} refuses")
        }
        words => words,
    }
}

/// A hexadecimal digit.
fn digit(value: u8) -> char {
    char::from_digit(u32::from(value), 16).unwrap_or('0').to_ascii_uppercase()
}

/// Text as it stands in the query of an address (RFC 3986 2).
pub(super) fn quote(text: &str) -> String {
    let mut quoted = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            quoted.push(char::from(byte));
        } else {
            quoted.extend(['%', digit(byte >> 4), digit(byte & 15)]);
        }
    }
    quoted
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use common::call::{ARTIFACT_SERVICE, TreeWish};

    use super::*;
    use crate::host::{Fetched, HostError};
    use crate::system::{Owner, Pending};

    /// A forge that answers so, the last first.
    struct Forge(Mutex<Vec<Result<(u16, &'static str), CallErrorKind>>>);

    impl Host for Forge {
        fn ask<'a>(
            &'a self,
            _wish: ForwardWish,
            _body: &'a [u8],
        ) -> Pending<'a, Result<Answered, HostError>> {
            let answer = self.0.lock().unwrap().pop().expect("it is not asked so often");
            let answer = answer
                .map(|(status, text)| Answered {
                    status,
                    headers: Vec::new(),
                    body: Box::new(text.as_bytes()),
                })
                .map_err(|kind| HostError::new(kind, "nobody answers"));
            Box::pin(std::future::ready(answer))
        }

        fn fetch_action<'a>(
            &'a self,
            _: &'a str,
            _: &'a str,
            _: Owner,
        ) -> Pending<'a, Result<Fetched, HostError>> {
            unreachable!()
        }

        fn fetch_tree<'a>(
            &'a self,
            _: &'a TreeWish,
            _: &'a str,
            _: Owner,
        ) -> Pending<'a, Result<Fetched, HostError>> {
            unreachable!()
        }
    }

    async fn ask(
        name: &'static str,
        answers: &[Result<(u16, &'static str), CallErrorKind>],
    ) -> (Result<u16, Refusal>, usize) {
        let forge = Forge(Mutex::new(answers.iter().rev().copied().collect()));
        let service = Service { host: &forge, name };
        let answered = service.ask("GET", "/", &[], &[]).await;
        let left = forge.0.lock().unwrap().len();
        (answered.map(|answered| answered.status), left)
    }

    #[tokio::test(start_paused = true)]
    async fn a_forge_that_fails_is_asked_again_and_not_for_ever() {
        let down = Err(CallErrorKind::Unavailable);
        let (answered, left) =
            ask(ARTIFACT_SERVICE, &[Ok((500, "")), down, Ok((429, "")), Ok((200, ""))]).await;
        assert_eq!((answered, left), (Ok(200), 0));
        let (answered, left) = ask(ARTIFACT_SERVICE, &[Ok((503, "busy")); 5]).await;
        assert_eq!(answered.unwrap_err().to_string(), "busy (503)");
        assert_eq!(left, 1);
        for (name, answer) in [
            (ARTIFACT_SERVICE, Ok((404, ""))),
            (ARTIFACT_SERVICE, Err(CallErrorKind::Refused)),
            (CACHE_SERVICE, Ok((500, ""))),
            (CACHE_SERVICE, down),
        ] {
            let (answered, left) = ask(name, &[answer; 2]).await;
            assert!(answered.is_err() && left == 1, "{name} {answer:?}");
        }
    }

    #[test]
    fn a_refusal_has_the_words_of_the_service() {
        for (text, expected) in [
            ("{\"msg\":\"it exists\"}", "it exists"),
            ("Error merge chunks: none\nmore", "Error merge chunks: none"),
            ("<html>", "the service x refuses"),
            ("", "the service x refuses"),
        ] {
            assert_eq!(message(text.as_bytes(), "x"), expected);
        }
        assert_eq!(message("a".repeat(999).as_bytes(), "x").len(), WORDS);
    }
}
