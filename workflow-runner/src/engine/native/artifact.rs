//! `actions/upload-artifact` and `actions/download-artifact` (forgejo-runner-protocol 8.9,
//! github-runner-protocol 8.5).
//!
//! From the fourth version on an artifact is one archive; before, it has files one by one. The services
//! keep the two apart.

mod download;
mod older;
mod upload;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use common::call::{ARTIFACT_CALLS, ARTIFACT_SERVICE, may_name_artifact};
use common::guest::GuestService;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value as Json};

use crate::service;

use super::service::{Refusal, Service};
use crate::engine::fault::Fault;
use crate::engine::job::Job;
use crate::workflow::Version;

/// The claim that says which run and job the services take this for.
const SCOPE: &str = "Actions.Results:";

/// The artifacts of the job's run.
struct Artifacts<'a> {
    service: Service<'a>,
    known: &'a GuestService,
    /// The run and the job, as the service calls them.
    ids: (String, String),
}

#[derive(Deserialize)]
struct Claims {
    scp: String,
}

/// How a version of the actions keeps artifacts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Interface {
    /// Files one by one.
    Older,
    /// One archive.
    Newer,
}

impl Interface {
    fn of(version: Version) -> Self {
        match version {
            Version::Listed(major) if major < 4 => Self::Older,
            _ => Self::Newer,
        }
    }
}

/// An artifact as the service lists it.
#[derive(Clone, Debug, Deserialize)]
struct Listed {
    #[serde(alias = "workflowRunBackendId")]
    workflow_run_backend_id: String,
    #[serde(alias = "workflowJobRunBackendId")]
    workflow_job_run_backend_id: String,
    #[serde(alias = "databaseId")]
    database_id: Json,
    name: String,
    #[serde(default)]
    size: Json,
}

/// A number of 64 bits, which protobuf writes as text.
fn number(value: &Json) -> u64 {
    value.as_u64().or_else(|| value.as_str()?.parse().ok()).unwrap_or_default()
}

impl Job<'_> {
    /// The artifacts of the job's run.
    fn artifacts(&self) -> Result<Artifacts<'_>, Fault> {
        let known = self.artifact_service()?;
        let ids = known.token.as_ref().and_then(|token| ids(token.expose()));
        let ids = ids.ok_or_else(|| {
            "the token of the service that keeps artifacts does not say which run this is"
                .to_owned()
        })?;
        Ok(Artifacts { service: Service { host: self.host, name: ARTIFACT_SERVICE }, known, ids })
    }

    fn artifact_service(&self) -> Result<&GuestService, Fault> {
        let known = self.document.services.iter().find(|known| known.name == ARTIFACT_SERVICE);
        Ok(known.ok_or_else(|| "this job has no service that keeps artifacts".to_owned())?)
    }
}

/// The run and the job of a token.
fn ids(token: &str) -> Option<(String, String)> {
    let claims = BASE64_URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    let Claims { scp } = serde_json::from_slice(&claims).ok()?;
    let scope = scp.split(' ').find_map(|scope| scope.strip_prefix(SCOPE))?;
    let (run, job) = scope.split_once(':')?;
    Some((run.to_owned(), job.split(':').next()?.to_owned()))
}

impl Artifacts<'_> {
    /// Makes a call about this run; gives the answer.
    async fn call<T: DeserializeOwned>(
        &self,
        name: &str,
        members: &[(&str, Json)],
    ) -> Result<T, Refusal> {
        let (run, job) = &self.ids;
        self.call_about((run, job), name, members).await
    }

    async fn call_about<T: DeserializeOwned>(
        &self,
        (run, job): (&str, &str),
        name: &str,
        members: &[(&str, Json)],
    ) -> Result<T, Refusal> {
        let mut body = Map::new();
        body.insert("workflow_run_backend_id".to_owned(), run.into());
        body.insert("workflow_job_run_backend_id".to_owned(), job.into());
        body.extend(members.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        self.service.call(&format!("{ARTIFACT_CALLS}{name}"), &Json::Object(body)).await
    }
}

/// The path of an address that the service gave.
fn path_of(known: &GuestService, url: &str) -> Result<String, Refusal> {
    let path = match known.base_url.is_empty() {
        true => url.split_once("://").and_then(|(_, rest)| Some(&rest[rest.find('/')?..])),
        false => service::path_of(known, url),
    };
    let origin = || url.split('/').take(3).collect::<Vec<_>>().join("/");
    path.map(str::to_owned).ok_or_else(|| Refusal::Elsewhere(origin()))
}

/// Whether a text may be the name of an artifact; the error is a sentence (forgejo-runner-protocol 8.9).
fn check_name(name: &str) -> Result<(), String> {
    match name.chars().find(|c| !may_name_artifact(*c)) {
        Some(odd) => Err(format!(
            "the artifact name {name:?} is not valid: it contains {odd:?}; it must have none of \
             \" : < > | * ? \\ / and no line break"
        )),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_says_which_run_it_is() {
        let token = |scope: &str| {
            let claims = format!("{{\"scp\":\"{scope}\",\"x\":1}}");
            format!("e30.{}.s", BASE64_URL_SAFE_NO_PAD.encode(claims))
        };
        let expected = Some(("7".to_owned(), "8".to_owned()));
        assert_eq!(ids(&token("Actions.Results:7:8")), expected);
        assert_eq!(ids(&token("Other:1 Actions.Results:7:8")), expected);
        for wrong in [token("Actions.Results:7"), token(""), String::new(), "a.b.c".to_owned()] {
            assert_eq!(ids(&wrong), None, "{wrong}");
        }
    }

    #[test]
    fn names_are_those_that_the_forges_take() {
        assert!(check_name("my artifact-1.0_ü").is_ok());
        for wrong in ["a/b", "a\\b", "a:b", "a\nb", "what?"] {
            assert!(check_name(wrong).unwrap_err().contains("is not valid"), "{wrong}");
        }
    }
}
