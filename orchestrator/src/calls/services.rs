//! What the host does for the guest of one job.

use std::sync::Arc;

use common::call::{CallAnswer, CallError, CallErrorKind, HostCall};
use common::plan::Dialect;
use common::request::JobRequest;

use super::Answer;
use crate::fetch::{ActionStore, Origin, Policy, Repository};

/// What the host does for the guest of one job, and in whose name.
#[derive(Debug)]
pub(crate) struct JobServices {
    actions: Arc<ActionStore>,
    /// Where actions are that name no host.
    origin: Result<Origin, String>,
    policy: Policy,
}

impl JobServices {
    pub(crate) fn new(request: &JobRequest, actions: Arc<ActionStore>) -> Self {
        let github = &request.body.contexts.github;
        let server = github.get("server_url").and_then(serde_json::Value::as_str);
        let forge = server.and_then(|url| Origin::parse(url).ok());
        let settings = actions.settings();
        let own = match request.body.plan.dialect {
            Dialect::Github => &settings.github,
            Dialect::Forgejo => &settings.forgejo,
            Dialect::Gitea => &settings.gitea,
        };
        let named = request.body.actions_url.as_deref();
        let origin = named.map_or_else(|| Ok(own.clone()), Origin::parse);
        // What the settings name is the operator's word; what a server names is not.
        let mut trusted = settings.trusted.clone();
        trusted.push(own.clone());
        Self { actions, origin, policy: Policy { forge, trusted } }
    }

    /// Does what a guest asks for.
    pub(super) async fn serve(&self, call: HostCall) -> Result<Answer, CallError> {
        match call {
            HostCall::Action { reference } => self.action(&reference).await,
        }
    }

    async fn action(&self, reference: &str) -> Result<Answer, CallError> {
        let invalid = |message: String| CallError::new(CallErrorKind::Invalid, message);
        let (repository, version) = self.place(reference).map_err(invalid)?;
        let archive = self.actions.fetch(&repository, version, &self.policy).await?;
        let file = tokio::fs::File::open(&archive.file).await.map_err(|error| {
            let path = archive.file.display();
            CallError::new(CallErrorKind::Unavailable, format!("cannot read {path}: {error}"))
        })?;
        Ok(Answer { head: CallAnswer::Action { commit: archive.commit }, body: Box::new(file) })
    }

    /// Where the repository of a reference is, and its version.
    fn place<'a>(&self, reference: &'a str) -> Result<(Repository, &'a str), String> {
        let (name, version) = reference
            .split_once('@')
            .filter(|(_, version)| !version.is_empty())
            .ok_or_else(|| format!("{reference} names no version"))?;
        if !name.contains("://") {
            return Ok((Repository::new(self.origin.clone()?, name)?, version));
        }
        let (origin, path) = Origin::split(name)?;
        Ok((Repository::new(origin, path)?, version))
    }
}
