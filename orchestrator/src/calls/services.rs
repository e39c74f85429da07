//! What the host does for the guest of one job.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use common::call::{CallAnswer, CallError, CallErrorKind, HostCall, TreeWish};
use common::plan::Dialect;
use common::request::JobRequest;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout};

use super::forward::Services;
use super::pack::packed;
use super::{Answer, Body};
use crate::artifacts::LocalArtifacts;
use crate::cache::{CacheStore, JobCache, Scope};
use crate::fetch::{ActionStore, Origin, Policy, Repository, TreeStore, check_sparse, is_commit};

/// What the host does for the guest of one job, and in whose name.
#[derive(Debug)]
pub(crate) struct JobServices {
    actions: Arc<ActionStore>,
    trees: Arc<TreeStore>,
    /// The job's forge: its origin, and where on that it is.
    forge: Result<(Origin, String), String>,
    /// Where actions are that name no host.
    origin: Result<(Origin, String), String>,
    policy: Policy,
    services: Services,
    /// What the job may have under way at the same time.
    under_way: Arc<Semaphore>,
}

/// What this host keeps for all jobs.
#[derive(Clone, Debug)]
pub(crate) struct Keepers {
    pub(crate) actions: Arc<ActionStore>,
    pub(crate) trees: Arc<TreeStore>,
    pub(crate) caches: Arc<CacheStore>,
    /// Where the artifacts of runs are that have no forge.
    pub(crate) artifacts: PathBuf,
}

/// Fetches of one job that are under way; further ones wait. Each may take a file of the largest size.
const UNDER_WAY: usize = 2;

/// How long a call may wait for the others of its job.
const TURN: Duration = Duration::from_secs(20 * 60);

/// How often what may pass is tried, and the pause between.
const ATTEMPTS: u32 = 3;
const PAUSE: Duration = Duration::from_secs(5);

/// An attempt that took longer met a limit, and another one would too.
const SHORT: Duration = Duration::from_secs(60);

/// What is fetched for a guest.
enum Fetch {
    Action(String),
    Tree(TreeWish),
}

impl JobServices {
    pub(crate) fn new(request: &JobRequest, keepers: Keepers) -> Self {
        let Keepers { actions, trees, caches, artifacts } = keepers;
        let github = &request.body.contexts.github;
        let server = github.get("server_url").and_then(serde_json::Value::as_str);
        let place = |url: &str| Origin::split(url).map(|(at, path)| (at, path.to_owned()));
        let forge = server.map_or_else(|| Err("the job names no forge".to_owned()), place);
        let settings = actions.settings();
        let own = match request.body.plan.dialect {
            Dialect::Github => &settings.github,
            Dialect::Forgejo => &settings.forgejo,
            Dialect::Gitea => &settings.gitea,
        };
        let named = request.body.actions_url.as_deref();
        let origin = named.map_or_else(|| Ok((own.clone(), String::new())), place);
        // What the settings name is the operator's word; what a server names is not.
        let mut trusted = settings.trusted.clone();
        trusted.push(own.clone());
        let policy = Policy { forge: forge.clone().ok().map(|(at, _)| at), trusted };
        let cache = JobCache::new(caches, Scope::of(request), request.envelope.job);
        let run = request
            .body
            .run
            .map(|run| LocalArtifacts::new(&artifacts.join(run.to_string()), request.envelope.job));
        let services = Services::new(request, (cache, run), &policy);
        let under_way = Arc::new(Semaphore::new(UNDER_WAY));
        Self { actions, trees, forge, origin, policy, services, under_way }
    }

