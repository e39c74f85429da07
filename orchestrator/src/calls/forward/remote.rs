//! A service of the job's forge.

use std::net::SocketAddr;
use std::time::Duration;

use axum::http::{HeaderValue, Request, Response, header};
use common::call::{CallError, CallErrorKind};
use common::request::{Secret, Service};
use futures_util::TryStreamExt;
use reqwest::{Url, redirect};
use tokio::sync::Mutex;
use tokio::time::Instant;
use tokio_util::io::StreamReader;

use super::{Body, OutBody};
use crate::fetch::{Policy, chain};

/// How long it may take to be connected.
const CONNECT: Duration = Duration::from_secs(30);

/// How long an answer may stand still.
const STILL: Duration = Duration::from_secs(10 * 60);

/// How long the addresses of a forge are taken to be the same.
const KNOWN: Duration = Duration::from_secs(60);

/// A service of the job's forge.
#[derive(Debug)]
pub(super) struct Remote {
    name: String,
    base: String,
    paths: Vec<String>,
    token: Option<Secret>,
    policy: Policy,
    /// Asks the addresses that were admitted when it was made, and no others.
    client: Mutex<Option<(reqwest::Client, Instant)>>,
}

impl Remote {
    pub(super) fn new(service: &Service, token: Option<Secret>, policy: Policy) -> Self {
        Self {
            name: service.name.clone(),
            base: service.base_url.trim_end_matches('/').to_owned(),
            paths: service.paths.clone(),
            token,
            policy,
            client: Mutex::default(),
        }
    }

    pub(super) async fn answer(
        &self,
        request: Request<Body>,
        has_body: bool,
    ) -> Result<Response<OutBody>, CallError> {
        let (parts, body) = request.into_parts();
        let url = self.url(&parts.uri.to_string())?;
        let client = self.client_for(&url).await?;
        let mut headers = parts.headers;
        // It names the guest's own port.
        headers.remove(header::HOST);
        if let (Some(token), false) = (&self.token, headers.contains_key(header::AUTHORIZATION)) {
            let value = HeaderValue::try_from(format!("Bearer {}", token.expose()));
            if let Ok(mut value) = value {
                value.set_sensitive(true);
                headers.insert(header::AUTHORIZATION, value);
            }
        }
        let mut asked = client.request(parts.method, url).headers(headers);
        if has_body {
            asked = asked.body(reqwest::Body::wrap_stream(body));
        }
        let answer = asked.send().await.map_err(|error| {
            let text = format!("the service {} of the forge: {}", self.name, chain(&error));
            CallError::new(CallErrorKind::Unavailable, text)
        })?;
        let mut response = Response::builder().status(answer.status());
        if let Some(fields) = response.headers_mut() {
            *fields = answer.headers().clone();
        }
        let stream = answer.bytes_stream().map_err(std::io::Error::other);
        let body: OutBody = Box::new(StreamReader::new(Box::pin(stream)));
        response.body(body).map_err(|error| {
            CallError::new(CallErrorKind::Unavailable, format!("the answer is none: {error}"))
        })
    }

    /// Who asks; the forge may have moved since the last time.
    async fn client_for(&self, url: &Url) -> Result<reqwest::Client, CallError> {
        let mut known = self.client.lock().await;
        match &*known {
            Some((client, made)) if made.elapsed() < KNOWN => Ok(client.clone()),
            _ => {
                let client = client(url, &self.policy).await?;
                *known = Some((client.clone(), Instant::now()));
                Ok(client)
            }
        }
    }

    /// The address of a path, if the job may ask for it.
    fn url(&self, path: &str) -> Result<Url, CallError> {
        let invalid =
            |error| CallError::new(CallErrorKind::Invalid, format!("{path} is no path: {error}"));
        let url = Url::parse(&format!("{}{path}", self.base)).map_err(invalid)?;
        let base = Url::parse(&self.base).map_err(invalid)?;
        let below = base.path().trim_end_matches('/');
        let rest = url.path().strip_prefix(below).unwrap_or_default();
        let coded = rest.to_ascii_lowercase();
        // A server may take these for a slash after we have looked at the path.
        let is_hidden = ["%2f", "%5c", "%2e", "\\"].iter().any(|hidden| coded.contains(hidden));
        if is_hidden
            || url.origin() != base.origin()
            || !self.paths.iter().any(|p| rest.starts_with(p))
        {
            let text = format!("{rest} is no path of the job's service {}", self.name);
            return Err(CallError::new(CallErrorKind::Refused, text));
        }
        Ok(url)
    }
}

async fn client(url: &Url, policy: &Policy) -> Result<reqwest::Client, CallError> {
    let addresses: Vec<SocketAddr> = policy.admit(url).await?;
    let mut builder = reqwest::Client::builder()
        .no_proxy()
        .redirect(redirect::Policy::none())
        .connect_timeout(CONNECT)
        .read_timeout(STILL);
    if let Some(name) = url.domain() {
        builder = builder.resolve_to_addrs(name, &addresses);
    }
    builder.build().map_err(|error| {
        CallError::new(CallErrorKind::Unavailable, format!("no client: {}", chain(&error)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remote() -> Remote {
        let service = Service {
            name: "artifacts".to_owned(),
            base_url: "https://forge.example/git/".to_owned(),
            token: None,
            paths: vec!["/api/actions_pipeline/".to_owned(), "/twirp/x/".to_owned()],
        };
        Remote::new(&service, None, Policy::default())
    }

    #[test]
    fn only_the_paths_of_a_service_are_asked_for() {
        let remote = remote();
        for (path, expected) in [
            ("/twirp/x/Create", "https://forge.example/git/twirp/x/Create"),
            ("/twirp/x/Create?a=%2e%2e%2f", "https://forge.example/git/twirp/x/Create?a=%2e%2e%2f"),
            ("/api/actions_pipeline/y", "https://forge.example/git/api/actions_pipeline/y"),
            ("/twirp/x/./Create", "https://forge.example/git/twirp/x/Create"),
        ] {
            assert_eq!(remote.url(path).unwrap().as_str(), expected);
        }
        for path in [
            "/api/v1/user",
            "/twirp/x/../../api/v1/user",
            "/twirp/x/%2e%2e/%2e%2e/api/v1/user",
            "/twirp/x/..%2f..%2fapi",
            "/twirp/x/..%5C..%5Capi",
            "/twirp/x/..\\..\\api/v1/user",
            "/../other",
            "/twirp/xy",
            "",
            "@evil.example/twirp/x/",
            ".evil.example/twirp/x/",
            ":80/twirp/x/",
        ] {
            assert!(remote.url(path).is_err(), "{path}");
        }
    }
}
