//! ID tokens of jobs, which they show to others (forgejo-runner-protocol 8.10). Their public key is
//! not served; a test reads them with [`Forge::id_token`].

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, State as Shares};
use http::{HeaderMap, Method, Response, StatusCode, Uri};
use serde_json::{Map, Value, json};

use super::artifacts::{answered, json_answer, parameter};
use super::forge::Forge;
use super::json_web_token::{read_rs256, rs256};
use super::runtime_token::{Refusal, seconds, token};
use super::server::Shared;
use super::state::{State, owner_of};

/// Where they are.
pub(super) const PATH: &str = "/api/actions/_apis/pipelines/workflows/{run}/idtoken";

/// How long one is good.
const LIFE: Duration = Duration::from_secs(60 * 60);

/// Answers a job that wants one.
pub(super) async fn answer(
    Shares(shared): Shares<Arc<Shared>>,
    Path(run): Path<String>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Response<Body> {
    let audience = parameter(&uri, "audience");
    let made = if method == Method::GET {
        shared.lock().id_token(run.parse().unwrap_or_default(), &audience, &headers)
    } else {
        Err(Refusal::of(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed"))
    };
    let made = made.map(|token| json_answer(StatusCode::OK, &json!({"value": token})));
    answered(&shared, "idtoken", made)
}

impl State {
    /// Makes a token for a job of a run.
    ///
    /// # Errors
    /// The job is not of the run, does not run, or may have none.
    fn id_token(&self, run: i64, audience: &str, headers: &HeaderMap) -> Result<String, Refusal> {
        const BROKEN: StatusCode = StatusCode::INTERNAL_SERVER_ERROR;
        if !self.profile.has_oidc() {
            return Err(Refusal::of(StatusCode::NOT_FOUND, "404 page not found"));
        }
        let unread = || Refusal::of(BROKEN, "Error runner api parsing authorization token");
        let known = self.claims(token(headers)?).ok_or_else(unread)?;
        // A token without the claims is of a job that may have none.
        let extra = known["oidc_extra"].as_str().unwrap_or_default();
        let mut claims: Map<String, Value> = serde_json::from_str(extra)
            .map_err(|_| Refusal::of(BROKEN, "Error runner api parsing custom claims"))?;
        let bearer = self.running(known["TaskID"].as_i64().unwrap_or_default())?;
        if bearer.run != run {
            return Err(Refusal::of(StatusCode::BAD_REQUEST, "run-id does not match"));
        }
        let scope = format!("generate_id_token:{}:{}", bearer.run, bearer.job);
        let mut scopes = known["scp"].as_str().unwrap_or_default().split(' ');
        if !scopes.any(|other| other == scope) {
            return Err(Refusal::of(StatusCode::FORBIDDEN, "missing scp generate_id_token"));
        }
        let repository = self.runs.get(&run).map_or("", |run| run.repository.as_str());
        let audience = match audience {
            "" => format!("{}/{}", self.url, owner_of(repository)),
            given => given.to_owned(),
        };
        let now = self.clock.now();
        let common = [
            ("sub", known["oidc_sub"].clone()),
            ("aud", audience.into()),
            ("exp", seconds(now + LIFE).into()),
            ("iat", seconds(now).into()),
            ("nbf", seconds(now).into()),
            ("iss", format!("{}/api/actions", self.url).into()),
        ];
        claims.extend(common.map(|(key, value)| (key.to_owned(), value)));
        Ok(rs256(&Value::Object(claims)))
    }
}

impl Forge {
    /// What an ID token of a simulated server says; nothing if the signature is not its own. Whether
    /// it is too old is not looked at.
    #[must_use]
    pub fn id_token(token: &str) -> Option<Value> {
        read_rs256(token)
    }
}
