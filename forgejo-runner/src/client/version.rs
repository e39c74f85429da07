//! Which server this is. The runner protocol does not say; the public REST interface does.

use std::time::Duration;

use reqwest::Url;
use serde::Deserialize;

use super::transport::{chain, client};
use super::{RpcError, RpcErrorKind};
use crate::settings::Trust;

/// How long the question may take.
const QUESTION: Duration = Duration::from_secs(10);
/// An answer has a few bytes.
const ANSWER_BYTES: usize = 64 * 1024;

/// What a server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Forgejo.
    Forgejo,
    /// Gitea.
    Gitea,
}

/// A server and its version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// What it is.
    pub kind: Kind,
    /// As the server says it.
    pub text: String,
}

#[derive(Deserialize)]
struct Answer {
    version: String,
}

/// Asks an instance what it is; `None` where it does not say, as instances that show nothing without
/// signing in.
///
/// # Errors
/// Nobody answers.
pub async fn version(url: &Url, trust: &Trust) -> Result<Option<Version>, RpcError> {
    let base = url.as_str().trim_end_matches('/');
    let http = client(trust)?.timeout(QUESTION).build();
    let http = http.map_err(|error| RpcError::strange(chain(&error)))?;
    // Gitea has no address of this name.
    if let Some(text) = ask(&http, &format!("{base}/api/forgejo/v1/version")).await? {
        return Ok(Some(Version { kind: Kind::Forgejo, text }));
    }
    let text = ask(&http, &format!("{base}/api/v1/version")).await?;
    Ok(text.map(|text| Version { kind: kind_of(&text), text }))
}

/// Forgejo numbers its versions from 7 on and names the Gitea that it stems from behind a plus.
fn kind_of(text: &str) -> Kind {
    let major = text.split('.').next().and_then(|number| number.parse::<u32>().ok());
    if text.contains("+gitea-") || major.is_some_and(|major| major >= 7) {
        Kind::Forgejo
    } else {
        Kind::Gitea
    }
}

async fn ask(http: &reqwest::Client, url: &str) -> Result<Option<String>, RpcError> {
    let unavailable = |error: reqwest::Error| RpcError {
        kind: RpcErrorKind::Unavailable,
        message: chain(&error.without_url()),
    };
    let mut response = http.get(url).send().await.map_err(unavailable)?;
    match response.status().as_u16() {
        200..=299 => {}
        // It is not there, or not for everybody.
        401 | 403 | 404 => return Ok(None),
        status => {
            let message = format!("the version was answered with status {status}");
            return Err(RpcError { kind: RpcErrorKind::Unavailable, message });
        }
    }
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(unavailable)? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > ANSWER_BYTES {
            return Ok(None);
        }
    }
    let answer: Option<Answer> = serde_json::from_slice(&bytes).ok();
    Ok(answer.map(|answer| answer.version))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_tells_the_server() {
        for (text, kind) in [
            ("15.0.3+gitea-1.22.0", Kind::Forgejo),
            ("7.0.1", Kind::Forgejo),
            ("1.24.0", Kind::Gitea),
            ("1.21.11+gitea-1.21.11", Kind::Forgejo),
            ("development", Kind::Gitea),
        ] {
            assert_eq!(kind_of(text), kind, "{text}");
        }
    }
}
