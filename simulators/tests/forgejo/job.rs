//! A job that talks to the server itself.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use forgejo_proto::runner::{Task, TaskResult};
use reqwest::{Client as Http, Method, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use simulators::forgejo::{Forge, Profile, RunId};

use crate::client::{Client, ONE, context};

/// A job of a task that runs.
pub(crate) struct Job {
    pub(crate) forge: Forge,
    pub(crate) runner: Client,
    pub(crate) run: RunId,
    pub(crate) task: Task,
    /// Its runtime token.
    pub(crate) token: String,
    /// Its id, as the token has it.
    pub(crate) id: String,
}

impl Job {
    /// The only job of a server, which is below a path.
    pub(crate) async fn start() -> Self {
        let forge = Forge::builder().profile(Profile::V15).sub_path("git").start().await;
        let runner = Client::declared(&forge).await;
        Self::next(&forge, &runner, ONE).await
    }

    /// The job of a new run.
    pub(crate) async fn next(forge: &Forge, runner: &Client, yaml: &str) -> Self {
        let run = forge.push_workflow("acme/widget", "ci.yml", yaml);
        Self::of(forge, runner, run, runner.task().await)
    }

    pub(crate) fn of(forge: &Forge, runner: &Client, run: RunId, task: Task) -> Self {
        let token = context(&task, "gitea_runtime_token").unwrap();
        let id = claims(&token)["JobID"].to_string();
        Self { forge: forge.clone(), runner: runner.clone(), run, task, token, id }
    }

    pub(crate) fn request(&self, method: Method, address: &str) -> RequestBuilder {
        let request = Http::builder().build().unwrap().request(method, address);
        request.header("authorization", format!("Bearer {}", self.token))
    }

    /// A call of the newer interface, with the ids of the job.
    pub(crate) async fn call(&self, method: &str, mut message: Value) -> (StatusCode, Value) {
        for (key, id) in [
            ("workflow_run_backend_id", self.run.to_string()),
            ("workflow_job_run_backend_id", self.id.clone()),
        ] {
            if message.get(key).is_none() {
                message[key] = id.into();
            }
        }
        let service = "twirp/github.actions.results.api.v1.ArtifactService";
        let address = format!("{}/{service}/{method}", self.forge.url());
        let response = self.request(Method::POST, &address).json(&message).send().await.unwrap();
        (response.status(), response.json().await.unwrap_or_default())
    }

    /// Begins an artifact; gives the address for its bytes.
    pub(crate) async fn create(&self, name: &str) -> String {
        let (status, answer) =
            self.call("CreateArtifact", json!({"name": name, "version": 4})).await;
        assert_eq!((status, &answer["ok"]), (StatusCode::OK, &json!(true)));
        answer["signedUploadUrl"].as_str().unwrap().to_owned()
    }

    /// Uploads a whole artifact by the newer interface.
    pub(crate) async fn upload(&self, name: &str, bytes: &str) {
        let address = self.create(name).await;
        assert_eq!(put(&format!("{address}&comp=appendBlock"), bytes).await, StatusCode::CREATED);
        let (status, _) = self.call("FinalizeArtifact", json!({"name": name})).await;
        assert_eq!(status, StatusCode::OK);
    }

    /// The address from which an artifact is downloaded.
    pub(crate) async fn address(&self, name: &str) -> String {
        let (status, answer) = self.call("GetSignedArtifactURL", json!({"name": name})).await;
        assert_eq!(status, StatusCode::OK);
        answer["signedUrl"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn end(&self) {
        self.runner.finish(&self.task, TaskResult::RESULT_SUCCESS, &[]).await;
    }

    /// What the client did wrong since the last look, by the words of it.
    #[track_caller]
    pub(crate) fn expect_violations(&self, seen: &mut usize, words: &[&str]) {
        let all = self.forge.violations();
        let new = &all[*seen..];
        *seen = all.len();
        assert_eq!(new.len(), words.len(), "{new:#?}");
        for (violation, words) in new.iter().zip(words) {
            assert!(violation.contains(words), "{words:?} is not in {violation:?}");
        }
    }
}

/// What a token says, whoever signed it.
pub(crate) fn claims(token: &str) -> Value {
    let part = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

/// Puts bytes to a signed address.
pub(crate) async fn put(address: &str, bytes: &str) -> StatusCode {
    let http = Http::builder().build().unwrap();
    http.put(address).body(bytes.to_owned()).send().await.unwrap().status()
}

/// Gets what is at a signed address.
pub(crate) async fn get(address: &str, range: Option<&str>) -> Response {
    let mut request = Http::builder().build().unwrap().get(address);
    if let Some(range) = range {
        request = request.header("range", range);
    }
    request.send().await.unwrap()
}
