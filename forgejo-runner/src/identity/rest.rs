//! The REST interface of an instance, as far as it makes and removes runners
//! (forgejo-runner-protocol 3.2).

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use common::request::Secret;
use reqwest::{Method, RequestBuilder, StatusCode, Url, header};
use serde::Deserialize;
use serde_json::Value;

use super::IdentityError;
use crate::client::{chain, http_client};
use crate::settings::Trust;

/// How long one question may take.
const QUESTION: Duration = Duration::from_secs(30);
/// The longest answer that is read.
const ANSWER_BYTES: usize = common::limits::MIB as usize;
/// So many runners are asked for at a time, and so many times.
const PAGE: usize = 50;
const PAGES: usize = 20;

/// For which repositories a runner works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Those of the whole instance.
    Admin,
    /// Those of an organization.
    Organization(String),
    /// Those of the user whose token it is.
    User,
    /// One.
    Repository(String, String),
}

impl FromStr for Scope {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let plain = |name: &str| {
            let strange = |c: char| c.is_whitespace() || matches!(c, '/' | '?' | '#' | '%');
            !name.is_empty() && !name.contains(strange) && !matches!(name, "." | "..")
        };
        match text.split_once('/') {
            None if text == "admin" => Ok(Self::Admin),
            None if text == "user" => Ok(Self::User),
            Some(("org", name)) if plain(name) => Ok(Self::Organization(name.to_owned())),
            Some((owner, name)) if plain(owner) && plain(name) => {
                Ok(Self::Repository(owner.to_owned(), name.to_owned()))
            }
            _ => Err(format!("{text:?} is not admin, org/NAME, user or OWNER/REPOSITORY")),
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Admin => f.write_str("admin"),
            Self::Organization(name) => write!(f, "org/{name}"),
            Self::User => f.write_str("user"),
            Self::Repository(owner, name) => write!(f, "{owner}/{name}"),
        }
    }
}

impl Scope {
    /// The page on which people see the runners of this scope.
    #[must_use]
    pub fn page(&self, instance: &Url) -> String {
        let base = instance.as_str().trim_end_matches('/');
        match self {
            Self::Admin => format!("{base}/admin/actions/runners"),
            Self::Organization(name) => format!("{base}/org/{name}/settings/actions/runners"),
            Self::User => format!("{base}/user/settings/actions/runners"),
            Self::Repository(owner, name) => {
                format!("{base}/{owner}/{name}/settings/actions/runners")
            }
        }
    }

    fn path(&self) -> String {
        match self {
            Self::Admin => "api/v1/admin/actions/runners".to_owned(),
            Self::Organization(name) => format!("api/v1/orgs/{name}/actions/runners"),
            Self::User => "api/v1/user/actions/runners".to_owned(),
            Self::Repository(owner, name) => format!("api/v1/repos/{owner}/{name}/actions/runners"),
        }
    }
}

/// A runner that the instance made.
#[derive(Clone, Debug)]
pub struct Created {
    /// The server's number for it.
    pub id: i64,
    /// Its id.
    pub uuid: String,
    /// Its token; no server shows it again.
    pub token: Secret,
}

/// An instance, with the token of a user who may change its runners.
#[derive(Clone, Debug)]
pub struct Rest {
    http: reqwest::Client,
    url: Url,
    token: Secret,
}

#[derive(Deserialize)]
struct CreatedAnswer {
    id: i64,
    uuid: String,
    token: String,
}

impl Rest {
    /// Asks with a token of the API.
    ///
    /// # Errors
    /// The file of certificates cannot be used.
    pub fn new(url: &Url, trust: &Trust, token: Secret) -> Result<Self, IdentityError> {
        let client = http_client(trust).map_err(|error| IdentityError::new(error.message))?;
        let http =
            client.timeout(QUESTION).build().map_err(|error| IdentityError::new(chain(&error)))?;
        Ok(Self { http, url: url.clone(), token })
    }

    /// Makes a runner.
    ///
    /// # Errors
    /// The server does not answer, is older than Forgejo 15, or the token may not do this.
    pub async fn create(&self, scope: &Scope, name: &str) -> Result<Created, IdentityError> {
        let body = serde_json::json!({ "name": name, "description": "Solstice" }).to_string();
        let request = self
            .request(Method::POST, &scope.path())?
            .header(header::CONTENT_TYPE, "application/json")
            .body(body);
        let (status, bytes) = self.send(request).await?;
        if status != StatusCode::CREATED {
            return Err(self.refused(scope, status, &bytes, "make a runner"));
        }
        let answer: CreatedAnswer = serde_json::from_slice(&bytes).map_err(|_| {
            IdentityError::new("the server made a runner, and its answer has no identity")
                .hint(format!("remove that runner on {}", scope.page(&self.url)))
        })?;
        Ok(Created { id: answer.id, uuid: answer.uuid, token: Secret::new(answer.token) })
    }

