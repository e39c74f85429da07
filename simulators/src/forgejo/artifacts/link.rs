//! Addresses that let their holder in for an hour, without a token: they are signed.

use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use http::{StatusCode, Uri};
use url::form_urlencoded;

use super::super::runtime_token::{Bearer, Refusal};
use super::super::state::State;
use super::{newer, parameter};

/// How long an address is good.
const LIFE: Duration = Duration::from_secs(60 * 60);

/// What a signed address is for.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) bearer: Bearer,
    pub(super) name: String,
}

impl State {
    fn sign(&self, method: &str, expires: &str, name: &str, task: &str, artifact: &str) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.secret);
        let text = [method, expires, name, task, artifact].join("\n");
        URL_SAFE.encode(hmac::sign(&key, text.as_bytes()))
    }

    /// The address under which a task uploads or downloads an artifact.
    pub(super) fn link(&self, method: &str, name: &str, task: i64, artifact: i64) -> String {
        let expires = humantime::format_rfc3339_nanos(self.clock.now() + LIFE).to_string();
        let (task, artifact) = (task.to_string(), artifact.to_string());
        let signature = self.sign(method, &expires, name, &task, &artifact);
        let mut question = form_urlencoded::Serializer::new(String::new());
        question.append_pair("sig", &signature).append_pair("expires", &expires);
        question.append_pair("artifactName", name).append_pair("taskID", &task);
        question.append_pair("artifactID", &artifact);
        format!("{}{}/{method}?{}", self.url, newer::BASE, question.finish())
    }

    /// Reads an address that comes back.
    ///
    /// # Errors
    /// It is none of ours or too old, or its task does not run any more.
    pub(super) fn read_link(&self, method: &str, uri: &Uri) -> Result<Link, Refusal> {
        let unauthorized = |message: &str| Refusal::of(StatusCode::UNAUTHORIZED, message);
        let [expires, name, task, artifact] =
            ["expires", "artifactName", "taskID", "artifactID"].map(|key| parameter(uri, key));
        if self.sign(method, &expires, &name, &task, &artifact) != parameter(uri, "sig") {
            return Err(unauthorized("Error unauthorized"));
        }
        let until = humantime::parse_rfc3339(&expires).ok();
        if until.is_none_or(|until| until < self.clock.now()) {
            return Err(unauthorized("Error link expired"));
        }
        let bearer = self.running(task.parse().unwrap_or_default())?;
        Ok(Link { bearer, name })
    }
}