    /// Does what a guest asks for.
    pub(super) async fn serve(&self, call: HostCall, body: Body) -> Result<Answer, CallError> {
        let (call, is_packed) = match call {
            HostCall::Packed(call) => (*call, true),
            call => (call, false),
        };
        let fetch = match call {
            HostCall::Action { reference } => Fetch::Action(reference),
            HostCall::Tree(wish) => Fetch::Tree(wish),
            HostCall::Forward(wish) if !is_packed => return self.services.answer(wish, body).await,
            HostCall::Forward(_) | HostCall::Packed(_) => {
                let text = "only archives of actions and repositories come packed";
                return Err(CallError::new(CallErrorKind::Invalid, text));
            }
        };
        let answer = self.fetch(fetch).await?;
        Ok(match is_packed {
            true => Answer { body: packed(answer.body), ..answer },
            false => answer,
        })
    }

    /// The job is over: what its guest began to keep and did not complete goes.
    pub(crate) async fn end(&self) {
        self.services.end().await;
    }

    async fn fetch(&self, fetch: Fetch) -> Result<Answer, CallError> {
        let turn = timeout(TURN, Arc::clone(&self.under_way).acquire_owned()).await;
        let Ok(Ok(turn)) = turn else {
            let text = format!("{UNDER_WAY} other calls of this job have taken {TURN:?}");
            return Err(CallError::new(CallErrorKind::Busy, text));
        };
        let mut attempt = 1;
        loop {
            let began = Instant::now();
            let answer = match &fetch {
                Fetch::Action(reference) => self.action(reference).await,
                Fetch::Tree(wish) => self.tree(wish).await,
            };
            match answer {
                Ok(answer) => return Ok(Answer { turn: Some(turn), ..answer }),
                Err(error)
                    if error.kind == CallErrorKind::Unavailable
                        && attempt < ATTEMPTS
                        && began.elapsed() < SHORT =>
                {
                    attempt += 1;
                    sleep(PAUSE).await;
                }
                Err(error) => return Err(error),
            }
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
        Ok(Answer {
            head: CallAnswer::Action { commit: archive.commit },
            body: Box::new(file),
            turn: None,
        })
    }

    async fn tree(&self, wish: &TreeWish) -> Result<Answer, CallError> {
        let invalid = |message: String| CallError::new(CallErrorKind::Invalid, message);
        check(wish).map_err(invalid)?;
        let (origin, path) = self.forge.clone().map_err(invalid)?;
        let repository = Repository::new(origin, &path, &wish.repository).map_err(invalid)?;
        let tree = self.trees.fetch(&repository, wish, &self.policy).await?;
        Ok(Answer {
            head: CallAnswer::Tree { commit: tree.commit },
            body: Box::new(tree.archive),
            turn: None,
        })
    }

    /// Where the repository of a reference is, and its version.
    fn place<'a>(&self, reference: &'a str) -> Result<(Repository, &'a str), String> {
        let (name, version) = reference
            .split_once('@')
            .filter(|(_, version)| !version.is_empty())
            .ok_or_else(|| format!("{reference} names no version"))?;
        if !name.contains("://") {
            let (origin, path) = self.origin.clone()?;
            return Ok((Repository::new(origin, &path, name)?, version));
        }
        // The last two parts are the repository; what stands before is where its forge is.
        let (origin, path) = Origin::split(name)?;
        let mut parts = path.trim_end_matches('/').rsplitn(3, '/');
        let (last, owner) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let below = parts.next().unwrap_or_default();
        Ok((Repository::new(origin, below, &format!("{owner}/{last}"))?, version))
    }
}

/// Whether a wish is one that git may be given.
fn check(wish: &TreeWish) -> Result<(), String> {
    let reference = &wish.reference;
    let odd = |c: char| c.is_whitespace() || c.is_control() || "~^:?*[\\".contains(c);
    if reference.contains(odd) || reference.contains("..") || reference.starts_with('-') {
        return Err(format!("{reference:?} is no name of a branch or tag"));
    }
    wish.sparse.as_ref().map_or(Ok(()), check_sparse)?;
    match &wish.commit {
        Some(commit) if !is_commit(commit) => Err(format!("{commit:?} is no whole id of a commit")),
        _ => Ok(()),
    }
}