    /// Deletes a runner; whether there was one.
    ///
    /// # Errors
    /// The server does not answer, or the token may not do this.
    pub async fn delete(
        &self,
        scope: &Scope,
        uuid: &str,
        id: Option<i64>,
    ) -> Result<bool, IdentityError> {
        let id = match id.filter(|id| *id > 0) {
            Some(id) => id,
            None => match self.find(scope, uuid).await? {
                Some(id) => id,
                None => return Ok(false),
            },
        };
        let path = format!("{}/{id}", scope.path());
        let (status, bytes) = self.send(self.request(Method::DELETE, &path)?).await?;
        match status {
            StatusCode::NO_CONTENT | StatusCode::OK => Ok(true),
            StatusCode::NOT_FOUND => Ok(false),
            status => Err(self.refused(scope, status, &bytes, "delete a runner")),
        }
    }

    /// The server's number of the runner with an id.
    async fn find(&self, scope: &Scope, uuid: &str) -> Result<Option<i64>, IdentityError> {
        for page in 1..=PAGES {
            let path = format!("{}?page={page}&limit={PAGE}", scope.path());
            let (status, bytes) = self.send(self.request(Method::GET, &path)?).await?;
            if status != StatusCode::OK {
                return Err(self.refused(scope, status, &bytes, "list runners"));
            }
            let runners = listed(&bytes);
            let found = runners.iter().find(|runner| {
                runner["uuid"].as_str().is_some_and(|found| found.eq_ignore_ascii_case(uuid))
            });
            if let Some(runner) = found {
                return Ok(runner["id"].as_i64());
            }
            if runners.len() < PAGE {
                break;
            }
        }
        Ok(None)
    }

    fn request(&self, method: Method, path: &str) -> Result<RequestBuilder, IdentityError> {
        let base = self.url.as_str().trim_end_matches('/');
        let url = format!("{base}/{path}");
        let mut token = header::HeaderValue::from_str(&format!("token {}", self.token.expose()))
            .map_err(|_| IdentityError::new("the token of the API is not plain text"))?;
        token.set_sensitive(true);
        Ok(self.http.request(method, url).header(header::AUTHORIZATION, token))
    }

    async fn send(&self, request: RequestBuilder) -> Result<(StatusCode, Vec<u8>), IdentityError> {
        let failed = |error: reqwest::Error| {
            let reason = chain(&error.without_url());
            IdentityError::new(format!("{} does not answer: {reason}", self.url))
                .hint("check the URL, and that this host reaches it")
        };
        let mut response = request.send().await.map_err(failed)?;
        let status = response.status();
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > ANSWER_BYTES {
                return Err(IdentityError::new(format!("{} answers too much", self.url)));
            }
        }
        Ok((status, bytes))
    }

    fn refused(
        &self,
        scope: &Scope,
        status: StatusCode,
        bytes: &[u8],
        what: &str,
    ) -> IdentityError {
        let said = said(bytes).map_or_else(String::new, |said| format!(" ({said})"));
        let message = format!("the server does not {what} for {scope}: {status}{said}");
        let hint = match status {
            StatusCode::UNAUTHORIZED => {
                "make a new token on the page /user/settings/applications of the instance"
                    .to_owned()
            }
            StatusCode::FORBIDDEN => format!(
                "the token needs {} with write, and its user the right to administer {scope}",
                match scope {
                    Scope::Admin => "admin",
                    Scope::Organization(_) => "organization",
                    Scope::User => "user",
                    Scope::Repository(..) => "repository",
                }
            ),
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => format!(
                "the server must be Forgejo 15 or later and {scope} must exist; otherwise use a \
                 registration token"
            ),
            _ => format!("make the runner by hand on {}", scope.page(&self.url)),
        };
        IdentityError::new(message).hint(hint)
    }
}

/// The runners of a page: Forgejo gives a list, Gitea an object with one.
fn listed(bytes: &[u8]) -> Vec<Value> {
    match serde_json::from_slice(bytes) {
        Ok(Value::Array(runners)) => runners,
        Ok(Value::Object(mut keys)) => match keys.remove("runners") {
            Some(Value::Array(runners)) => runners,
            _ => Vec::new(),
        },
        _ => Vec::new(),
    }
}

/// What the server says in words, cut short.
fn said(bytes: &[u8]) -> Option<String> {
    let answer: Value = serde_json::from_slice(bytes).ok()?;
    let said: String = answer["message"].as_str()?.chars().take(200).collect();
    (!said.is_empty()).then_some(said)
}

/// What the clock of an instance says, as HTTP writes it; `None` where it does not say.
///
/// # Errors
/// Nobody answers.
pub async fn date(url: &Url, trust: &Trust) -> Result<Option<String>, IdentityError> {
    let client = http_client(trust).map_err(|error| IdentityError::new(error.message))?;
    let http = client.timeout(QUESTION).build();
    let http = http.map_err(|error| IdentityError::new(chain(&error)))?;
    let page = format!("{}/api/v1/version", url.as_str().trim_end_matches('/'));
    let response = http.get(page).send().await;
    let response = response.map_err(|error| IdentityError::new(chain(&error.without_url())))?;
    let date = response.headers().get(header::DATE).and_then(|date| date.to_str().ok());
    Ok(date.map(str::to_owned))
}

#[cfg(test)]
mod tests;
