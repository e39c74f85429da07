//! Asking a server for the branches and tags of a repository, wherever it sends us.

use std::net::SocketAddr;
use std::time::Duration;

use common::call::{CallError, CallErrorKind};
use common::request::Secret;
use futures_util::StreamExt;
use reqwest::{StatusCode, Url, header, redirect};

use super::git::{Credentials, Remote};
use super::refs::Refs;
use super::{Origin, Policy, Repository};

/// How long a server may take to say what its branches and tags are.
const DEADLINE: Duration = Duration::from_secs(60);
/// The bytes of that answer.
const BYTES: usize = 16 * 1024 * 1024;
/// How often a server may send us elsewhere.
const REDIRECTS: u32 = 5;
/// What stands behind a repository's address (gitprotocol-http(5)).
const QUESTION: &str = "/info/refs?service=git-upload-pack";

/// What a server says, and where it was found.
pub(super) struct Asked {
    pub(super) remote: Remote,
    pub(super) refs: Refs,
}

/// Asks. The token goes to the repository's own origin and to no other.
///
/// # Errors
/// The repository is not there, must not be asked, or does not answer.
pub(super) async fn ask(
    repository: &Repository,
    policy: &Policy,
    token: Option<&Secret>,
) -> Result<Asked, CallError> {
    let unavailable = |why: String| CallError::new(CallErrorKind::Unavailable, why);
    let mut url = repository.url();
    let home = Origin::parse(url.as_str()).map_err(unavailable)?;
    for _ in 0..=REDIRECTS {
        let addresses = policy.admit(&url).await?;
        let is_home = Origin::parse(url.as_str()).is_ok_and(|origin| origin == home);
        let credentials = token.filter(|_| is_home).map(Credentials::of);
        let client = client(&url, &addresses).map_err(|error| unavailable(chain(&error)))?;
        let asked = format!("{}{QUESTION}", url.as_str().trim_end_matches('/'));
        let mut request = client.get(&asked);
        if let Some(credentials) = &credentials {
            request = request.header(header::AUTHORIZATION, credentials.expose());
        }
        let answer = request.send().await.map_err(|error| unavailable(chain(&error)))?;
        let status = answer.status();
        if status.is_redirection() {
            url = elsewhere(&asked, answer.headers()).ok_or_else(|| {
                unavailable(format!("{url} sends us to a place that is no repository ({status})"))
            })?;
            continue;
        }
        if !status.is_success() {
            return Err(refusal(&url, status));
        }
        let bytes = read(answer).await.map_err(unavailable)?;
        let refs = Refs::read(&bytes).ok_or_else(|| {
            unavailable(format!("{url} is no git repository: a web page came instead"))
        })?;
        return Ok(Asked { remote: Remote { url, addresses, credentials }, refs });
    }
    Err(unavailable(format!("{} sends us on and on", repository.url())))
}

/// The repository to which an answer sends us.
fn elsewhere(asked: &str, headers: &header::HeaderMap) -> Option<Url> {
    let target = headers.get(header::LOCATION)?.to_str().ok()?;
    let target = Url::parse(asked).ok()?.join(target).ok()?;
    Url::parse(target.as_str().strip_suffix(QUESTION)?).ok()
}

fn refusal(url: &Url, status: StatusCode) -> CallError {
    match status {
        StatusCode::NOT_FOUND | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => CallError::new(
            CallErrorKind::NotFound,
            format!(
                "{url} does not exist, or this job may not read it ({status}); look whether the name \
                 is right and whether it is private, or write the whole address"
            ),
        ),
        _ => CallError::new(CallErrorKind::Unavailable, format!("{url} answers {status}")),
    }
}

/// A client that goes to these addresses, directly, and follows nothing.
fn client(url: &Url, addresses: &[SocketAddr]) -> reqwest::Result<reqwest::Client> {
    let mut builder = reqwest::Client::builder()
        .no_proxy()
        .redirect(redirect::Policy::none())
        .timeout(DEADLINE)
        // Servers tell git from a browser by it.
        .user_agent(concat!("git/2.0 solstice/", env!("CARGO_PKG_VERSION")));
    if let Some(name) = url.domain() {
        builder = builder.resolve_to_addrs(name, addresses);
    }
    builder.build()
}

async fn read(answer: reqwest::Response) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let mut stream = answer.bytes_stream();
    while let Some(chunk) = stream.next().await {
        bytes.extend_from_slice(&chunk.map_err(|error| chain(&error))?);
        if bytes.len() > BYTES {
            return Err(format!("the list of branches has more than {BYTES} bytes"));
        }
    }
    Ok(bytes)
}

/// An error with its causes.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
