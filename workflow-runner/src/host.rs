//! The small interface through which the engine asks the orchestrator for what no machine of a job can
//! get by itself: a guest may have no route to the forge, no certificates and no git.

use common::call::TreeWish;

use crate::system::{Owner, Pending};

/// The orchestrator, as the engine sees it.
pub trait Host: Send + Sync {
    /// Places the files of an action in the directory `to`, which is made.
    ///
    /// `reference` is what stands in `uses`, without the path inside the repository.
    fn fetch_action<'a>(
        &'a self,
        reference: &'a str,
        to: &'a str,
        owner: Owner,
    ) -> Pending<'a, Result<Fetched, HostError>>;

    /// Places a commit of a repository of the job's forge, with `.git`, in the directory `to`, which is
    /// made.
    fn fetch_tree<'a>(
        &'a self,
        wish: &'a TreeWish,
        to: &'a str,
        owner: Owner,
    ) -> Pending<'a, Result<Fetched, HostError>>;
}

/// What is there now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// The commit that the reference stood for.
    pub commit: String,
}

/// What the host could not do: a sentence that says what and why, and what to look at.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct HostError(pub String);

/// Nobody: for a job that runs without an orchestrator.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoHost;

impl Host for NoHost {
    fn fetch_action<'a>(
        &'a self,
        reference: &'a str,
        _to: &'a str,
        _owner: Owner,
    ) -> Pending<'a, Result<Fetched, HostError>> {
        let sentence = format!("the action {reference} cannot be fetched: this job has no host");
        Box::pin(async move { Err(HostError(sentence)) })
    }

    fn fetch_tree<'a>(
        &'a self,
        wish: &'a TreeWish,
        _to: &'a str,
        _owner: Owner,
    ) -> Pending<'a, Result<Fetched, HostError>> {
        let name = &wish.repository;
        let sentence = format!("the repository {name} cannot be fetched: this job has no host");
        Box::pin(async move { Err(HostError(sentence)) })
    }
}
